"""Keys of every record stay what they were when members of closed sets were plain strings.

``tests/data/keys_at_8b658fa.json`` was written by the code of that commit from the same inputs.
"""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from support.paths import DATA

from zoo.schema.index import Candidate, Index, IndexRow, ModelIndex
from zoo.schema.keys import BuildInputs, ExportInputs, VerificationInputs
from zoo.schema.manifest import Preprocess
from zoo.schema.old_failures import OldDisabled, OldMiss, OldStrike
from zoo.schema.records import Attestation, BuildRecord, ExportRecord, RepositoryInfo, StateRecord
from zoo.util.digest import sha256_json

KEYS: dict[str, str] = json.loads((DATA / "keys_at_8b658fa.json").read_text())
PREPROCESS = {
    "input_size": 224, "crop": 0.875, "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
}  # fmt: skip
CHAINS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "ort": ({"kind": "ort", "version": "1.32.0", "cuda": None}, ["cpu"]),
    "rtx": ({"kind": "rtx", "version": "1.7.1.116", "cuda": 13}, ["sm80", "sm86"]),
    "trt": ({"kind": "trt", "version": "8.6.1", "cuda": 12}, ["sm86"]),
    "later": ({"kind": "ov", "version": "2026.1", "cuda": None}, ["cpu"]),
}


def export_key(precision: str, cut: str, placing: str = "", rest: str = "") -> str:
    lowering: dict[str, Any] | None = None
    if precision != "fp32":
        lowering = {
            "calibration": "shipped-1", "tolerance": {"cosine": 0.99},
            "half_images": True, "safety": 0.25,
        }  # fmt: skip
        lowering |= {"placing": placing, "rest": rest} if placing else {}
    inputs = {
        "model": "m", "arch": "m.tag",
        "weights": {"kind": "hub", "source": "r/f", "digest": "1" * 64},
        "backbone": {"cut": cut, "feature_dim": 8}, "preprocess": PREPROCESS,
        "precision": precision, "recipe": "r-1", "lowering": lowering,
        "dialect": "dynamo, opset 20", "golden": "g", "versions": {"torch": "2"},
    }  # fmt: skip
    return ExportInputs.model_validate(inputs).key


def build_key(chain: str, precision: str) -> str:
    toolchain, archs = CHAINS[chain]
    inputs = {
        "model": "m", "onnx": "2" * 64, "preprocess": PREPROCESS, "archs": archs,
        "precision": precision, "toolchain": {**toolchain, "os": "linux", "machine": "x86_64"},
        "profiles": [{"min": 1, "opt": 4, "max": 16}], "options": {"tf32": False}, "later": "kept",
    }  # fmt: skip
    return BuildInputs.model_validate(inputs).key


def attestation_name(kind: str) -> str:
    values = {
        "kind": kind, "engine": "3" * 64, "time": "2026-01-01T00:00:00Z", "key": "5" * 64,
        "machine": {"cpu": "c", "cores": 2, "gpu": None},
        "body": {
            "batches": [{"batch": 1, "worst_cosine": 1.0, "extra": None}],
            "reason": "r",
        },
    }  # fmt: skip
    return Attestation.model_validate(values).name


@pytest.mark.parametrize("what", KEYS)
def test_a_key_is_what_it_was(what: str) -> None:
    kind, *words = what.split()
    if kind == "export":
        precision, *form = words
        found = export_key(precision, *(["pooled", *form] if precision == "int8" else form))
    elif kind == "build":
        found = build_key(*words)
    elif kind == "attestation":
        found = attestation_name(*words)
    else:
        inputs = {
            "engine": "3" * 64, "golden": "4" * 64, "tolerance": {"cosine": 0.9},
            "batches": [1, 2], "method": "row-wise-2",
        }  # fmt: skip
        found = VerificationInputs.model_validate(inputs).key
    assert found == KEYS[what]


KINDS: dict[str, type[BaseModel]] = {
    "attestations": Attestation, "records": BuildRecord, "exports": ExportRecord,
    "states": StateRecord, "candidates": Candidate, "index": ModelIndex,
    "disabled": OldDisabled, "strikes": OldStrike, "missed": OldMiss,
}  # fmt: skip


def real_records() -> dict[str, dict[str, Any]]:
    """Returns every record of a repository that the commit 8b658fa made, by its key."""
    found = {}
    with tarfile.open(DATA / "repository-8b658fa.tar.xz") as archive:
        for member in archive:
            folder, _, key = member.name.removeprefix("./").partition("/")
            known = key.partition("/")[0] in KINDS or key in ("index.json", "repository.json")
            if folder == "store" and known and (file := archive.extractfile(member)):
                found[key] = json.load(file)
    return found


def test_records_of_a_real_repository_are_written_as_they_were_read() -> None:
    whole = {"index.json": Index, "repository.json": RepositoryInfo}
    records = real_records()
    assert {key.partition("/")[0] for key in records} == {*KINDS, *whole} - {"candidates"}
    for key, record in records.items():
        kind = whole.get(key) or KINDS[key.partition("/")[0]]
        parsed = kind.model_validate(record)
        assert sha256_json(json.loads(parsed.model_dump_json())) == sha256_json(record), key
        if isinstance(parsed, Attestation):
            assert key.endswith(f"/{parsed.name}")


def test_candidates_of_real_cards_are_written_as_they_were_read() -> None:
    cards = [v for key, v in real_records().items() if key.startswith("index/")]
    for card in cards:
        disabled = card.pop("disabled")
        card.pop("engines")
        stated = {
            "schema_version": 1, "card": card, "weights": None, "backbone": None,
            "records": ["1" * 64], "disabled": disabled, "proposed": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        written = json.loads(Candidate.model_validate(stated).to_json())
        assert sha256_json(written) == sha256_json(stated)


def test_what_an_unexpected_type_states_is_ignored_and_kept() -> None:
    values = {
        "kind": "verified", "engine": "3" * 64, "time": "t", "key": "5" * 64,
        "machine": {"cpu": 7, "cores": "many", "gpu": "none", "later": [1]},
        "body": {"batches": [{"batch": 1, "worst_cosine": "good"}], "tolerance": 3, "reason": 1},
        "schema_version": 1,
    }  # fmt: skip
    attestation = Attestation.model_validate(values)
    assert attestation.machine.cores is None
    assert attestation.machine.gpu_name is None
    assert attestation.body.reason is None
    assert attestation.model_dump(mode="json") == values


def test_a_field_of_preprocessing_with_its_default_is_not_in_the_json() -> None:
    plain = Preprocess.model_validate({**PREPROCESS, "crop_mode": "center"})
    assert json.loads(plain.model_dump_json()) == PREPROCESS
    assert plain == Preprocess.model_validate(PREPROCESS)
    stated = {**PREPROCESS, "crop_mode": "squash", "input_size": [1024, 768]}
    other = Preprocess.model_validate_json(json.dumps(stated), strict=True)
    assert json.loads(other.model_dump_json()) == stated
    assert (other.height, other.width) == (1024, 768)
    with pytest.raises(ValidationError, match="224"):
        Preprocess.model_validate({**PREPROCESS, "input_size": [224, 224]})


@pytest.mark.parametrize(
    ("model", "name"),
    [(Preprocess, "crop_mode"), (ModelIndex, "deviations"), (IndexRow, "input_width")],
)
def test_a_field_that_may_be_left_out_is_in_the_schema_and_not_required(
    model: type[BaseModel], name: str
) -> None:
    schema = model.model_json_schema(mode="serialization")
    assert set(schema["properties"]) == set(model.model_fields)
    assert name not in schema["required"]
