"""Repositories that store engines and ONNX exports as chunks, not whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support import records
from support.chunked_engines import engine, in_chunks, pack_paths, pull, rebuilt
from support.goldens import assert_golden, raises_golden
from support.signed_repository import Signed, no_passphrase

from builders.cli.main import farm_parser
from builders.publish.garbage import collect
from builders.publish.keys import KeyRing
from zoo.cli.main import run_cli
from zoo.client.mirror import Filter, mirror
from zoo.repository.repository import Repository
from zoo.schema import records as schema
from zoo.schema.chunks import Chunking
from zoo.schema.layout import CHUNKED, blob_key, pieces_key
from zoo.schema.records import Blob
from zoo.stores import LocalStore
from zoo.util.digest import sha256_bytes
from zoo.util.errors import MissingPackageError, RepositoryError

ONNX = engine()
ENGINE = rebuilt(ONNX)
OTHER = rebuilt(ENGINE[50_000:])
CONTENTS = (ONNX, ENGINE, OTHER)
BLOBS = [Blob(sha256=sha256_bytes(content), size=len(content)) for content in CONTENTS]


def collect_all(signed: Signed) -> None:
    """Marks what is not needed, and deletes it after the grace period."""
    for days in (1, 9):
        now = signed.now + timedelta(days=days)
        collect(signed.client("collector"), timedelta(days=7), now, delete=True)


def export(signed: Signed) -> Blob:
    """Stores the ONNX that the engines are built from."""
    made = records.export_record(onnx=signed.blob(ONNX), golden=signed.blob(b"golden"))
    inputs = made.inputs.model_copy(update={"model": "m"})
    signed.repository.add_export(made.model_copy(update={"inputs": inputs}))
    return made.onnx


def stored_whole(signed: Signed) -> list[bool]:
    """Whether the ONNX and both engines are stored whole."""
    return [signed.store.size(blob_key(blob.sha256)) == blob.size for blob in BLOBS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """An ONNX, a superseded and a current engine, stored as chunks only."""
    signed = Signed(tmp_path_factory.mktemp("made") / "only")
    export(signed)
    signed.release("m", ENGINE)
    signed.release("m", OTHER)
    in_chunks(signed, Chunking.ONLY)
    collect_all(signed)
    return signed


@pytest.fixture
def only(made: Signed, tmp_path: Path) -> Signed:
    """A copy of it, for one test."""
    copy = Signed.__new__(Signed)
    copy.__dict__.update(made.__dict__)
    copy.folder = shutil.copytree(made.folder, tmp_path / "only")
    copy.store = LocalStore(copy.folder / "store")
    copy.repository = Repository(copy.store)
    copy.ring = KeyRing(copy.folder / "keys", no_passphrase)
    copy.sign_as_builder()
    return copy


def size(signed: Signed) -> int:
    return sum(path.stat().st_size for path in signed.path("").rglob("*") if path.is_file())


def test_the_same_weights_are_stored_once(only: Signed) -> None:
    assert stored_whole(only) == [False, False, False]
    assert size(only) < 0.5 * (len(ONNX) + len(ENGINE) + len(OTHER))
    assert only.client("reader").index().chunks is Chunking.ONLY


def test_readers_put_engines_together(only: Signed) -> None:
    pulled = pull(only.client())
    assert pulled.engine.read_bytes() == OTHER
    assert pulled.transfer is not None
    assert pulled.transfer.fetched < len(OTHER) * 1.05
    old = only.client().model("m").engines[-1]
    updated = only.client().pull("m", old)
    assert updated.engine.read_bytes() == ENGINE
    assert updated.transfer is not None
    assert updated.transfer.fetched < 0.2 * len(ENGINE)
    assert pull(only.client("other"), whole=True).engine.read_bytes() == OTHER


def test_readers_do_not_ask_for_what_is_not_stored_whole(
    only: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    size = LocalStore.size
    monkeypatch.setattr(LocalStore, "size", lambda self, key: asked.append(key) or size(self, key))
    pull(only.client())
    assert blob_key(BLOBS[2].sha256) not in asked


def test_the_farm_puts_them_together(only: Signed, tmp_path: Path) -> None:
    blobs = only.repository.blobs
    for blob, content in zip(BLOBS, CONTENTS, strict=True):
        assert blobs.find(blob.sha256) == blob
        assert blobs.has(blob)
        assert blobs.seems_whole(blob)
        assert blobs.path(blob) is None
        assert blobs.whole(blob, tmp_path).read_bytes() == content
        assert blobs.damage(blob, tmp_path) is None
        blobs.require(blob, "a record")
    assert blobs.find("0" * 64) is None


@pytest.mark.parametrize("left", ["the beginning of the whole", "chunks"])
def test_what_is_there_of_a_download_is_used(only: Signed, tmp_path: Path, left: str) -> None:
    blob = BLOBS[2]
    partial = tmp_path / "file.part"
    half = OTHER[: len(OTHER) // 2]
    partial.write_bytes(half if left != "chunks" else half + bytes(len(OTHER) - len(half)))
    reads: list[int] = []
    store = only.store
    original = store.read_range
    store.read_range = lambda key, first, n: reads.append(n) or original(key, first, n)  # type: ignore
    Repository(store).blobs.fetch(blob, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OTHER
    assert sum(reads) < 0.6 * len(OTHER)
    assert not partial.exists()


def test_engines_of_the_next_night_join(only: Signed) -> None:
    newest = rebuilt(OTHER[70_000:])
    before = size(only)
    record = only.release("m", newest)
    assert only.blob_path(record).is_file()  # until it is collected
    collect_all(only)
    assert only.store.size(blob_key(record.engine.sha256)) is None
    assert pull(only.client("new")).engine.read_bytes() == newest
    assert size(only) - before < 0.3 * len(newest)
    again = only.build("m", newest)  # somebody builds it again, byte for byte
    only.propose(again)
    assert not only.publish().refused
    collect_all(only)
    assert pull(only.client("newer")).engine.read_bytes() == newest


@pytest.mark.parametrize("chunking", [Chunking.ON, Chunking.OFF])
def test_the_whole_comes_back(only: Signed, chunking: Chunking) -> None:
    in_chunks(only, chunking)
    assert stored_whole(only) == [True, True, True]
    entry = only.client().model("m").current[0]
    assert not entry.chunks_only
    assert entry.schema_version == 1
    collect_all(only)
    assert stored_whole(only) == [True, True, True]
    assert not list(only.store.list(CHUNKED))
    assert pull(only.client()).engine.read_bytes() == OTHER


def test_a_change_that_is_interrupted_loses_nothing(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(signed)
    signed.release("m", ENGINE)
    steps = 0
    for chunking in (Chunking.ON, Chunking.ONLY, Chunking.OFF):
        for steps in interrupted(signed, monkeypatch, chunking):
            home = signed.client(f"reader {chunking} {steps}")
            assert pull(home).engine.read_bytes() == ENGINE
            assert signed.repository.blobs.damage(BLOBS[0], signed.folder) is None
        assert steps >= 3
        assert signed.client("after").index().chunks is chunking


PUT, PUT_FILE, DELETE = LocalStore.put, LocalStore.put_file, LocalStore.delete


class Killed(BaseException):
    """The process is gone."""


def interrupted(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, chunking: Chunking
) -> Iterator[int]:
    """Changes how engines are stored, and collects; dies before every write once."""
    allowed = 0
    while True:
        left = allowed

        def step() -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1

        def put(store: LocalStore, *arguments: object, **options: object) -> bool:
            step()
            return PUT(store, *arguments, **options)  # type: ignore[arg-type]

        def put_file(store: LocalStore, *arguments: object, **options: object) -> bool:
            step()
            return PUT_FILE(store, *arguments, **options)  # type: ignore[arg-type]

        def delete(store: LocalStore, key: str) -> None:
            step()
            DELETE(store, key)

        monkeypatch.setattr(LocalStore, "put", put)
        monkeypatch.setattr(LocalStore, "put_file", put_file)
        monkeypatch.setattr(LocalStore, "delete", delete)
        try:
            in_chunks(signed, chunking)
            collect_all(signed)
        except Killed:
            monkeypatch.undo()
            allowed += 1
            yield allowed
        else:
            monkeypatch.undo()
            return


def test_gc_keeps_the_whole_of_what_cannot_be_put_together(signed: Signed) -> None:
    record = signed.release("m", ENGINE)
    in_chunks(signed, Chunking.ONLY)
    (path,) = pack_paths(signed)
    path.write_bytes(bytes(path.stat().st_size))
    collect_all(signed)
    assert signed.blob_path(record).read_bytes() == ENGINE
    signed.publish(chunking=Chunking.ONLY)  # makes the pack again
    collect_all(signed)
    assert signed.store.size(blob_key(record.engine.sha256)) is None
    assert pull(signed.client()).engine.read_bytes() == ENGINE


def test_earlier_versions_are_told_to_upgrade(
    only: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "NEWEST", 1)
    with raises_golden(RepositoryError, "publish/chunks-only-earlier-version"):
        only.client().model("m")
    with pytest.raises((RepositoryError, ValueError)):
        collect_all(only)  # an earlier version's garbage collection, which knows no chunks


def test_readers_without_zstd_are_told_what_to_install(
    only: Signed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("zoo.util.zstd", "zoo.repository.chunked", "zoo.client.mirror"):
        monkeypatch.setattr(f"{module}.is_installed", lambda: False)
    with raises_golden(MissingPackageError, "publish/chunks-only-without-zstd"):
        pull(only.client())
    blob = BLOBS[2]
    with pytest.raises(MissingPackageError):
        only.repository.blobs.fetch(blob, tmp_path / "file")
    with pytest.raises(MissingPackageError):
        mirror(only.client(), LocalStore(tmp_path / "copy"), Filter())


def test_a_mirror_has_chunks_only_too(only: Signed, tmp_path: Path) -> None:
    copy = LocalStore(tmp_path / "copy")
    mirror(only.client(), copy, Filter())
    assert pull(only.client("reader", store=copy)).engine.read_bytes() == OTHER
    assert copy.size(blob_key(BLOBS[2].sha256)) is None
    blob = BLOBS[2]
    assert Repository(copy).blobs.damage(blob, tmp_path) is None
    assert not mirror(only.client(), copy, Filter()).copied
    for path in pack_paths(only):
        path.unlink()
    with pytest.raises(RepositoryError, match="missing"):
        mirror(only.client("again"), LocalStore(tmp_path / "another"), Filter())


@pytest.mark.parametrize("lost", ["pack", "pieces", "list"])
def test_a_lost_part_is_an_error(only: Signed, lost: str, tmp_path: Path) -> None:
    (entry, *_) = only.client("reader").model("m").current
    assert entry.chunks is not None
    for path in {
        "pack": pack_paths(only),
        "pieces": [only.path(pieces_key(entry.engine.sha256))],
        "list": [only.path(blob_key(entry.chunks.sha256))],
    }[lost]:
        path.unlink()
    damage = only.repository.blobs.damage(entry.engine, tmp_path)
    assert damage is not None
    assert damage.startswith("missing")
    assert not only.repository.blobs.has(entry.engine)
    with pytest.raises(RepositoryError, match="missing"):
        only.repository.blobs.fetch(entry.engine, tmp_path / "file")
    if lost == "pieces":  # which only those read who do not have the index
        assert pull(only.client()).engine.read_bytes() == OTHER
    else:
        with pytest.raises(RepositoryError, match="missing"):
            pull(only.client())


def test_check_repairs_what_shares_a_damaged_pack(
    only: Signed, capsys: pytest.CaptureFixture[str]
) -> None:
    other = only.release("n", engine(7))
    collect_all(only)
    path = max(pack_paths(only), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last chunk
    path.write_bytes(data)
    store = str(only.folder / "store")
    assert run_cli(farm_parser(), ["check", "--store", store]) == 10
    said = capsys.readouterr().out
    assert_golden("publish/chunks-only-check", said.splitlines()[0])
    assert run_cli(farm_parser(), ["check", "--repair", "--store", store]) == 0
    assert run_cli(farm_parser(), ["check", "--store", store]) == 0
    assert pull(only.client(), "n").engine.read_bytes() == engine(7)
    assert only.repository.blobs.has(other.engine)


def spoil(signed: Signed, what: str) -> str:
    """Damages what the current engine is put together from; returns the digest of that."""
    (entry, *_) = signed.client("spoiler").model("m").current
    assert entry.chunks is not None
    (pack, *_) = pack_paths(signed)
    path = signed.path(blob_key(entry.chunks.sha256)) if "list" in what else pack
    if what.startswith("lost"):
        path.unlink()
    elif what.startswith("short"):
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.write_bytes(bytes(path.stat().st_size))
    return path.name


def farm(signed: Signed, *arguments: str) -> int:
    keys = ["--keys", str(signed.folder / "keys")] if arguments[0] == "chunks" else []
    store = str(signed.folder / "store")
    return run_cli(farm_parser(), [*arguments, *keys, "--store", store])


@pytest.mark.parametrize(
    "what", ["changed pack", "lost pack", "short pack", "changed list", "lost list", "short list"]
)
def test_what_is_still_stored_whole_is_read_and_its_chunks_checked(
    signed: Signed, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    signed.release("m", ENGINE)
    in_chunks(signed, Chunking.ONLY)
    digest = spoil(signed, what)
    assert pull(signed.client("reader")).engine.read_bytes() == ENGINE
    assert pull(signed.client("another"), whole=True).engine.read_bytes() == ENGINE
    assert farm(signed, "check") == 10
    assert digest in capsys.readouterr().out
    assert farm(signed, "check", "--repair") == 0
    assert "zoo-farm chunks only makes the chunks again" in capsys.readouterr().out
    assert farm(signed, "chunks", "only") == 0
    assert farm(signed, "check") == 0
    collect_all(signed)
    assert pull(signed.client("later")).engine.read_bytes() == ENGINE


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_a_lost_pointer_costs_nothing(
    only: Signed, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = only.path(pieces_key(BLOBS[2].sha256))
    path.unlink() if content is None else path.write_bytes(content)
    assert farm(only, "check") == 10
    said = capsys.readouterr().out
    assert said == f"{pieces_key(BLOBS[2].sha256)} is missing or damaged\n"
    assert farm(only, "check", "--repair") == 0
    assert farm(only, "check") == 0
    assert len(list(only.store.list("records/"))) == 2
    assert pull(only.client()).engine.read_bytes() == OTHER


@pytest.mark.parametrize("content", [None, b"{"])
def test_the_whole_comes_back_without_a_pointer(only: Signed, content: bytes | None) -> None:
    path = only.path(pieces_key(BLOBS[2].sha256))
    path.unlink() if content is None else path.write_bytes(content)
    assert farm(only, "chunks", "off") == 0
    assert stored_whole(only) == [True, True, True]
    assert pull(only.client()).engine.read_bytes() == OTHER


def test_what_can_not_be_stored_whole_stays_as_it_is(
    only: Signed, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(only, "lost list")
    assert farm(only, "chunks", "off") == 10
    assert BLOBS[2].sha256 in capsys.readouterr().err
    assert only.client("reader").index().chunks is Chunking.ONLY
    assert farm(only, "check", "--repair") == 0
    assert farm(only, "chunks", "off") == 0


def test_an_engine_that_can_not_be_stored_as_chunks_is_named(
    only: Signed, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(only, "short list")
    assert farm(only, "chunks", "only") == 1
    assert f"engine {BLOBS[2].sha256} is not stored as chunks" in capsys.readouterr().err
