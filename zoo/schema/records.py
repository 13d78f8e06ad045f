"""Records: what a repository knows of its blobs. Immutable JSON.

Readers keep fields that they do not know, so that an old client survives a new record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
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
    Trial,
    VerifiedBody,
    WithdrawnBody,
)
from zoo.schema.targets import Toolchain
from zoo.util.digest import Sha256, sha256_json
from zoo.util.strenum import StrEnum

SCHEMA_VERSION = 1


class Kind(StrEnum):
    """What a repository is for: real weights, or seeded ones."""

    RELEASE = "release"
    DRY_RUN = "dry-run"


class Status(StrEnum):
    """Where an engine stands."""

    VERIFIED = "verified"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"


class AttestationKind(StrEnum):
    """What an attestation says of an engine."""

    VERIFIED = "verified"
    BENCHMARKED = "benchmarked"
    COMPARED = "compared"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"


BODIES: Mapping[AttestationKind, type[AttestationBody]] = complete(
    AttestationKind,
    {
        AttestationKind.VERIFIED: VerifiedBody,
        AttestationKind.BENCHMARKED: BenchmarkedBody,
        AttestationKind.COMPARED: ComparedBody,
        AttestationKind.PENDING: PendingBody,
        AttestationKind.WITHDRAWN: WithdrawnBody,
    },
)
"""What an attestation of each kind states."""


class PrecisionStatus(StrEnum):
    """Whether an engine was asked which precision it runs in."""

    PROVEN = "proven"
    UNPROVEN = "unproven"


class Record(BaseModel):
    """Base of everything that is read from a repository."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    schema_version: int = SCHEMA_VERSION

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"{version} is newer than this version of caft-zoo reads ({SCHEMA_VERSION}): "
                "upgrade it"
            )
        return version

    def to_json(self) -> bytes:
        """Returns the record as indented JSON with a final newline, UTF-8."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class Blob(BaseModel):
    """Immutable bytes, named by their hash.

    Attributes:
        sha256: Their hash.
        size: How many there are.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    sha256: Sha256
    size: int


class RepositoryInfo(Record):
    """``repository.json``: what a repository is for."""

    kind: Kind


class StateRecord(Record):
    """A stored state dict: seeded weights, which no one could make again to the byte elsewhere."""

    model: str
    recipe: str
    state: Blob

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """What it names."""
        return (self.state,)


class Advice(BaseModel):
    """How a precision below fp32 came to be what it is.

    Attributes:
        tried: What was tried on calibration images, with numbers, in order.
        kept: Operators that stay in higher precision, by module: the worst first.
        operators: How many operators with weights, and shortcuts, the network has.
        kept_work: The kept ones' share of its multiplications.
        islands: Reason to how many nodes stay fp32 for it.
        ranges: How the ranges of activations were told, for int8.
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
        """Whether operators stay in higher precision than the name says."""
        return bool(self.kept)


class ExportRecord(Record):
    """An export: inputs to normalised ONNX and golden.

    Attributes:
        inputs: Everything that went in; its key names the record.
        onnx: The normalised ONNX.
        golden: Photos (uint8, N x H x W x 3) and PyTorch's fp32 features (N x feature_dim), .npz.
        parameters: Number of weights in the backbone.
        largest_tensor: Elements per image of the largest activation.
        check: What the export was checked for, with numbers.
        calibration: Below fp32, the images that it was measured and tried on, by digest.
        advice: Below fp32, what was tried and which operators stay in higher precision.
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
    cost: Cost

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """What it names."""
        return self.onnx, self.golden


class FailureStage(str, Enum):
    """At which stage something failed."""

    EXPORT = "export"
    BUILD = "build"
    VERIFY = "verify"


class FailureReason(str, Enum):
    """Why something failed, which decides when it is tried again.

    Attributes:
        TOLERANCE: It misses its tolerance. Tried again with other inputs or another tolerance.
        CRASHED: It could not be built or run. Tried again the next night, twice in all.
    """

    TOLERANCE = "tolerance"
    CRASHED = "crashed"


class FailureRecord(Record):
    """A failed export, build or verification. Appended, never edited.

    Attributes:
        stage: What failed.
        reason: Why: decisions are made from this, never from the text.
        text: What went wrong, for people.
        inputs: What it was to be made from; the key of these names the folder of the record. An
            engine for several architectures that misses its tolerance has a record for each too.
        time: When the run began, ISO 8601 in UTC: one run counts once.
        tolerance: The one in force; None in old records, which count for any.
        weights: Whose engine it was to be; None where the inputs say it, or nobody knows.
        targets: Labels of the targets that the engine was to serve.
        stricter_may_pass: Of an export: whether one that uses up less of the tolerance may pass.
        calibration: Of an export: the images that it was tried on, by digest.
        advice: Of an export: what was tried.
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
    stricter_may_pass: bool = False
    calibration: CalibrationImages | None = None
    advice: Advice | None = None
    cost: Cost = Cost()

    @property
    def of_weights(self) -> WeightsIdentity | None:
        """Whose engine or export it was to be."""
        return self.inputs.weights if isinstance(self.inputs, ExportInputs) else self.weights


class TimingCacheRecord(Record):
    """The newest timing cache of a GPU and a toolchain. The one record that is written again.

    It only saves time: an engine does not depend on it, and its key does not hold it.

    Attributes:
        device: The GPU's name.
        toolchain: What timed.
        cache: The cache's bytes.
    """

    device: str
    toolchain: Toolchain
    cache: Blob

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """What it names."""
        return (self.cache,)


class BuildRecord(Record):
    """An engine: inputs to bytes.

    Attributes:
        inputs: Everything that went in; its key names the record.
        export_key: Key of the export that it was built from.
        targets: Labels of the targets that it serves.
        engine: The engine's bytes.
        golden: The golden file that proves it.
        files: What is kept beside the engine, by name: ``log`` of the worker, and ``inspector``,
            what TensorRT says of its layers.
        feature_dim: Width of its output.
        advice: Below fp32, which operators stay in higher precision, and why.
        dry_run: Whether the weights are seeded.
        precision_status: Whether the engine was asked what it runs in.
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
        """What it names."""
        return self.engine, self.golden, *self.files.values()


class Attestation(Record):
    """What was found out about an engine on one machine at one time. Appended, never edited.

    Attributes:
        kind: What is attested; unknown where a later version of this package attested it.
        engine: Digest of the engine.
        time: When, ISO 8601 in UTC.
        key: Key of what went into the finding, so that it is not made twice.
        machine: Where.
        body: The numbers.
    """

    kind: Annotated[AttestationKind | Unknown, Lenient(AttestationKind)]
    engine: Sha256
    time: str
    key: Sha256
    machine: MachineDescription
    body: AttestationBody

    @field_validator("body", mode="before")
    @classmethod
    def _is_of_kind(cls, body: object, info: ValidationInfo) -> object:
        kind = info.data.get("kind")
        if isinstance(body, dict) and isinstance(kind, AttestationKind):
            return BODIES[kind].model_validate(body)
        return body

    @property
    def by_hand(self) -> bool:
        """Whether no machine found it: somebody said so, of every architecture."""
        return isinstance(self.body, WithdrawnBody) and self.body.states("by")

    @property
    def probed(self) -> str | None:
        """Digest of the labelled photos of its linear probe; None without one."""
        body = self.body
        return body.probe.sha256 if isinstance(body, VerifiedBody) and body.probe else None

    @property
    def name(self) -> str:
        """File name: ``<time>-<kind>-<digest>.json``; sorts by time."""
        digest = sha256_json(self.model_dump(mode="json"))
        return f"{self.time.replace(':', '')}-{self.kind}-{digest[:16]}.json"


def concerning(attestations: Iterable[Attestation], arch: str) -> list[Attestation]:
    """Returns what is said of an engine on one architecture.

    One engine may serve several. What running it on one of them showed says nothing of the others.

    Args:
        attestations: Of the engine, oldest first.
        arch: ``cpu`` or ``sm86``.
    """
    return [
        one
        for one in attestations
        if arch == "cpu"
        or one.kind == AttestationKind.PENDING
        or one.by_hand
        or _gpu_arch(one.machine) == arch
    ]


def _gpu_arch(machine: MachineDescription) -> str:
    capability = (machine.gpu.compute_capability if machine.gpu else None) or ""
    return f"sm{capability.replace('.', '')}"


def status_of(attestations: list[Attestation]) -> tuple[Status, str | None]:
    """Says where an engine stands, from what was attested about it.

    Args:
        attestations: Of one engine, oldest first.

    Returns:
        The status, and the reason when it is not ``verified``.
    """
    status: Status = Status.PENDING
    reason: str | None = "nothing has been attested yet"
    for attestation in attestations:
        stated = _status_by(attestation.kind)
        if stated is None:
            continue
        status = stated
        reason = None if status == Status.VERIFIED else attestation.body.reason or ""
    return status, reason


def _status_by(kind: AttestationKind | Unknown) -> Status | None:
    """Returns the status that an attestation gives an engine, None where it gives none."""
    if isinstance(kind, Unknown):
        return None
    match kind:
        case AttestationKind.VERIFIED:
            return Status.VERIFIED
        case AttestationKind.PENDING:
            return Status.PENDING
        case AttestationKind.WITHDRAWN:
            return Status.WITHDRAWN
        case AttestationKind.BENCHMARKED | AttestationKind.COMPARED:
            return None
        case _:
            assert_never(kind)
