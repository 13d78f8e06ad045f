"""``zoo list``, ``show``, ``pull``, ``cache rm`` and ``zoo.list_models`` on a signed repository."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.goldens import assert_golden
from support.paths import ROOT
from support.toy_repository import ToyRepository, toy_repository

import zoo as package
from zoo.cli import main
from zoo.util.digest import sha256_file
from zoo.util.errors import RepositoryError

Zoo = Callable[[str], int]


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> ToyRepository:
    return toy_repository(tmp_path_factory.mktemp("repository"))[0]


@pytest.fixture
def zoo(repository: ToyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ZOO_STORE", str(repository.folder / "store"))

    def run(arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["zoo", *shlex.split(arguments)])
        return main.main()

    root = repository.folder / "keys" / "root.json"
    assert run(f"list --trust {root}") == 0
    return run


def test_list_as_json_and_by_pattern(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert zoo("list --json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["feature_dim"], list(row["targets"].values())) == (
        "toy", 8, ["verified"],
    )  # fmt: skip
    for pattern in ("toy", "'t*'", f"{row['family']} toy"):
        assert zoo(f"list {pattern}") == 0
        assert capsys.readouterr().out.splitlines()[1].startswith("toy ")
    assert zoo("list --names 't*'") == 0
    assert capsys.readouterr().out == "toy\n"
    assert zoo("list --names --json") == 2
    assert zoo("show 'to*'") == 2
    assert "'toy'?" in capsys.readouterr().err
    for nothing in ("tyo", "toys", "'toys_*'", "toy 'Toy*' tyo"):
        assert zoo(f"list {nothing}") == zoo(f"list --json {nothing}") == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("'toy'?") == 2
    assert zoo("list 'none*'") == 2
    assert_golden("cli/list_nothing", capsys.readouterr().err)


def test_show_and_pull_as_json(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert zoo("show toy --json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == "toy"
    (engine,) = shown["engines"]
    assert zoo("pull toy --json") == 0
    pulled = json.loads(capsys.readouterr().out)
    assert pulled["targets"] == engine["targets"]
    assert pulled["sha256"] == sha256_file(Path(pulled["engine"])) == engine["engine"]["sha256"]
    assert {Path(path).name for path in pulled["documents"].values()} == set(pulled["documents"])
    assert all(Path(path).is_file() for path in pulled["documents"].values())
    assert zoo("pull toy --json -o toy.onnx") == 0
    copied = json.loads(capsys.readouterr().out)
    assert copied["engine"] == "toy.onnx"
    assert all(Path(path).is_file() for path in copied["documents"].values())


def test_a_model_is_removed_from_the_cache(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert zoo("pull toy") == 0
    capsys.readouterr()
    assert zoo("cache rm tyo") == 2
    assert "'toy'?" in capsys.readouterr().err
    assert zoo("cache rm 'toy*'") == 2
    assert "'toy'?" in capsys.readouterr().err
    assert zoo("cache rm toy --target sm86-rtx1.7-fp16") == 2
    assert "'toy'?" not in capsys.readouterr().err
    assert len(list((home / "engines").iterdir())) == 1
    capsys.readouterr()
    assert zoo("cache rm toy") == 0
    assert capsys.readouterr().out.startswith("1 file removed")
    assert not list((home / "engines").iterdir())
    assert not list((home / "records").iterdir())
    assert not list((home / "documents").iterdir())
    assert zoo("cache rm toy") == 2
    assert_golden("cli/cache_rm_nothing", capsys.readouterr().err.replace(str(home), "HOME"))
    assert zoo("pull toy") == 0


def test_a_mirror_that_can_not_be_leaves_nothing(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert zoo("mirror new --models toy tyo") == 2
    assert "'toy'?" in capsys.readouterr().err
    assert zoo("mirror new --gpu rtx3080") == 11
    assert not (tmp_path / "new").exists()
    (tmp_path / "photos").mkdir()
    assert zoo("mirror photos") == 0  # it is empty
    assert zoo("mirror photos") == 0  # it is a mirror
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "cat.jpg").touch()
    for destination in ("others", "."):
        assert zoo(f"mirror {destination}") == 2
        assert "other files" in capsys.readouterr().err
    assert zoo("mirror ''") == 10
    assert [path.name for path in (tmp_path / "others").iterdir()] == ["cat.jpg"]
    assert zoo("list --store ''") == 10
    monkeypatch.setenv("ZOO_STORE", "")
    assert zoo("list") == 10  # as if it were not set
    assert "_repository" in capsys.readouterr().err


def test_models_in_python(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    models = package.list_models("t*")
    assert models.names == ("toy",)
    assert len(models) == 1
    assert models[0].feature_dim == 8
    assert models[:0].names == ()
    assert repr(models).splitlines()[0].split() == [
        "model", "family", "features", "pixels", "engines",
    ]  # fmt: skip
    assert models._repr_html_().count("<tr>") == 2
    assert package.list_models(["none*", "toy"]).names == ("toy",)
    nothing = package.list_models("none*")  # as timm's list_models does
    assert (len(nothing), nothing.names) == (0, ())
    assert repr(nothing)
    assert "<table" not in nothing._repr_html_()
    monkeypatch.setenv("ZOO_STORE", "nowhere")
    with pytest.raises(RepositoryError):
        package.list_models()


def test_what_is_cached_works_without_the_repository(
    zoo: Zoo, repository: ToyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list, the model and its engine, once they have been read over HTTP."""
    root = str(repository.folder / "keys" / "root.json")
    with serving(repository.folder / "store") as url:
        monkeypatch.setenv("ZOO_STORE", url)
        before = repr(package.list_models(trust=root))
        with package.load("toy", report=lambda text: None) as extractor:
            shown = repr(extractor)
    assert shown.startswith("<Extractor model: toy, target: ")
    assert repr(package.list_models()) == before
    with package.load("toy", report=lambda text: None) as extractor:
        assert repr(extractor) == shown
        assert "<td" in extractor._repr_html_()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_knows_commands_options_and_files(
    shell: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert zoo(f"completion {shell}") == 0
    script = capsys.readouterr().out
    for word in ("train-head", "at-least", "duplicates", "webdataset"):
        assert word in script


def test_bash_completes(zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess

    capsys.readouterr()
    assert zoo("completion bash") == 0
    (tmp_path / "zoo.bash").write_text(capsys.readouterr().out)
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "bin").mkdir()
    program = f"#!{sys.executable}\nfrom zoo.cli.entry import main\nraise SystemExit(main())\n"
    (tmp_path / "bin" / "zoo").write_text(program)
    (tmp_path / "bin" / "zoo").chmod(0o755)

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source zoo.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            "f=$(complete -p zoo | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
            f'"$f" zoo "{words[-1]}" "{words[-2]}"; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(
            ["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
            },
        )  # fmt: skip
        return done.stdout.split()

    assert completed("zoo", "pre") == ["predict"]
    assert "--precision" in completed("zoo", "pull", "--pre")
    assert completed("zoo", "pull", "toy", "--precision", "fp") == ["fp32", "fp16"]
    assert completed("zoo", "similar", "cache", "pho") == ["photo.jpg"]
    for words in (["show", ""], ["features", ".", "--model", "t"], ["cache", "rm", "t"]):
        assert completed("zoo", *words) == ["toy"]
