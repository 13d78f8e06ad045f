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
from zoo.errors import MissError
from zoo.key import BuildInputs
from zoo.layout import MISSED, missed_key
from zoo.record import DisabledRecord, ExportRecord, MissRecord
from zoo.repository import Repository

Export = ExportRecord | DisabledRecord | None


class Misses:
    """What missed its floors in a repository; listed once, when first asked for."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._known: set[str] | None = None

    def __contains__(self, inputs: BuildInputs) -> bool:
        return missed_key(inputs.model, inputs.key) in self._keys()

    def add(self, inputs: BuildInputs, reason: str) -> None:
        """Writes down that an engine of these inputs missed its floors."""
        key = missed_key(inputs.model, inputs.key)
        record = MissRecord(inputs=inputs, reason=reason)
        self._repository.store.put(key, record.to_json(), if_absent=True)
        self._keys().add(key)

    def _keys(self) -> set[str]:
        with self._lock:
            if self._known is None:
                self._known = {entry.key for entry in self._repository.store.list(MISSED)}
            return self._known

    @contextmanager
    def watch(self, inputs: BuildInputs) -> Iterator[None]:
        """Watches the proving of an engine; writes it down where it misses its floors."""
        try:
            yield
        except MissError as error:
            self.add(inputs, error.message)
            raise


def best_form(
    form: Form,
    export: Callable[[Form], Export],
    missed: Callable[[ExportRecord], bool],
) -> tuple[Form, Export]:
    """Returns the form whose engine is to be had: the first that is not known to miss.

    Where no stricter network is to be had, or it is the same one, it is the last there is.

    Args:
        form: The first to try.
        export: From a form to its export; None where it is not made yet.
        missed: Whether an export's engine is known to miss.
    """
    found = export(form)
    while (
        isinstance(found, ExportRecord)
        and (stricter := form.stricter) is not None
        and missed(found)
    ):
        other = export(stricter)
        if isinstance(other, DisabledRecord):
            break
        if other is not None and other.onnx == found.onnx:
            break
        form, found = stricter, other
    return form, found
