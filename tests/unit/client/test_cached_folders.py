"""A folder in place of a file of the client's cache makes way for the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.signed_repository import Signed

from zoo.client.engine_files import EngineFiles
from zoo.repository.blobs import Blobs
from zoo.repository.repair import forget
from zoo.repository.repository import Repository
from zoo.stores import LocalStore, MemoryStore
from zoo.util.files import make_way


def test_an_engine_is_downloaded_again(tmp_path: Path) -> None:
    made = tmp_path / "engine"
    made.write_bytes(b"an engine")
    blobs = Blobs(MemoryStore())
    blob = blobs.add(made)
    (tmp_path / "cache" / "engines" / blob.sha256 / "more").mkdir(parents=True)
    assert EngineFiles(blobs, tmp_path / "cache").get(blob).read_bytes() == b"an engine"


def test_what_a_link_points_to_is_kept(tmp_path: Path) -> None:
    (tmp_path / "folder" / "more").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    make_way(tmp_path / "link")
    make_way(tmp_path / "absent")
    assert (tmp_path / "folder" / "more").is_dir()


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "index.json"])
def test_signed_files_are_read_again(tmp_path: Path, name: str) -> None:
    signed = Signed(tmp_path)
    signed.release()
    before = signed.client().signed.read("index.json")
    (cached,) = (tmp_path / "home").rglob(name)
    cached.unlink()
    (cached / "more").mkdir(parents=True)
    assert signed.client().signed.read("index.json") == before
    assert cached.is_file()


def test_a_folder_in_place_of_a_blob_is_replaced(tmp_path: Path) -> None:
    repository = Repository(LocalStore(tmp_path / "store"))
    made = tmp_path / "engine"
    made.write_bytes(b"an engine")
    blob = repository.blobs.add(made)
    path = repository.blobs.path(blob)
    assert path is not None
    for repair in (lambda: forget(repository, "records/m/key.json", blob), lambda: None):
        path.unlink()
        (path / "more").mkdir(parents=True)
        repair()
        made.write_bytes(b"an engine")  # the store moved it
        assert repository.blobs.add(made) == blob
        assert path.read_bytes() == b"an engine"
