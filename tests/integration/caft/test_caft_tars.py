"""Tars: which files are a sample, which of them is its image, and what its label is."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.caft import hiding, photo, toy
from support.goldens import assert_golden, raises_golden

from zoo.caft import FeatureCache, cache_features
from zoo.caft.labels import LabelError
from zoo.caft.sample import SUFFIXES
from zoo.caft.tar_files import expand
from zoo.caft.tars import TarSource, split_name
from zoo.util.errors import DatasetError, UsageError

SIDECAR = bytes.fromhex("00051607000200004d6163204f5320582020202020202020") + b"\0" * 100


@cache
def png(number: int) -> bytes:
    file = io.BytesIO()
    photo(number).save(file, "PNG")
    return file.getvalue()


def write(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def read(source: TarSource) -> dict[str, tuple[str | None, bytes]]:
    return {sample.name: (sample.label, sample.read()) for sample in source}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_files_that_are_not_adjacent_are_one_sample(suffix: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / f"a{suffix}",
        [("x/1.jpg", png(1)), ("x/2.jpg", png(2)), ("y/1.jpg", png(3)),
         ("y/1.cls", b"c"), ("x/2.cls", b"b"), ("x/1.cls", b"a")],
        "w:gz" if suffix == ".tar.gz" else "w",
    )  # fmt: skip
    source = TarSource(str(path))
    assert read(source) == {"x/1": ("a", png(1)), "x/2": ("b", png(2)), "y/1": ("c", png(3))}
    assert source.notes.counts == {"put together from files that are not adjacent": 2}


def test_sidecars_metadata_and_what_has_no_image_are_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        [("./._1.jpg", SIDECAR), ("./1.jpg", png(1)), ("./._1.cls", SIDECAR), ("./1.cls", b"a"),
         ("__MACOSX/._1.jpg", SIDECAR), (".DS_Store", b"x"), ("__index__", b"x"), ("README", b"x"),
         ("2.cls", b"b"), ("3.npy", b"x")],
    )  # fmt: skip
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("4.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
        tar.addfile(link)
    source = TarSource(str(path))
    assert read(source) == {"./1": ("a", png(1))}
    assert source.notes.counts == {
        "ignored sidecars of macOS": 3,
        "ignored hidden files and metadata": 2,
        "ignored files without a suffix": 1,
        "left out, because they are links or special files": 1,
        "left out, because they have no image": 2,
    }
    said = cache_features(str(path), toy(), tmp_path / "c")[1].notes
    assert any("2 (2, 3)" in note for note in said)


@pytest.mark.parametrize(
    ("fields", "image", "chosen"),
    [
        (["depth.png", "jpg"], None, "jpg"),
        (["png", "jpg"], None, "jpg"),
        (["mask.png", "png"], None, "png"),
        (["seg.jpg"], None, "seg.jpg"),
        (["depth.png", "jpg"], "depth.png", "depth.png"),
        (["jpg", "raw"], "raw", "raw"),
        (["left.jpg", "right.jpg"], None, None),
        (["png", "webp"], None, None),
    ],
)
def test_the_image_of_a_sample_is_never_the_first_that_comes(
    fields: list[str], image: str | None, chosen: str | None, tmp_path: Path
) -> None:
    members = [(f"s.{name}", png(number)) for number, name in enumerate(fields)]
    for order in (members, members[::-1]):
        source = TarSource(str(write(tmp_path / "a.tar", order)), image)
        if chosen is None:
            with pytest.raises(DatasetError, match="2 images"):
                read(source)
        else:
            assert read(source)["s"][1] == png(fields.index(chosen))


def test_names_with_dots_and_names_twice_are_refused(tmp_path: Path) -> None:
    dates = [(f"IMG_2024.01.0{n}.jpg", png(n)) for n in range(3)]
    twice = [("a.jpg", png(1)), ("b.jpg", png(2)), ("a.JPG", png(3))]
    for name, members in (("dots", dates), ("twice", twice)):
        with pytest.raises(DatasetError) as raised:
            cache_features(str(write(tmp_path / "a.tar", members)), toy(), tmp_path / "c")
        assert_golden(f"caft/tar_{name}", raised.value, hiding(raised.value, tmp_path))
        assert not (tmp_path / "c").exists()


CAPTION = b"a photo of a cat in a suit"
LABELS: list[tuple[dict[str, bytes], str | None, str | None]] = [
    ({"cls": b"3\n"}, None, "3"),
    ({"class": b"cat"}, None, "cat"),
    ({"label.txt": b"cat"}, None, "cat"),
    ({"txt": CAPTION}, None, None),
    ({"txt": b"cat"}, "txt", "cat"),
    ({"txt": CAPTION, "json": b'{"label": 7, "caption": "x"}'}, None, "7"),
    ({"txt": "caf\xe9".encode("latin1"), "cls": b"cat"}, None, "cat"),
    ({"json": b'{"species": "ox", "label": "dog"}'}, "json.species", "ox"),
    ({"json": b'{"caption": "x"}'}, None, None),
    ({"cls": b"-1", "json": b'{"label": -1}'}, None, None),
    ({"cls": b"cat", "json": b'{"label": "dog"}'}, "json", "dog"),
]


@pytest.mark.parametrize(("fields", "chosen", "label"), LABELS)
def test_captions_are_no_classes(
    fields: dict[str, bytes], chosen: str | None, label: str | None, tmp_path: Path
) -> None:
    members = [("s.jpg", png(1)), *((f"s.{name}", data) for name, data in fields.items())]
    source = TarSource(str(write(tmp_path / "a.tar", members)), label=chosen)
    assert read(source)["s"][0] == label


@pytest.mark.parametrize("value", ["0.5", "[1, 2]", "[0, 1.5]", '{"a": 1}'])
def test_labels_that_are_no_classes_are_refused(value: str, tmp_path: Path) -> None:
    members = [("s.jpg", png(1)), ("s.json", f'{{"label": {value}}}'.encode())]
    with pytest.raises(LabelError) as raised:
        read(TarSource(str(write(tmp_path / "a.tar", members))))
    assert raised.value.exit_code == 30


def test_shards_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for shard in (0, 1):
        members = [(f"{n}.png", png(10 * shard + n)) for n in range(4)]
        write(tmp_path / f"s{shard}" / "data.tar", members)
    whole = (tmp_path / "s1" / "data.tar").read_bytes()
    (tmp_path / "s1" / "data.tar").write_bytes(whole[:1500])
    data, out = str(tmp_path / "s{0..1}" / "data.tar"), tmp_path / "c"
    with pytest.raises(DatasetError):
        cache_features(data, toy(), out)
    assert FeatureCache(out, check_complete=False).card.samples == 4
    (tmp_path / "s1" / "data.tar").write_bytes(whole)
    card, state = cache_features(data, toy(), out)
    assert (card.samples, state.images, state.found) == (8, 4, 4)
    assert list(FeatureCache(out).names())[3:5] == ["s0/data.tar:3", "s1/data.tar:0"]
    expected = toy()([photo(10 * shard + n) for shard in (0, 1) for n in range(4)])
    assert np.allclose(FeatureCache(out).features, expected, atol=1e-6)


def test_a_tar_that_changes_while_it_is_read_gives_no_wrong_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [(f"{n}.png", png(n)) for n in range(3)])
    samples = iter(TarSource(str(path)))
    assert next(samples).read() == png(0)
    second = next(samples)
    write(tmp_path / "b.tar", [(f"{n}.png", png(9 - n)) for n in range(3)]).replace(path)
    with pytest.raises(OSError, match=r"a\.tar"):
        second.read()


def test_a_compressed_tar_that_is_damaged_is_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [(f"{n}.png", png(n)) for n in range(9)])
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[len(packed) // 2] ^= 255
    (tmp_path / "a.tar.gz").write_bytes(packed)
    source = TarSource(str(tmp_path / "a.tar.gz"))
    got = []
    with pytest.raises(DatasetError, match=r"a\.tar\.gz"):
        got.extend(sample.read() for sample in source)
    assert len(got) < 9


def test_a_label_that_is_no_text_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "t.tar", [("a.png", png(1)), ("a.cls", "café".encode("latin-1"))])
    with raises_golden(DatasetError, "caft/label-is-no-text", match=r"a\.cls") as raised:
        cache_features(tmp_path / "t.tar", toy(), tmp_path / "c")
    assert "--no-labels" in str(raised.value.hint)
    card, _ = cache_features(tmp_path / "t.tar", toy(), tmp_path / "c", label=False)
    assert (card.samples, card.labels) == (1, ())


def test_shards_are_named_by_words_and_by_patterns(tmp_path: Path) -> None:
    for name in ("a-0.tar", "a-1.tar", "b-0.tar"):
        (tmp_path / name).touch()
    assert expand(f"{tmp_path}/{{a,b}}-0.tar") == [f"{tmp_path}/{x}-0.tar" for x in "ab"]
    assert expand(f"{tmp_path}/a-*.tar") == [f"{tmp_path}/a-{n}.tar" for n in (0, 1)]
    with raises_golden(DatasetError, "caft/no-such-tar"):
        TarSource(f"{tmp_path}/z-*.tar")
    with pytest.raises(UsageError):
        cache_features(tmp_path, toy(), tmp_path / "c", image="jpg")


def stands_out(images: list[str]) -> bool:
    """Whether at most one image is there, is a bare jpg, or is the only bare one."""
    bare = [name for name in images if "." not in name]
    return len(images) < 2 or "jpg" in images or len(bare) == 1


NAMES = st.text("ab./_0", min_size=1, max_size=8)
MEMBERS = st.lists(
    st.tuples(NAMES, st.sampled_from(["jpg", "cls", "json", "seg.png", "JPG", "txt"])),
    max_size=10,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stems=MEMBERS)
def test_samples_are_those_of_webdataset(
    stems: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    wds = pytest.importorskip("webdataset.tariterators")
    names = [f"{stem}.{extension}" for stem, extension in stems]
    keys = [split_name(name) for name in names]
    for name, (key, extension) in zip(names, keys, strict=True):
        theirs = wds.base_plus_ext(name)
        if not Path(name).name.startswith("."):  # theirs takes "d/.x.jpg" for a sample "d/"
            assert (key, extension) == ((theirs[0] or "", (theirs[1] or "").lower()))
    members = [(name, str(number).encode()) for number, name in enumerate(names)]
    members = [(name, data) for name, data in members if not Path(name).name.startswith(".")]
    path = write(tmp_path_factory.mktemp("t") / "a.tar", members)
    files: Any = [{"fname": name, "data": data, "__url__": ""} for name, data in members]
    files = [file for file in files if not wds.re.match(r"__[^/]*__($|/)", file["fname"])]
    labelled = any(split_name(file["fname"])[1] == "cls" for file in files)
    label: Any = "cls" if labelled else False  # a field that no sample has is refused
    try:
        samples = list(wds.group_by_keys(files))
    except ValueError:
        with pytest.raises(DatasetError):
            read(TarSource(str(path), label=label))
        return
    theirs = [sample["__key__"] for sample in samples]
    if len(set(theirs)) < len(theirs):
        return  # files that are not adjacent are put together here
    images = {
        sample["__key__"]: [x for x in sample if f".{x.rpartition('.')[2]}" in SUFFIXES]
        for sample in samples
    }
    if not all(stands_out(fields) for fields in images.values()):
        with pytest.raises(DatasetError, match=r"\d images"):
            read(TarSource(str(path), label=label))
        return
    ours = read(TarSource(str(path), label=label))
    assert list(ours) == [key for key, fields in images.items() if fields]
    for sample in samples:
        key = sample["__key__"]
        if key in ours:
            name, data = ours[key]
            assert name == (sample["cls"].decode() if "cls" in sample else None)
            assert data == sample["jpg" if "jpg" in sample else images[key][0]]


def test_webdatasets_writer_and_ours_agree(tmp_path: Path) -> None:
    """What people have: shards of ``ShardWriter``, numbers as classes and JSON beside them."""
    members = []
    for number in range(5):
        extra = json.dumps({"width": 48, "label": 99}).encode()
        members += [(f"{number:06d}.cls", str(number % 2).encode()),
                    (f"{number:06d}.jpg", png(number)), (f"{number:06d}.json", extra)]  # fmt: skip
    ours = read(TarSource(str(write(tmp_path / "a.tar", members))))
    assert [label for label, _ in ours.values()] == ["0", "1", "0", "1", "0"]
