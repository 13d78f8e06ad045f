"""A process that reads files for the GPU's JPEG decoder."""

from __future__ import annotations

import gc
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.caft import photo

from zoo.caft import file_reader
from zoo.caft.file_read import FileRead
from zoo.caft.file_reader import FileReader, FileReaders
from zoo.caft.shared_memory import AVAILABLE
from zoo.util.digest import sha256_bytes

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="no memfd_create")


def jpeg(number: int, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    file = io.BytesIO()
    photo(number, size).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture
def reader() -> Iterator[FileReader]:
    opened = FileReader("ignore")
    opened.wait()
    yield opened
    opened.close()


def written(folder: Path, *contents: bytes) -> list[FileRead]:
    paths = [folder / f"{number}.jpg" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [FileRead(path) for path in paths]


def test_contents_are_those_of_the_files(reader: FileReader, tmp_path: Path) -> None:
    contents = [jpeg(1), jpeg(2, (900, 700)), jpeg(3, (31, 17))]
    found = reader.read(written(tmp_path, *contents))
    for content, answer in zip(contents, found, strict=True):
        assert answer is not None
        assert answer.jpeg.data.tobytes() == content
        assert answer.sha256 == sha256_bytes(content)
        assert not answer.jpeg.data.flags.writeable
    assert [tuple(each.jpeg.size) for each in found if each] == [
        (64, 48),
        (900, 700),
        (31, 17),
    ]


def test_what_the_gpu_does_not_decode_is_left_to_others(reader: FileReader, tmp_path: Path) -> None:
    png = io.BytesIO()
    photo(4).save(png, "PNG")
    files = written(tmp_path, jpeg(1), png.getvalue(), b"", jpeg(2)[:-20], jpeg(3))
    files.insert(1, FileRead(tmp_path / "missing.jpg"))
    files.insert(1, FileRead(tmp_path))
    answers = reader.read(files)
    assert [answer is not None for answer in answers] == [True, *[False] * 5, True]
    assert reader.read(files[1:3]) == [None, None]


def test_a_part_of_a_file_is_read(reader: FileReader, tmp_path: Path) -> None:
    content = jpeg(1)
    (file,) = written(tmp_path, b"before" + content + b"after")
    (found,) = reader.read([FileRead(file.path, 6, len(content))])
    assert found is not None
    assert found.jpeg.data.tobytes() == content


def test_only_upright_photos_are_for_the_gpu_where_exif_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.Exif()
    upright[0x0112] = 1
    files = written(tmp_path, jpeg(1, exif=exif), jpeg(2, exif=upright), jpeg(3))
    opened = FileReader("apply")
    opened.wait()
    assert [each is not None for each in opened.read(files)] == [False, True, True]
    opened.close()


def test_contents_outlive_the_process_and_are_freed_with_the_last(
    reader: FileReader, tmp_path: Path
) -> None:
    content = jpeg(1)
    found = reader.read(written(tmp_path, content, jpeg(2)))
    reader.close()
    assert found[0] is not None
    data = found[0].jpeg.data
    del found
    gc.collect()
    assert data.tobytes() == content
    descriptors = len(os.listdir("/proc/self/fd"))
    assert _mappings() == 1
    del data
    gc.collect()
    assert _mappings() == 0
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_killed_process_reads_nothing_more(reader: FileReader, tmp_path: Path) -> None:
    files = written(tmp_path, jpeg(1))
    assert reader.read(files) != [None]
    os.kill(reader._process.pid, signal.SIGKILL)
    assert reader.read(files) == [None]
    assert reader.read(files) == [None]


def test_a_failed_request_leaves_the_descriptor_of_no_file(
    reader: FileReader, tmp_path: Path
) -> None:
    files = written(tmp_path, jpeg(1))
    reader.read(files)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        reader.read(files)
    assert len(os.listdir("/proc/self/fd")) == before


def test_until_a_process_has_started_files_are_left_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, wait = threading.Event(), FileReader.wait
    monkeypatch.setattr(FileReader, "wait", lambda reader: begun.wait() and wait(reader))
    files = written(tmp_path, jpeg(1), jpeg(2))
    readers = FileReaders("ignore", 2)
    assert readers.read(files) == [None, None]
    begun.set()
    readers._ready.wait()
    assert None not in readers.read(files)
    readers.close()


def test_processes_that_have_not_begun_are_not_waited_for(tmp_path: Path) -> None:
    readers = FileReaders("ignore", 2)
    readers.close()
    assert [reader._process.poll() is None for reader in readers._opened] == [False] * len(
        readers._opened
    )


def test_where_no_process_starts_files_are_left_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(exif: str) -> None:
        raise OSError("too many processes")

    monkeypatch.setattr(file_reader, "FileReader", refuse)
    readers = FileReaders("ignore", 2)
    files = written(tmp_path, jpeg(1))
    assert [readers.read(files) for _ in range(3)] == [[None]] * 3
    readers.close()


def test_memory_is_used_again_once_nobody_has_a_view_of_it(
    reader: FileReader, tmp_path: Path
) -> None:
    contents = [jpeg(number) for number in range(6)]
    files = written(tmp_path, *contents)
    first = reader.read(files[:1])
    for number in range(1, 6):
        (found,) = reader.read(files[number : number + 1])
        assert found is not None
        assert found.jpeg.data.tobytes() == contents[number]
        del found
        gc.collect()
    assert _mappings() == 2
    assert first[0] is not None
    assert first[0].jpeg.data.tobytes() == contents[0]


def test_memory_grows_with_what_is_read_and_is_not_kept_if_it_is_large(
    reader: FileReader, tmp_path: Path
) -> None:
    noise = os.urandom(1 << 20)
    contents = [content[:2] + _comments(noise) + content[2:] for content in map(jpeg, range(40))]
    for _ in range(2):
        found = reader.read(written(tmp_path, jpeg(50), *contents))
        assert [each is not None and each.sha256 for each in found] == [
            sha256_bytes(content) for content in (jpeg(50), *contents)
        ]
        assert all(
            each is not None and each.jpeg.data.tobytes() == content
            for each, content in zip(found, (jpeg(50), *contents), strict=True)
        )
        assert _mappings() == 1
        del found
        gc.collect()
        assert _mappings() == 0


def _comments(data: bytes) -> bytes:
    """Comments of a JPEG file, which may be of any size."""
    pieces = [data[start : start + 65_000] for start in range(0, len(data), 65_000)]
    return b"".join(b"\xff\xfe" + (len(piece) + 2).to_bytes(2, "big") + piece for piece in pieces)


def _mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:piece")
