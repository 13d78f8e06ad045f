"""A cache after any history of edits is what a pass into an empty folder makes, row for row."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.caft import photo, toy

from zoo.caft import FeatureCache, cache_features
from zoo.caft.features import Pass
from zoo.caft.files import HASHES, LABELS, LOG
from zoo.inference.extractor import Extractor

datasets.disable_progress_bars()

BROKEN = -1
LABELS_USED = (None, "cat", "dog", "ox")


@dataclass(frozen=True)
class Entry:
    """An image of a data set that is edited: ``content`` is the number of a photo."""

    name: str
    content: int
    label: str | None


Entries = list[Entry]


@cache
def png(number: int) -> bytes:
    if number == BROKEN:
        return b"no photo"
    file = io.BytesIO()
    photo(number).save(file, "PNG")
    return file.getvalue()


def as_folder(entries: Entries, path: Path, shards: int) -> tuple[Any, bool]:
    for entry in entries:
        file = path / "data" / (entry.label or "") / f"{entry.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(entry.content))
    return path / "data", False


def as_list(entries: Entries, path: Path, shards: int) -> tuple[Any, bool]:
    """A list may have the same file several times, with several labels."""
    lines = []
    for entry in entries:
        name = f"{entry.name if entry.content % 2 else entry.content}.png"
        path.mkdir(exist_ok=True)
        (path / name).write_bytes(png(entry.content))
        lines.append(f"{name},{entry.label or ''}\n")
    (path / "list.csv").write_text("".join(lines))
    return path / "list.csv", False


def as_tar(entries: Entries, path: Path, shards: int) -> tuple[Any, bool]:
    path.mkdir(exist_ok=True)
    share = -(-len(entries) // shards)
    for shard in range(shards):
        with tarfile.open(path / f"s-{shard}.tar", "w") as tar:
            for entry in entries[shard * share : (shard + 1) * share]:
                members = [("png", png(entry.content))]
                if entry.label:
                    members.append(("cls", entry.label.encode()))
                for extension, data in members:
                    member = tarfile.TarInfo(f"deep/{entry.name}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return str(path / f"s-{{0..{shards - 1}}}.tar"), True


def dataset(entries: Entries) -> datasets.Dataset:
    names = [label for label in LABELS_USED if label]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = {
        "image": [{"bytes": png(entry.content), "path": None} for entry in entries],
        "label": [entry.label for entry in entries],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def as_saved(entries: Entries, path: Path, shards: int) -> tuple[Any, bool]:
    dataset(entries).save_to_disk(str(path), num_shards=min(shards, len(entries)))
    return str(path), False


def as_object(entries: Entries, path: Path, shards: int) -> tuple[Any, bool]:
    return dataset(entries), False


class Torch:
    """A torch ``Dataset`` of file's bytes and labels."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Any, str | None]:
        entry = self.entries[index]
        return png(entry.content), entry.label


def as_torch(entries: Entries, path: Path, shards: int) -> tuple[Any, bool]:
    return Torch(entries), False


FORMS: list[Callable[[Entries, Path, int], tuple[Any, bool]]] = [
    as_folder, as_list, as_tar, as_saved, as_object, as_torch,
]  # fmt: skip

PLACED = (as_folder, as_list, as_saved)
"""Forms whose path says which data set they are. Of the others, as many photos as may be edited are
kept: an object, or a set that has moved, is another one if it keeps less than half."""

CONTENTS = st.integers(BROKEN, 8)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "insert",
                "delete",
                "move",
                "rename",
                "relabel",
                "replace",
                "reorder",
                "shard",
                "kill",
                "pass",
            ]
        ),
        st.integers(0, 99),
        CONTENTS,
        st.sampled_from(LABELS_USED),
    ),
    min_size=1,
    max_size=6,
)


def edited(entries: Entries, edit: tuple[str, int, int, str | None], fresh: int) -> Entries:
    """Returns the entries after an edit; names stay unique, some entry stays."""
    kind, number, content, label = edit
    place = number % len(entries)
    entry, others = entries[place], entries[:place] + entries[place + 1 :]
    match kind:
        case "insert":
            new = Entry(f"n{number % 7}x{fresh}", content, label)
            return [*entries[:place], new, *entries[place:]]
        case "delete":
            return others or entries
        case "move":
            place = content % len(entries)
            return [*others[:place], entry, *others[place:]]
        case "rename":
            changed = replace(entry, name=f"r{number % 7}x{fresh}")
        case "relabel":
            changed = replace(entry, label=label)
        case "replace":
            changed = replace(entry, content=content)
        case "reorder":
            order = np.random.default_rng(number).permutation(len(entries))
            return [entries[at] for at in order]
        case _:
            return entries
    return [*entries[:place], changed, *entries[place + 1 :]]


class StoppedError(Exception):
    """What a pass that is broken off raises here."""


def broken_off(extractor: Extractor) -> Extractor:
    """Makes an extractor fail in its second batch."""
    run, batches = extractor.session.features, []

    def features(images: Any) -> Any:
        batches.append(len(images))
        if len(batches) > 1:
            raise StoppedError
        return run(images)

    extractor.session.features = features  # type: ignore[method-assign]
    return extractor


def run(form: Any, entries: Entries, shards: int, at: Path, out: Path, extractor: Any) -> Pass:
    shutil.rmtree(at, ignore_errors=True)
    data, moved = form(entries, at, shards)
    return cache_features(data, extractor, out, batch=2, moved=moved)[1]


def assert_same(edited: Path, fresh: Path) -> None:
    ours, theirs = FeatureCache(edited), FeatureCache(fresh)
    assert list(ours.names()) == list(theirs.names())
    assert list(ours.bad()) == list(theirs.bad())
    assert ours.label_names == theirs.label_names
    for name in (LABELS, HASHES, LOG):
        assert (edited / name).read_bytes() == (fresh / name).read_bytes(), name
    rows = np.load(edited / "features.npy")  # as everybody reads it
    assert rows.shape == theirs.features.shape
    assert np.allclose(rows, theirs.features, atol=1e-6)
    assert not {path.name for path in edited.iterdir()} & {".next", ".ready"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trusting", [False, True], ids=["read", "stamped"])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=st.lists(st.tuples(CONTENTS, st.sampled_from(LABELS_USED)), max_size=6), edits=EDITS)
def test_two_passes_over_any_edits_are_one_fresh_pass(
    form: Any,
    trusting: bool,
    first: list[tuple[int, str | None]],
    edits: list[tuple[str, int, int, str | None]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if trusting:  # every stamp is believed at once, where files are a minute old in the field
        monkeypatch.setattr("zoo.caft.file_read._settled_after", lambda device, folder: -1)
    path = tmp_path_factory.mktemp("edits")
    kept = 1 if form in PLACED else 9
    keep = [Entry(f"keep{number}", number, "cat") for number in range(9, 9 + kept)]
    entries = keep + [
        Entry(f"{number:02d}", content, label) for number, (content, label) in enumerate(first)
    ]
    shards = 1
    run(form, entries, shards, path / "data", path / "edited", toy())
    for fresh, edit in enumerate(edits):
        if edit[0] == "shard":
            shards = 1 + edit[1] % 3
        others = entries[len(keep) :]
        entries = [*keep, *edited(others, edit, fresh)] if others else entries
        if edit[0] in ("kill", "pass"):
            extractor = broken_off(toy()) if edit[0] == "kill" else toy()
            with suppress(StoppedError):
                run(form, entries, shards, path / "data", path / "edited", extractor)
    run(form, entries, shards, path / "data", path / "edited", toy())
    run(form, entries, shards, path / "data", path / "fresh", toy())
    assert_same(path / "edited", path / "fresh")
    again = run(form, entries, shards, path / "data", path / "edited", toy())
    bad = sum(entry.content == BROKEN for entry in entries)
    assert (again.images, again.gone, again.rewritten, again.relabelled) == (bad, 0, 0, 0)
    assert not again.reordered
