"""Records: immutable JSON that describes a repository's blobs.

Readers keep unknown fields, so that old clients can read newer records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from typing_extensions import assert_never

from zoo.schema.closed import Lenient, Unknown, complete
from zoo.schema.keys import BuildInputs, ExportInputs, WeightsIdentity
from zoo.schema.measurements import (
    AttestationBody,
    BenchmarkedBody,
    CalibrationImages,
    ComparedBody,
    Cost,
    EngineFacts,
    MachineDescription,
    OnnxCheck,
    PendingBody,
    ReinstatedBody,
    Trial,
    VerifiedBody,
    WithdrawnBody,
)
from zoo.schema.targets import Toolchain
from zoo.util.digest import Sha256, sha256_json
from zoo.util.strenum import StrEnum

SCHEMA_VERSION = 1
"""Of records that every version reads."""

CHUNKS_ONLY = 2
"""Of an index entry whose engine is stored as chunks alone: earlier versions would not find it, and
their garbage collection would delete its chunks."""

NEWEST = CHUNKS_ONLY
"""The newest version that this package reads."""


class Kind(StrEnum):
    """Whether a repository holds engines with trained weights or with random ones."""

    RELEASE = "release"
    DRY_RUN = "dry-run"

    @property
    def seeded(self) -> bool:
        """Whether the weights are random ones, which nobody should use or needs a licence for."""
        match self:
            case Kind.RELEASE:
                return False
            case Kind.DRY_RUN:
                return True
            case _:
                assert_never(self)


class Status(StrEnum):
    """The status of an engine on a target."""

    VERIFIED = "verified"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"


class AttestationKind(StrEnum):
    """What an attestation states about an engine."""

    VERIFIED = "verified"
    BENCHMARKED = "benchmarked"
    COMPARED = "compared"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"
    REINSTATED = "reinstated"


BODIES: Mapping[AttestationKind, type[AttestationBody]] = complete(
    AttestationKind,
    {
        AttestationKind.VERIFIED: VerifiedBody,
        AttestationKind.BENCHMARKED: BenchmarkedBody,
        AttestationKind.COMPARED: ComparedBody,
        AttestationKind.PENDING: PendingBody,
        AttestationKind.WITHDRAWN: WithdrawnBody,
        AttestationKind.REINSTATED: ReinstatedBody,
    },
)
"""What an attestation of each kind states."""


class PrecisionStatus(StrEnum):
    """Whether an engine was inspected to confirm the precision that its layers run in."""

    PROVEN = "proven"
    UNPROVEN = "unproven"


class Record(BaseModel):
    """Base of all records that are read from a repository."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    schema_version: int = SCHEMA_VERSION

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > NEWEST:
            raise ValueError(
                f"{version} is newer than this version of caft-zoo reads ({NEWEST}): upgrade it"
            )
        return version

    def to_json(self) -> bytes:
        """Returns the record as indented JSON with a final newline, UTF-8."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class Blob(BaseModel):
    """Immutable bytes, named by their hash.

    Attributes:
        sha256: Their hash.
        size: Their number.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    sha256: Sha256
    size: int


class RepositoryInfo(Record):
    """``repository.json``: the repository's kind."""

    kind: Kind


class StateRecord(Record):
    """A stored state dict of random weights, which other machines can't reproduce byte by byte."""

    model: str
    recipe: str
    state: Blob

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that it refers to."""
        return (self.state,)


class Advice(BaseModel):
    """How an ONNX was lowered to a precision below fp32.

    Attributes:
        tried: The candidates evaluated on calibration images, with their numbers, in order.
        kept: Operators that stay in a higher precision, by module, the most sensitive first.
        operators: Number of operators with weights, and of shortcuts, in the network.
        kept_work: Fraction of the network's multiplications in the kept operators.
        islands: Number of nodes that stay fp32, by reason.
        ranges: How the ranges of activations were determined, for int8.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    tried: tuple[Trial, ...] = ()
    kept: tuple[str, ...] = ()
    operators: int = 0
    kept_work: float = 0.0
    islands: dict[str, int] = {}
    ranges: str | None = None

    @property
    def mixed(self) -> bool:
        """Whether some operators stay in a higher precision."""
        return bool(self.kept)


class ExportRecord(Record):
    """An export: a normalised ONNX and its golden features.

    Attributes:
        inputs: All inputs; their key names the record.
        onnx: The normalised ONNX.
        golden: Photos (uint8, N x H x W x 3) and PyTorch's fp32 features (N x feature_dim), .npz.
        parameters: Number of weights in the backbone.
        largest_tensor: Elements per image of the largest activation.
        check: Results of comparing the ONNX with PyTorch.
        calibration: Below fp32, the digests of the calibration images.
        advice: Below fp32, the candidates tried and the operators that stay in a higher precision.
        notes: What was recognised in the weights and what the export needed, in words.
        cost: Seconds and peak memory (bytes) of the worker.
    """

    inputs: ExportInputs
    onnx: Blob
    golden: Blob
    parameters: int
    largest_tensor: int
    check: OnnxCheck
    calibration: CalibrationImages | None = None
    advice: Advice | None = None
    notes: tuple[str, ...] = ()
    cost: Cost

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that it refers to."""
        return self.onnx, self.golden

    @model_serializer(mode="wrap")
    def _without_empty_notes(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Leaves out notes that there are none of, as before there were any."""
        values = dump(self)
        if not values["notes"]:
            del values["notes"]
        return values


class FailureStage(StrEnum):
    """At which stage something failed."""

    EXPORT = "export"
    BUILD = "build"
    VERIFY = "verify"


class FailureReason(StrEnum):
    """Why something failed, which decides when it is tried again.

    Attributes:
        TOLERANCE: It misses its tolerance. Tried again with other inputs or another tolerance.
        CRASHED: It could not be built or run. Tried again the next night, twice in all.
    """

    TOLERANCE = "tolerance"
    CRASHED = "crashed"


class Retry(StrEnum):
    """When something that failed is tried again."""

    NEXT_NIGHT = "next-night"
    OTHER_INPUTS = "other-inputs"


class FailureRecord(Record):
    """A failed export, build or verification. Appended, never edited.

    Attributes:
        stage: What failed.
        reason: Why: decisions are made from this, never from the text.
        text: What went wrong, for people.
        inputs: The inputs; their key names the record's folder. An engine for several
            architectures that misses its tolerance also has a record for each of them.
        time: When the run began, ISO 8601 in UTC; a run counts once.
        tolerance: The tolerance in force; None in old records, which count for any tolerance.
        weights: The weights of the engine; None if the inputs state them or they are unknown.
        targets: Labels of the targets that the engine was to serve.
        retry: When it is tried again, or when asked to; None in old records, whose reason decides.
        stricter_may_pass: Of an export: whether one that uses up less of the tolerance may pass.
        calibration: Of an export: the digests of the calibration images.
        advice: Of an export: the candidates tried.
        cost: Of an export: seconds and peak memory (bytes) of the worker.
    """

    stage: FailureStage
    reason: FailureReason
    text: str
    inputs: ExportInputs | BuildInputs
    time: str = ""
    tolerance: dict[str, float] | None = None
    weights: WeightsIdentity | None = None
    targets: tuple[str, ...] = ()
    retry: Annotated[Retry | Unknown, Lenient(Retry)] | None = None
    stricter_may_pass: bool = False
    calibration: CalibrationImages | None = None
    advice: Advice | None = None
    cost: Cost = Cost()

    @property
    def of_weights(self) -> WeightsIdentity | None:
        """The weights of the failed engine or export."""
        return self.inputs.weights if isinstance(self.inputs, ExportInputs) else self.weights


class TimingCacheRecord(Record):
    """The latest timing cache of a GPU and a toolchain; the only record that is overwritten.

    It only saves time: engines do not depend on it, and no key includes it.

    Attributes:
        device: The GPU's name.
        toolchain: The toolchain that wrote the cache.
        cache: The cache's bytes.
    """

    device: str
    toolchain: Toolchain
    cache: Blob

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that it refers to."""
        return (self.cache,)


class BuildRecord(Record):
    """An engine.

    Attributes:
        inputs: All inputs; their key names the record.
        export_key: Key of the export that it was built from.
        targets: Labels of the targets that it serves.
        engine: The engine's bytes.
        golden: The golden file that it is verified with.
        files: Other files of the build, by name: the worker's ``log``, and ``inspector``,
            TensorRT's description of its layers, and ``tactics``, if they were recorded.
        feature_dim: Width of its output.
        advice: Below fp32, which operators stay in a higher precision, and why.
        dry_run: Whether the weights are random.
        precision_status: Whether the engine was inspected to confirm its precision.
        facts: What the backend read from the engine: header version, capabilities, inputs.
        licence: SPDX identifier of the weights.
        weights: Where the weights come from.
        cost: Seconds of the build, and of verification and benchmark together (``proof_seconds``);
            peak memory (bytes) of all three.
        created: When, ISO 8601 in UTC.
    """

    inputs: BuildInputs
    export_key: Sha256
    targets: tuple[str, ...]
    engine: Blob
    golden: Blob
    files: dict[str, Blob] = {}
    feature_dim: int
    advice: Advice | None = None
    dry_run: bool
    precision_status: PrecisionStatus
    facts: EngineFacts
    licence: str
    weights: str
    cost: Cost
    created: str

    @property
    def key(self) -> str:
        """The build key, which names the record."""
        return self.inputs.key

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs that it refers to."""
        return self.engine, self.golden, *self.files.values()


class Signature(BaseModel):
    """A builder's signature of an attestation, which covers its other two fields as well.

    Attributes:
        builder: ID of the builder's key.
        record: Digest of the build record of the engine that was attested; None if the attestation
            is about the engine's bytes, whatever record names them.
        value: The signature, in hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    builder: str
    record: Sha256 | None = None
    value: str


class CandidateSignature(BaseModel):
    """A builder's signature of a candidate, which covers all its other fields.

    Attributes:
        builder: ID of the builder's key.
        value: The signature, in hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    builder: str
    value: str


class Attestation(Record):
    """A result about an engine from one machine at one time. Appended, never edited.

    Attributes:
        kind: The kind of result; unknown if a later version of this package wrote it.
        engine: Digest of the engine.
        time: When, ISO 8601 in UTC.
        key: Key of the result's inputs, so that it is not computed twice.
        machine: The machine.
        body: The numbers.
        signature: That of the builder; None in those of earlier versions.
    """

    kind: Annotated[AttestationKind | Unknown, Lenient(AttestationKind)]
    engine: Sha256
    time: str
    key: Sha256
    machine: MachineDescription
    body: AttestationBody
    signature: Signature | None = None

    @model_serializer(mode="wrap")
    def _without_no_signature(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Leaves out a signature that is not there, as before there were any."""
        values = dump(self)
        if values["signature"] is None:
            del values["signature"]
        return values

    @field_validator("body", mode="before")
    @classmethod
    def _is_of_kind(cls, body: object, info: ValidationInfo) -> object:
        kind = info.data.get("kind")
        if isinstance(body, dict) and isinstance(kind, AttestationKind):
            return BODIES[kind].model_validate(body)
        return body

    @property
    def by_hand(self) -> bool:
        """Whether a person withdrew the engine, which applies to every architecture."""
        return isinstance(self.body, WithdrawnBody) and self.body.states("by")

    @property
    def probed(self) -> str | None:
        """Digest of the labelled photos of its linear probe; None without one."""
        body = self.body
        return body.probe.sha256 if isinstance(body, VerifiedBody) and body.probe else None

    @property
    def name(self) -> str:
        """File name: ``<time>-<kind>-<digest>.json``; sorts by time."""
        return f"{self.time.replace(':', '')}-{self.kind}-{self.digest[:16]}.json"

    @property
    def digest(self) -> str:
        """SHA-256 of its contents."""
        return sha256_json(self.model_dump(mode="json"))

    @property
    def short(self) -> str:
        """The digits of its digest by which the index names it: 128 bits."""
        return self.digest[:32]
