"""Every store behaves alike; the fake is held to the same tests."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from zoo.errors import RepositoryError
from zoo.stores import LocalStore, MemoryStore, ObjectStore, open_store


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "store")


def test_what_is_put_is_got(store: ObjectStore) -> None:
    assert store.size("a/b") is None
    assert store.put("a/b", b"one")
    assert (store.get("a/b"), store.size("a/b")) == (b"one", 3)
    assert store.put("a/b", b"two!")
    assert store.get("a/b") == b"two!"


def test_if_absent_writes_once(store: ObjectStore) -> None:
    assert store.put("k", b"one", if_absent=True)
    assert not store.put("k", b"two", if_absent=True)
    assert store.get("k") == b"one"


def test_one_of_many_racing_writers_wins(store: ObjectStore) -> None:
    start, wins = threading.Barrier(16), []

    def write(number: int) -> None:
        start.wait()
        if store.put("k", str(number).encode(), if_absent=True):
            wins.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if isinstance(store, LocalStore):  # the fake makes no promise to threads
        assert len(wins) == 1
    assert int(store.get("k")) in wins


def test_a_file_goes_in_once_and_comes_out(store: ObjectStore, tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        source = tmp_path / "source"
        source.write_bytes(content)
        store.put_file("f", source)
    store.fetch("f", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"first"


def test_listing_is_by_prefix_and_in_order(store: ObjectStore) -> None:
    for key in ("r/b/2", "r/a/1", "r/ab/3", "s/x"):
        store.put(key, b"")
    assert list(store.list("r/a")) == ["r/a/1", "r/ab/3"]
    assert list(store.list("r/")) == ["r/a/1", "r/ab/3", "r/b/2"]
    assert list(store.list("none/")) == []


def test_what_is_deleted_is_gone(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert store.size("a/b") is None


def test_what_is_absent_is_a_key_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        store.get("nothing")
    with pytest.raises(KeyError):
        store.fetch("nothing", tmp_path / "copy")


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "a/", ".hidden", "a\nb", "a/./b"]
)
def test_a_key_can_not_leave_the_store(store: ObjectStore, key: str) -> None:
    with pytest.raises(RepositoryError, match="not a key"):
        store.put(key, b"x")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a").write_bytes(b"a file where a folder is needed")
    with pytest.raises(RepositoryError, match="can't write a/b"):
        store.put("a/b", b"x")
    assert list(store.list("")) == ["a"]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(RepositoryError, match="ftp"):
        open_store("ftp://host/path")
