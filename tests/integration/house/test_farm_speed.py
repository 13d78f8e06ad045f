"""The benchmark of the farm's speed: runs in turns, compared by their bytes and seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import farm_speed
from benchmarks.farm_speed import Run, Side, added, differing, in_turns, run


def ran(**bytes_of: tuple[str, str]) -> Run:
    return Run(wall=1.0, processor=1.0, load=0.0, bytes_of=bytes_of)


def checkout(folder: Path, code: str) -> Side:
    """A checkout whose farm runs some code; ``store`` is the folder of its repository."""
    package = folder / "builders"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        f"store = Path(sys.argv[sys.argv.index('--store') + 1])\n{code}\n"
    )
    return Side(name=folder.name, checkout=folder, jobs="")


def export(**files: dict[str, object]) -> str:
    """Code that writes records of an export into the repository."""
    return "\n".join(
        f"path = store / {kind!r} / 'm' / 'key.json'; path.parent.mkdir(parents=True)\n"
        f"path.write_text({json.dumps(record)!r})"
        for kind, record in files.items()
    )


def test_the_bytes_of_a_run_are_those_of_its_records(tmp_path: Path) -> None:
    onnx = {"onnx": {"sha256": "a"}}
    code = export(exports=onnx, states={"state": {"sha256": "b"}})
    done = run(checkout(tmp_path / "one", code), "m", tmp_path)
    assert done.bytes_of == {"m": ("a", "b")}
    assert done.wall > 0
    assert done.processor > 0


def test_a_run_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    side = checkout(tmp_path / "one", "sys.exit('no such model')")
    with pytest.raises(RuntimeError, match="one: no such model"):
        run(side, "m", tmp_path)


def test_exports_that_differ_or_are_missing_are_named() -> None:
    before = ran(same=("a", "b"), onnx=("a", "b"), state=("a", "b"), only=("a", "b"))
    after = ran(same=("a", "b"), onnx=("c", "b"), state=("a", "c"), other=("a", "b"))
    assert differing(before, before) == []
    assert differing(before, after) == ["only", "onnx", "other", "state"]


def test_who_begins_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[str] = []

    def noted(side: Side, models: str, folder: Path) -> Run:
        begun.append(side.name)
        return ran()

    monkeypatch.setattr(farm_speed, "run", noted)
    sides = tuple(Side(name=name, checkout=tmp_path, jobs="") for name in ("a", "b"))
    first, second = in_turns((sides[0], sides[1]), "m", 3)
    assert begun == ["a", "b", "b", "a", "a", "b"]
    assert len(first) == len(second) == 3


def test_a_model_that_is_added_is_all_that_runs(tmp_path: Path) -> None:
    for published in (0, 3):
        folder = tmp_path / str(published)
        folder.mkdir()
        _, _, jobs = added(published, folder)
        assert jobs == 2  # an export and a build
