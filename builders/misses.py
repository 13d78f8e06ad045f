"""Misses: engines that missed their floors, and the stricter networks that are tried instead.

What is judged before a build is an ONNX. An engine of it rounds where no ONNX shows, and may miss
the floors that the ONNX keeps: then a network is made that leaves more of them free, and built.
That an engine missed is written down, so that no run builds it again where there is a stricter one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builders.inputs import Form
from zoo.digest import sha256_json
from zoo.errors import MissError
from zoo.key import BuildInputs
from zoo.layout import MISSED, missed_key
from zoo.record import DisabledRecord, ExportRecord, MissRecord
from zoo.repository import Repository
from zoo.tolerance import Tolerance

MaybeExport = ExportRecord | DisabledRecord | None
"""An ONNX, or why there is none, or nothing where it was not tried."""


class Misses:
    """What missed its floors in a repository; listed once, when first asked for."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._known: set[str] | None = None

    def known(self, inputs: BuildInputs, tolerance: Tolerance) -> bool:
        """Whether an engine of these inputs, or of more architectures, missed these floors."""
        return not self._keys().isdisjoint(_places(inputs, tolerance))

    def reason(self, inputs: BuildInputs, tolerance: Tolerance) -> str | None:
        """Returns what an engine of these inputs missed; None where none is known to."""
        for key in self._keys().intersection(_places(inputs, tolerance)):
            if (record := self._repository.read(key, MissRecord)) is not None:
                return record.reason
        return None

    def add(self, inputs: BuildInputs, tolerance: Tolerance, reason: str) -> None:
        """Writes down that an engine of these inputs missed its floors."""
        floors = tolerance.model_dump(mode="json")
        record = MissRecord(inputs=inputs, tolerance=floors, reason=reason)
        for key in _places(inputs, tolerance):
            self._repository.store.put(key, record.to_json(), if_absent=True)
            self._keys().add(key)

    def _keys(self) -> set[str]:
        with self._lock:
            if self._known is None:
                self._known = {entry.key for entry in self._repository.store.list(MISSED)}
            return self._known

    @contextmanager
    def watch(self, inputs: BuildInputs, tolerance: Tolerance) -> Iterator[None]:
        """Watches the proving of an engine; writes it down where it misses its floors."""
        try:
            yield
        except MissError as error:
            self.add(inputs, tolerance, error.message)
            raise


def _places(inputs: BuildInputs, tolerance: Tolerance) -> list[str]:
    """Returns where it lies that an engine missed these floors: a place for each architecture.

    Nothing else tells an engine for several from one that is wanted for some of them.
    """
    floors = tolerance.model_dump(mode="json")
    alone = (inputs.model_copy(update={"archs": (arch,)}) for arch in inputs.archs)
    return [
        missed_key(inputs.model, sha256_json({"build": one.key, "tolerance": floors}))
        for one in alone
    ]


def best_form(
    form: Form,
    export: Callable[[Form], MaybeExport],
    missed: Callable[[ExportRecord], bool],
) -> tuple[Form, MaybeExport]:
    """Returns the form whose engine is to be had: the first that is not known to miss.

    A precision that there is no ONNX of gives way too, where a stricter one may keep its floors.
    Stricter networks that can't be had, or are the same, are passed over; where no other is left,
    it is the last there is.

    Args:
        form: The first to try.
        export: From a form to its export; None where it is not made yet.
        missed: Whether an export's engine is known to miss.
    """
    found = export(form)
    for stricter in form.stricter:
        if not _gives_way(found, missed):
            break
        other = export(stricter)
        if isinstance(other, DisabledRecord) or _same(other, found):
            continue
        form, found = stricter, other
    return form, found


def _gives_way(export: MaybeExport, missed: Callable[[ExportRecord], bool]) -> bool:
    if isinstance(export, DisabledRecord):
        return export.stricter_may_pass
    return export is not None and missed(export)


def _same(one: MaybeExport, other: MaybeExport) -> bool:
    return (
        isinstance(one, ExportRecord) and isinstance(other, ExportRecord) and one.onnx == other.onnx
    )
