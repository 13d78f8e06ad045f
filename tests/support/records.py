"""Builders of records for all tests: every value has a default, which a test may replace by name.

This is the one place where tests construct the types of ``zoo.schema.keys``,
``zoo.schema.records`` and ``zoo.schema.index``, toolchains, and what a worker returns of a build:
a change to a type is a change here. Nothing in these records was measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel

from builders.jobs.messages import BuildOutput
from zoo.schema.floors import LIMITS, Tolerance
from zoo.schema.index import (
    BenchmarkSummary,
    Candidate,
    ComparisonSummary,
    DisabledCell,
    EngineEntry,
    ModelCard,
    ModelIndex,
    VerificationSummary,
)
from zoo.schema.keys import BuildInputs, ExportInputs, WeightsIdentity
from zoo.schema.layout import blob_key
from zoo.schema.manifest import BackboneCut, BatchRange, CatalogText, Preprocess
from zoo.schema.records import Attestation, Blob, BuildRecord, ExportRecord, StateRecord
from zoo.schema.targets import Target, Toolchain
from zoo.stores import ObjectStore
from zoo.util.digest import sha256_bytes

CREATED = "2026-01-01T00:00:00.000000Z"
VERSIONS: dict[str, str] = {"ort": "1.32.0", "rtx": "1.7.1.116", "trt": "11.4.0.13"}

_Model = TypeVar("_Model", bound=BaseModel)


def _build(model: type[_Model], defaults: dict[str, Any], overrides: dict[str, Any]) -> _Model:
    """Validates defaults and overrides as a model.

    Records keep fields that they do not know, so a misspelt override would go unnoticed: refused.
    """
    if unknown := overrides.keys() - model.model_fields.keys():
        raise TypeError(f"{model.__name__} has no field {', '.join(sorted(unknown))}")
    return model.model_validate({**defaults, **overrides})


def sha256(digit: str) -> str:
    """Returns a digest that a reader of a failing test recognises: one digit, 64 times."""
    return digit * 64


def toolchain(
    kind: str = "ort", version: str | None = None, *, cuda: int | None = None
) -> Toolchain:
    """Returns a runtime on x86-64 Linux."""
    values = {"kind": kind, "version": version or VERSIONS[kind], "cuda": cuda}
    return Toolchain.model_validate({**values, "os": "linux", "machine": "x86_64"})


def blob(content: bytes | None = None, **overrides: Any) -> Blob:
    """Returns the blob of some bytes, or of none in particular."""
    content = b"" if content is None else content
    return _build(Blob, {"sha256": sha256_bytes(content), "size": len(content)}, overrides)


def put_blob(store: ObjectStore, content: bytes) -> Blob:
    """Stores some bytes as a blob."""
    made = blob(content)
    store.put(blob_key(made.sha256), content)
    return made


def preprocess(**overrides: Any) -> Preprocess:
    """Returns the preprocessing of a network of 224 pixels."""
    half = (0.5, 0.5, 0.5)
    defaults = {
        "input_size": 224, "crop": 0.875, "interpolation": "bicubic", "mean": half, "std": half,
    }  # fmt: skip
    return _build(Preprocess, defaults, overrides)


def small_preprocess(**overrides: Any) -> Preprocess:
    """Returns the preprocessing of ``data/toy.onnx``, which takes 32 pixels."""
    return preprocess(**{"input_size": 32, **overrides})


def weights_identity(**overrides: Any) -> WeightsIdentity:
    """Returns the identity of weights from a file."""
    defaults = {"kind": "file", "source": "file w", "digest": sha256("5")}
    return _build(WeightsIdentity, defaults, overrides)


def backbone_cut(**overrides: Any) -> BackboneCut:
    """Returns a cut after pooling, 1280 features wide."""
    return _build(BackboneCut, {"cut": "pooled", "feature_dim": 1280}, overrides)


def export_inputs(**overrides: Any) -> ExportInputs:
    """Returns the inputs of an fp32 export; the architecture is called as the model is."""
    defaults = {
        "model": "m",
        "arch": overrides.get("model", "m"),
        "weights": weights_identity(),
        "backbone": backbone_cut(),
        "preprocess": preprocess(),
        "precision": "fp32",
        "recipe": "plain",
        "dialect": "dynamo-20",
        "golden": "g",
        "versions": {"torch": "2.13.0"},
    }
    return _build(ExportInputs, defaults, overrides)


def export_record(**overrides: Any) -> ExportRecord:
    """Returns an fp32 export."""
    defaults: dict[str, Any] = {
        "inputs": overrides.get("inputs") or export_inputs(),
        "onnx": blob(b"onnx"),
        "golden": blob(b"golden"),
        "parameters": 3_000_000,
        "largest_tensor": 1000,
        "check": {},
        "cost": {},
    }
    return _build(ExportRecord, defaults, overrides)


def build_inputs(**overrides: Any) -> BuildInputs:
    """Returns the inputs of an fp32 engine of ONNX Runtime on the CPU."""
    defaults = {
        "model": "m",
        "onnx": sha256("0"),
        "preprocess": preprocess(),
        "archs": ("cpu",),
        "precision": "fp32",
        "toolchain": toolchain(),
        "profiles": (BatchRange(opt=4, max=16),),
        "options": {},
    }
    return _build(BuildInputs, defaults, overrides)


def build_record(**overrides: Any) -> BuildRecord:
    """Returns an engine; its targets are those of its inputs."""
    inputs: BuildInputs = overrides.get("inputs") or build_inputs()
    line = inputs.toolchain.line
    defaults: dict[str, Any] = {
        "inputs": inputs,
        "export_key": sha256("3"),
        "targets": tuple(f"{arch}-{line}-{inputs.precision}" for arch in inputs.archs),
        "engine": blob(b"engine"),
        "golden": blob(b"golden"),
        "feature_dim": 1280,
        "dry_run": False,
        "precision_status": "proven",
        "facts": {},
        "licence": "apache-2.0",
        "weights": "file w",
        "cost": {"seconds": 1.0},
        "created": CREATED,
    }
    return _build(BuildRecord, defaults, overrides)


def state_record(**overrides: Any) -> StateRecord:
    """Returns the record of a stored state dict."""
    defaults: dict[str, Any] = {"model": "m", "recipe": sha256("0"), "state": blob(b"state")}
    return _build(StateRecord, defaults, overrides)


def machine(
    *,
    cpu: str | None = "A CPU",
    cores: int | None = None,
    gpu: str | None = None,
    compute_capability: str = "8.6",
    driver: str | None = None,
) -> dict[str, Any]:
    """Returns the description of a machine that an attestation was made on.

    Args:
        cpu: Name of the CPU; None for a description that does not say.
        cores: Of the CPU.
        gpu: Name of the GPU; None for a machine without one.
        compute_capability: Of the GPU.
        driver: Version of the GPU's driver.
    """
    said = {"cpu": cpu, "cores": cores}
    made: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if gpu is not None:
        made["gpu"] = {"name": gpu, "compute_capability": compute_capability}
        if driver is not None:
            made["gpu"]["driver"] = driver
    return made


def verified_batch(batch: int = 1, **overrides: Any) -> dict[str, Any]:
    """Returns the numbers of an engine that meets every tolerance at one batch size."""
    return {"batch": batch, "worst_cosine": 0.99999, "worst_relative_error": 1e-5, **overrides}


def best_numbers() -> dict[str, float]:
    """Returns the numbers of features that are PyTorch's own, one for each limit."""
    return {limit.measured: 1.0 if limit.is_minimum else 0.0 for limit in LIMITS.values()}


def decided_batch(batch: int = 1, **overrides: Any) -> dict[str, Any]:
    """Returns all numbers by which an engine is judged at one batch size; it meets every limit."""
    decided = {"batch": batch, "finite": True, "worst_row": 0, "lost_rows": 0}
    return {**decided, **best_numbers(), **overrides}


def loose_tolerance(**changes: float) -> Tolerance:
    """Returns a tolerance that features meet which are not far off, but for changed limits."""
    loose = {
        name: 0.0 if limit.is_minimum else 0.5 for name, limit in LIMITS.items() if name != "cosine"
    }
    return Tolerance(**{"cosine": 0.5, **loose, **changes})


def timed_batch(batch: int = 1, latency_ms: float = 1.0, **overrides: Any) -> dict[str, Any]:
    """Returns the speed of an engine at one batch size; the rate follows from the latency."""
    rate = 1000 * batch / latency_ms
    return {"batch": batch, "latency_ms": latency_ms, "images_per_second": rate, **overrides}


def attestation(kind: str = "verified", **overrides: Any) -> Attestation:
    """Returns an attestation about the engine ``blob(b"engine")``, with an empty body."""
    defaults: dict[str, Any] = {
        "kind": kind,
        "engine": blob(b"engine").sha256,
        "time": CREATED,
        "key": sha256("4"),
        "machine": {},
        "body": {},
    }
    return _build(Attestation, defaults, overrides)


def build_output(**overrides: Any) -> BuildOutput:
    """Returns what a worker returns of an fp32 build that was not verified."""
    defaults: dict[str, Any] = {
        "engine": "engine",
        "facts": {},
        "precision_proven": True,
        "verification": None,
        "benchmark": (),
        "machine": {},
        "cost": {},
    }
    return _build(BuildOutput, defaults, overrides)


def verification(*batches: dict[str, Any], **overrides: Any) -> VerificationSummary:
    """Returns the numbers of a verdict as the index shows them."""
    defaults = {"batches": batches or (verified_batch(),)}
    return _build(VerificationSummary, defaults, overrides)


def benchmark(*batches: dict[str, Any], **overrides: Any) -> BenchmarkSummary:
    """Returns the numbers of a benchmark as the index shows them."""
    return _build(BenchmarkSummary, {"batches": batches or (timed_batch(),)}, overrides)


def comparison(*batches: dict[str, Any], **overrides: Any) -> ComparisonSummary:
    """Returns a comparison with PyTorch as the index shows it."""
    return _build(ComparisonSummary, {"batches": batches}, overrides)


def engine_entry(*targets: str, **overrides: Any) -> EngineEntry:
    """Returns an engine as the index shows it; toolchain and precision are the first target's."""
    first = Target.parse(targets[0])
    defaults: dict[str, Any] = {
        "record": sha256("0"),
        "record_file": {"sha256": sha256("2"), "size": 2_000},
        "targets": targets,
        "precision": first.precision,
        "status": "verified",
        "engine": {"sha256": sha256("1"), "size": 12_345_678},
        "toolchain": toolchain(first.line.kind),
        "batch": {"min": 1, "opt": 4, "max": 16},
        "feature_dim": 1280,
        "preprocess": preprocess(),
        "dry_run": False,
        "precision_status": "proven",
        "cost": {},
        "created": "2026-01-01T00:00:00Z",
    }
    return _build(EngineEntry, defaults, overrides)


def disabled_cell(*targets: str, **overrides: Any) -> DisabledCell:
    """Returns targets that a model has no engine for."""
    defaults = {
        "targets": targets,
        "precision": Target.parse(targets[0]).precision,
        "reason": "r",
        "record": sha256("9"),
    }
    return _build(DisabledCell, defaults, overrides)


def catalog_text(**overrides: Any) -> CatalogText:
    """Returns what a manifest says of its model in words."""
    defaults = {"title": "M", "summary": "s", "characteristics": ("c",), "use_case": "u"}
    return _build(CatalogText, defaults, overrides)


def _card() -> dict[str, Any]:
    return {
        "model": "m",
        "family": "f",
        "timm_name": "m.tag",
        "licence": "mit",
        "origin": "https://example.org/m",
        "weights": "file",
        "feature_dim": 1280,
        "cut": "pooled",
        "preprocess": {
            **preprocess().model_dump(exclude_unset=True), "size_of": "train", "size_reason": "r",
        },
        "catalog": catalog_text(),
    }  # fmt: skip


def model_card(**overrides: Any) -> ModelCard:
    """Returns what the index says of a model itself."""
    return _build(ModelCard, _card(), overrides)


def model_index(*engines: EngineEntry, **overrides: Any) -> ModelIndex:
    """Returns the index of a model with some engines."""
    return _build(ModelIndex, {**_card(), "engines": engines}, overrides)


def candidate(card: ModelCard, records: Iterable[BuildRecord], **overrides: Any) -> Candidate:
    """Returns a candidate for the index: a model and its engines."""
    defaults = {"card": card, "records": tuple(record.key for record in records)}
    return _build(Candidate, defaults, overrides)
