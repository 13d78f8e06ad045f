"""Records and wire types are typed: mappings to anything are only for JSON of no fixed shape."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT

UNTYPED = re.compile(r"\b(?:[Dd]ict|Mapping|MutableMapping)\[\s*str,\s*(?:Any|object)\s*\]")

FREE_FORM = {
    "builders/backends/inspector.py": 2,  # TensorRT's inspector JSON, which differs by version
    "builders/executors/images.py": 1,  # TOML before it is validated
    "zoo/caft/tar_fields.py": 1,  # the json of a sample, which has what its author put there
    "builders/verify/edges.py": 1,  # fields that are absent where features are not finite
    "zoo/schema/keys.py": 1,  # changes of a copy, as pydantic takes them
    "zoo/schema/manifest.py": 1,  # a JSON schema, as pydantic returns it
    "zoo/schema/index.py": 1,  # fields of a newer version, read without changing bytes
    "zoo/schema/measurements.py": 3,  # fields as they were read, unknown ones included
    "zoo/stores/s3/errors.py": 1,  # a response of any S3 operation, as botocore returns it
    "zoo/util/errors.py": 1,  # zoo.schema's Advice, which zoo.util is too low to import
}
"""Occurrences by file. A new one needs a reason here; prefer a model, TypedDict or dataclass."""


def test_only_free_form_json_is_untyped() -> None:
    counts = {
        path.relative_to(ROOT).as_posix(): len(UNTYPED.findall(path.read_text(encoding="utf-8")))
        for room in ("zoo", "builders")
        for path in (ROOT / room).rglob("*.py")
    }
    assert {name: count for name, count in counts.items() if count} == FREE_FORM


def test_the_untyped_stay_within_the_limit() -> None:
    assert sum(FREE_FORM.values()) <= 15


@pytest.mark.parametrize(
    "line",
    [
        "x: dict[str, Any] = {}", "def f(x: Mapping[str, object]) -> None: ...",
        "Json = Dict[str, Any]", "y: list[dict[str,Any]]", "z: dict[\n    str, Any\n]",
    ],
)  # fmt: skip
def test_every_spelling_is_counted(line: str) -> None:
    assert len(UNTYPED.findall(line)) == 1


@pytest.mark.parametrize("line", ["x: dict[str, int]", "y: dict[str, JsonValue]", "z: Any"])
def test_typed_mappings_are_not(line: str) -> None:
    assert not UNTYPED.findall(line)
