"""Files of another kind than a command expects: it says what was expected, what it is, what to do.

Whatever a library says about such a file is about its own steps, so none of it may be in a message.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.caft import toy, write_cache

from zoo.cli import caft, main

KINDS = {
    "jpeg": "a JPEG image",
    "png": "a PNG image",
    "zip": "a ZIP archive",
    "tar": "a tar",
    "empty": "empty",
    "folder": "a folder",
    "latin1": "text that is not UTF-8",
    "text": "text",
    "zeros": "binary data",
}

COMMANDS = {
    "predict --head FILE photo.jpg": ("a head", 32, {}),
    "export-head --head FILE -o out.onnx": ("a head", 32, {}),
    "features FILE.tar --model m -o out": ("a tar", 30, {"tar", "folder", "zeros"}),
    "features FILE.txt --model m -o out": ("a list", 30, {"text", "empty", "folder"}),
    "train-head cache --labels FILE": ("labels", 30, {"text", "empty"}),
    "probe FILE": ("a feature cache", 31, set(KINDS)),
    "duplicates FILE": ("a feature cache", 31, set(KINDS)),
    "similar FILE photo.jpg": ("a feature cache", 31, set(KINDS)),
    "map FILE -o map.png": ("a feature cache", 31, set(KINDS)),
    "export-features FILE -o out.csv": ("a feature cache", 31, set(KINDS)),
    "list --store . --trust FILE": ("root.json", 16, {}),
    "list --store FILE": ("a repository", 10, set(KINDS)),
}
"""What each command expects, its status, and for which kinds it need not name what the file is:
because any file is refused the same way, or because those are taken for data that is damaged."""

RAW = re.compile(r"Error\b|codec|Traceback|method |byte 0x")


def content(kind: str) -> bytes:
    data = io.BytesIO()
    match kind:
        case "jpeg" | "png":
            Image.new("RGB", (64, 48), (90, 160, 30)).save(data, kind)
        case "zip":
            with zipfile.ZipFile(data, "w") as archive:
                archive.writestr("readme.txt", "one")
        case "tar":
            with tarfile.open(fileobj=data, mode="w") as tar:
                tar.addfile(tarfile.TarInfo("readme.txt"))
        case "latin1":
            return "name,label\nmüller.jpg,Kätzchen\n".encode("latin-1")
        case "text":
            return b"[settings]\nthis = 'is of another program'\n"
        case "zeros":
            return bytes(5000)
    return data.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind, under each of the suffixes."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        for suffix in ("", ".tar", ".txt"):
            path = folder / f"{kind}{suffix}"
            if kind == "folder":
                path.mkdir()
            else:
                path.write_bytes(content(kind))
    (folder / "photo.jpg").write_bytes(content("jpeg"))
    rows = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    write_cache(folder / "cache", rows, ["a", "b"] * 4)
    return folder


Zoo = Callable[[str], int]


@pytest.fixture
def zoo(files: Path, monkeypatch: pytest.MonkeyPatch) -> Zoo:
    monkeypatch.chdir(files)
    monkeypatch.setenv("ZOO_HOME", str(files / "home"))
    monkeypatch.setattr(caft, "_extractor", lambda *arguments: toy())

    def run(arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["zoo", *arguments.split()])
        return main.main()

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_message_says_what_was_expected_and_what_the_file_is(
    command: str, kind: str, zoo: Zoo, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, status, unnamed = COMMANDS[command]
    before = {*files.iterdir(), files / "out"}  # of a pass that skipped all that was listed
    assert zoo(command.replace("FILE", kind)) == status
    said = capsys.readouterr().err
    assert not RAW.search(said)
    assert len(said.splitlines()) >= 2, "no hint"
    assert kind in said, "the file is not named"
    if kind not in unnamed:
        assert expected in said
        assert KINDS[kind] in said
    assert {*files.iterdir(), files / "out"} == before, "something was written"
