"""What a worker of a cluster may answer, and what of it is believed."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.caft import folder, photo

from zoo.caft.answers import Broken, Differs, Faulty, NotFinite, checked
from zoo.caft.file_read import FileRead
from zoo.caft.packing import entry_of, is_same, pack, sample_of
from zoo.caft.parts import Part, PartSize
from zoo.caft.sample import Sample
from zoo.caft.sending import Attempt
from zoo.caft.wire import Answer, message, parts_of
from zoo.util.digest import sha256_bytes

DIGESTS = [sha256_bytes(b"0"), sha256_bytes(b"1")]


@pytest.fixture
def attempt() -> Attempt:
    """Two images were sent; each has a row of three features."""
    samples = [Sample(name=str(n), label="a", read=str(n).encode) for n in range(2)]
    part = Part(packed=[pack(sample, "ignore") for sample in samples])
    asked = Attempt(part=part, worker=None, key="k")  # type: ignore[arg-type]
    asked.entries = [entry_of(each, send=True)[0] for each in part.packed]
    return asked


def answer(*features: float, **changes: Any) -> bytes:
    """What a good worker returns, with changes."""
    outcomes = [{"sha256": digest} for digest in DIGESTS]
    values = {"decoders": ["Pillow 1"], "outcomes": outcomes, **changes}
    head = json.dumps(values).encode()
    rows = np.array(features or range(6), np.float32)
    return struct.pack("<I", len(head)) + head + rows.tobytes()


def test_a_good_answer(attempt: Attempt) -> None:
    decoders, (outcomes, features) = checked(answer(), attempt, 1, 3)
    assert decoders == ("Pillow 1",)
    assert [(each.sample.name, each.label, each.sha256) for each in outcomes] == [
        ("0", "a", DIGESTS[0]), ("1", "a", DIGESTS[1])
    ]  # fmt: skip
    np.testing.assert_array_equal(features, [[0, 1, 2], [3, 4, 5]])


SKIPPED = {"sha256": "", "error": "torn\x1b[31m\nred"}


@pytest.mark.parametrize(
    "made",
    [
        lambda: None,
        lambda: "text",
        lambda: b"",
        lambda: struct.pack("<I", 2**31) + b"{}",
        lambda: struct.pack("<I", 2) + b"{]",
        lambda: struct.pack("<I", 2) + b"[]",
        lambda: message(Answer(), [])[:-1],
        lambda: answer(extra=1),
        lambda: answer()[:-1],
        lambda: answer() + b"x",
        lambda: answer(*range(3)),
        lambda: answer(outcomes=[{"sha256": DIGESTS[0]}]),
        lambda: answer(outcomes=[{"sha256": DIGESTS[0]}] * 3),
        lambda: answer(outcomes=({"sha256": "A" * 64}, {"sha256": DIGESTS[1]})),
        lambda: answer(outcomes=({"sha256": DIGESTS[1]}, {"sha256": DIGESTS[1]})),
        lambda: answer(outcomes=({"sha256": ""}, {"sha256": DIGESTS[1]})),
        lambda: answer(outcomes=({"sha256": DIGESTS[0], "error": "x"}, {"sha256": DIGESTS[1]})),
        lambda: answer(outcomes=({"sha256": "", "error": "x" * 5000}, {"sha256": DIGESTS[1]})),
        lambda: answer(decoders=("x" * 1000,)),
        lambda: answer(differ=(0,)),
        lambda: answer(differ=(7,)),
        lambda: answer(differ=(-1,)),
    ],
)
def test_answers_that_are_not_valid(attempt: Attempt, made: Callable[[], Any]) -> None:
    with pytest.raises(Broken) as caught:
        checked(made(), attempt, 1, 3)
    assert str(caught.value).isprintable()


def test_a_skipped_image_has_no_features_that_matter(attempt: Attempt) -> None:
    data = answer(*[np.nan] * 3, 3, 4, 5, outcomes=[SKIPPED, {"sha256": DIGESTS[1]}])
    _, (outcomes, _) = checked(data, attempt, 1, 3)
    assert [each.error for each in outcomes] == ["torn red", None]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(attempt: Attempt, value: float) -> None:
    with pytest.raises(NotFinite) as caught:
        checked(answer(0, 1, 2, 3, value, 5), attempt, 1, 3)
    assert caught.value.result[1].shape == (2, 3)


def test_a_worker_that_could_not_do_it(attempt: Attempt) -> None:
    with pytest.raises(Faulty) as caught:
        checked(answer(fault="no\x1b[2J disk\nleft", hint="make\x07room"), attempt, 1, 3)
    assert (caught.value.reason, caught.value.hint) == ("no disk left", "make room")
    assert not caught.value.died


def test_a_digest_of_a_file_that_was_read_here_too(tmp_path: Path) -> None:
    path = next(folder(tmp_path / "photos", 1, 1).rglob("*.png"))
    read = FileRead(path)
    packed = pack(Sample(name="0", label=None, read=read), "ignore")
    asked = Attempt(part=Part(packed=[packed]), worker=None, key="k")  # type: ignore[arg-type]
    asked.entries = [entry_of(packed, send=False)[0]]
    asked.spot = (0, sha256_bytes(path.read_bytes()))
    read.stamp = b"of an earlier look"
    checked(answer(0, 1, 2, outcomes=[{"sha256": asked.spot[1]}]), asked, 1, 3)
    assert read.stamp is None  # only what was read here is known to be so
    with pytest.raises(Differs) as caught:
        checked(answer(0, 1, 2, outcomes=[{"sha256": DIGESTS[0]}]), asked, 1, 3)
    assert caught.value.all_of_them
    entry = asked.entries[0]
    assert is_same(entry)
    path.write_bytes(path.read_bytes() + b"x")
    assert not is_same(entry)
    path.unlink()
    assert not is_same(entry)
    path.mkdir()
    assert not is_same(entry)


def test_messages_keep_images(tmp_path: Path) -> None:
    image = photo(3)
    for data in (np.array(image), image, np.ones((3, 2, 2), np.float16), b"bytes"):
        packed = pack(Sample(name="n", label="l", read=lambda data=data: data), "ignore")  # type: ignore[misc]
        entry, piece = entry_of(packed, send=False)
        head, rest = parts_of(message(Answer(), [piece]))
        assert Answer.model_validate_json(head) == Answer()
        got = sample_of(entry, rest).read()
        if isinstance(data, bytes):
            assert got == data
        elif getattr(data, "dtype", None) == np.float16:
            np.testing.assert_array_equal(got, data)
        else:
            assert got.photo.tobytes() == image.tobytes()
            assert got.digest == packed.digest


def test_parts_grow_while_they_are_quick_and_are_bounded() -> None:
    size = PartSize(256, 4 * 2048)
    sizes = []
    for _ in range(6):
        size.learn(part_of(256 * size.batches), 0.1)
        sizes.append(size.batches)
    assert sizes == [2, 4, 8, 8, 8, 8]  # 16 MiB of features
    size.learn(part_of(256 * 8), 60)
    assert size.batches == 4
    size.learn(part_of(256), 0.1)  # one of before
    assert size.batches == 4
    huge = PartSize(256, 1 << 30)
    huge.learn(part_of(256), 0.1)
    assert huge.batches == 1


def part_of(samples: int, size: int = 0) -> Part:
    packed = pack(Sample(name="n", label=None, read=lambda: b"x" * size), "ignore")
    return Part(packed=[packed] * samples)


def test_parts_are_split_by_whole_batches() -> None:
    part = part_of(10, size=100)
    part.died_on.append("w")
    assert [len(each.packed) for each in part.split(4)] == [4, 4, 2]
    assert [each.counted for each in part.split(4)] == [True, False, False]
    assert [len(each.packed) for each in part.split(2, 450)] == [4, 4, 2]
    assert [each.died_on for each in part.split(4)] == [["w"]] * 3
