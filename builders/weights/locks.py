"""``manifests.lock``: what the hub stated about weights whose manifest leaves it open.

It stands beside the manifests, is written by ``make zoo`` and ``make lock``, and is reviewed and
committed like code. A manifest's own values come first: the lock may add to them and never differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from builders.weights.standing import origins
from zoo.schema.manifest import (
    UNLOCKED,
    Commit,
    DigestFrom,
    HubWeights,
    Id,
    Manifest,
    RepositoryName,
    SafetensorsName,
    read_manifests,
)
from zoo.schema.refused import refused_values
from zoo.util.digest import Sha256
from zoo.util.errors import ManifestError, UsageError
from zoo.util.files import write_whole
from zoo.util.loading import read_toml
from zoo.util.locks import turn

NAME = "manifests.lock"

_TURN = ".manifests.lock.turn"
_HEAD = (
    "Weights that manifests leave open, as the hub stated them. Written by `make lock` and",
    "`make zoo`; review a change as you review code, and commit it. Only",
    "`make lock UPGRADE=MODEL` changes an entry; digest_from becomes `download` when a download",
    "had the hash.",
)
_PINS = ("sha256", "size", "revision")
_BOUND = ("repository", "file")


class Pin(BaseModel):
    """What is locked of one model's weights.

    Attributes:
        repository: Their repository on the hub, as the manifest names it.
        file: Their file in it.
        revision: Commit that holds the file.
        sha256: Hash of the file.
        size: Its bytes.
        digest_from: Who states the hash.
        moved_to: The repository's present name, if the hub has it under another.
        hub: Address of the hub that was asked, if it was not the public one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    repository: RepositoryName
    file: SafetensorsName
    revision: Commit
    sha256: Sha256
    size: Annotated[int, Field(gt=0)]
    digest_from: Annotated[DigestFrom, Field(strict=False)]
    moved_to: RepositoryName | None = None
    hub: str | None = None

    @model_validator(mode="after")
    def _moved_elsewhere(self) -> Pin:
        if self.moved_to == self.repository:
            raise ValueError(f"moved_to is the repository's own name, {self.repository}")
        return self

    def is_of(self, weights: HubWeights) -> bool:
        """Whether it is of the repository and the file of these weights."""
        return (self.repository, self.file) == (weights.repository, weights.file)


class Locks(BaseModel):
    """The content of a ``manifests.lock``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    models: dict[Id, Pin] = {}


def lock_path(folder: Path) -> Path:
    """Returns the lock of a folder of manifests."""
    return folder / NAME


def read_locks(folder: Path) -> Locks:
    """Reads the lock of a folder of manifests; an empty one if there is none.

    Raises:
        ManifestError: It can't be read: a mistake in it must not lead to weights being locked anew.
    """
    path = lock_path(folder)
    hint = f"{NAME} is written by make lock; restore it from version control"
    try:
        data = read_toml(path)
        if refused := refused_values(data):
            raise ManifestError("\n".join(f"{path}: {line}" for line in refused), hint=hint)
        return Locks.model_validate_json(json.dumps(data))
    except FileNotFoundError:
        return Locks()
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise ManifestError("\n".join(lines), hint=hint) from error
    except ValueError as error:
        raise ManifestError(f"{path}: not TOML: {error}", hint=hint) from error


@contextmanager
def changing(folder: Path) -> Iterator[Callable[[Mapping[str, Pin]], None]]:
    """Yields a function that writes the lock; no other process does so meanwhile.

    Read the lock after entering: another process may just have written it.

    Raises:
        UsageError: The folder can't be written.
    """
    try:
        with turn(folder / _TURN):
            yield lambda pins: write_whole(lock_path(folder), to_toml(pins).encode())
    except OSError as error:
        raise UsageError(
            f"{lock_path(folder)} can't be written: {error.strerror}",
            hint="weights are used only after they are locked; choose a folder that can be "
            "written with MANIFESTS=",
        ) from error


def to_toml(pins: Mapping[str, Pin]) -> str:
    """Returns a lock as text: models in order of id, fields in the order of :class:`Pin`."""
    import tomlkit

    document = tomlkit.document()
    for line in _HEAD:
        document.add(tomlkit.comment(line))
    document.add("version", tomlkit.item(1))
    models = tomlkit.table(is_super_table=True)
    for name in sorted(pins):
        table = tomlkit.table()
        table.update(pins[name].model_dump(mode="json", exclude_none=True))
        models.append(name, table)
    document.append("models", models)
    return tomlkit.dumps(document)


def with_lock(manifest: Manifest, locks: Locks) -> Manifest:
    """Returns a manifest with what the lock adds to it.

    Raises:
        ManifestError: The two state different values.
    """
    weights, pin = manifest.weights, locks.models.get(manifest.id)
    if not isinstance(weights, HubWeights) or pin is None:
        return manifest
    if (error := contradiction(manifest.id, weights, pin)) is not None:
        raise error
    added = {field: getattr(pin, field) for field in (*_PINS, "digest_from")}
    return manifest.model_copy(update={"weights": weights.model_copy(update=added)})


def contradiction(model: str, weights: HubWeights, pin: Pin) -> ManifestError | None:
    """Returns the error that an entry contradicts the manifest; None if it does not.

    Args:
        model: Manifest id.
        weights: As the manifest states them.
        pin: The entry.
    """
    for field in (*_BOUND, *_PINS):
        stated, locked = getattr(weights, field), getattr(pin, field)
        if stated not in (UNLOCKED, locked):
            return ManifestError(
                f"{model}: weights.{field}: the manifest states {stated}, {NAME} {locked}",
                hint=f"if the manifest is right, make lock UPGRADE={model} looks the weights "
                "up again; it never overrides the manifest",
            )
    if pin.digest_from not in origins(weights):
        states = f"states {weights.digest_from}" if weights.digest_from else "states none"
        return ManifestError(
            f"{model}: weights.digest_from: the manifest {states}, {NAME} {pin.digest_from}",
            hint=f"{NAME} may state {' or '.join(dict.fromkeys(origins(weights)))}; if the "
            f"manifest is right, make lock UPGRADE={model} looks the weights up again",
        )
    return None


def read_locked(folder: Path) -> tuple[dict[str, Manifest], dict[str, ManifestError]]:
    """Reads every manifest in a folder, with what the lock adds.

    Returns:
        As :func:`zoo.schema.manifest.read_manifests`; a manifest that the lock contradicts is among
        the errors.

    Raises:
        ManifestError: The folder has no manifests, or the lock can't be read.
    """
    good, bad = read_manifests(folder)
    locks = read_locks(folder)
    whole: dict[str, Manifest] = {}
    for name, manifest in good.items():
        try:
            whole[name] = with_lock(manifest, locks)
        except ManifestError as error:
            bad[name] = error
    return whole, bad
