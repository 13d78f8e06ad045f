"""Records that a later version wrote with names that this version does not know.

A later precision, cut or rounding makes a record unreadable to code that runs or builds engines.
Copying it and keeping what it refers to needs none of those names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from zoo.schema.index import DisabledCell
from zoo.schema.keys import WeightsIdentity
from zoo.schema.manifest import Id
from zoo.schema.records import Blob, BuildRecord, ExportRecord, Record
from zoo.util.digest import Sha256, sha256_json

_UNKNOWN_MEMBER = ("enum", "literal_error")
"""Pydantic's types of errors for a name that is not in a closed set."""


class LaterBuildRecord(Record):
    """What a build record of a later version refers to.

    Attributes:
        inputs: All inputs; their key names the record.
        export_key: Key of the export that it was built from.
        engine: The engine's bytes.
        golden: The golden file that it is verified with.
        files: Other files of the build, by name.
    """

    inputs: dict[str, JsonValue]
    export_key: Sha256
    engine: Blob
    golden: Blob
    files: dict[str, Blob] = Field(default={})

    @property
    def key(self) -> str:
        """The build key, which names the record."""
        return sha256_json(self.inputs)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that it refers to."""
        return self.engine, self.golden, *self.files.values()


class _LaterExportInputs(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    weights: WeightsIdentity

    @property
    def stated(self) -> Mapping[str, JsonValue]:
        """The other inputs as the record states them."""
        return self.model_extra or {}

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON of these inputs."""
        return sha256_json(self.model_dump(mode="json"))


class LaterExportRecord(Record):
    """What an export record of a later version refers to.

    Attributes:
        inputs: All inputs; their key names the record.
        onnx: The normalised ONNX.
        golden: Photos and PyTorch's features.
    """

    inputs: _LaterExportInputs
    onnx: Blob
    golden: Blob

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that it refers to."""
        return self.onnx, self.golden


class _LaterCard(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    model: Id


class LaterCandidate(Record):
    """What a candidate of a later version refers to.

    Attributes:
        card: The model.
        records: Keys of its build records.
        disabled: Targets without an engine.
    """

    card: _LaterCard
    records: tuple[Sha256, ...] = ()
    disabled: tuple[DisabledCell, ...] = ()


AnyBuild: TypeAlias = BuildRecord | LaterBuildRecord
AnyExport: TypeAlias = ExportRecord | LaterExportRecord

R = TypeVar("R", bound=Record)
L = TypeVar("L", bound=Record)


def read_any(data: bytes, kind: type[R], later: type[L]) -> R | L:
    """Returns a record of a kind; if only names in it are unknown, what it refers to.

    Raises:
        ValidationError: It is neither.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        if any(fault["type"] not in _UNKNOWN_MEMBER for fault in error.errors()):
            raise
    return later.model_validate_json(data)
