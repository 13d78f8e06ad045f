"""A feature cache: whole after a kill at any moment, of one engine alone, larger than memory."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.caft import (
    PREPROCESS,
    clusters,
    folder,
    hiding,
    identity,
    outcome,
    photo,
    record,
    toy,
    write_cache,
)
from support.goldens import assert_golden
from support.paths import ROOT

from zoo.caft import FeatureCache, cache_features
from zoo.caft.augment import Augmentation
from zoo.caft.card import Identity, read_card
from zoo.caft.files import FEATURES, HASHES, LABELS, LOG, key_of
from zoo.caft.writer import CacheWriter
from zoo.util.errors import CacheError

ARRAYS = (FEATURES, LABELS, HASHES)
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def fill(path: Path, *, upto: int, views: int, total: int = 12, killed: bool = False) -> None:
    """Appends what a cache of ``total`` images lacks, three at a time; every fifth is bad."""
    writer = CacheWriter(path, identity(4, views=views, storage="fp16"))
    wanted = [outcome(n, f"c{n % 3}", "torn" if n % 5 == 4 else None) for n in range(total)]
    done = set(writer.old.keys)
    new = [one for one in wanted if int(key_of(one.sample), 16) not in done][: max(0, upto)]
    for start in range(0, len(new), 3):
        part = new[start : start + 3]
        numbers = [int(one.sample.name.removesuffix(".jpg")) for one in part]
        rows = np.repeat(numbers, views)[:, None] + np.tile(np.arange(views), len(part))[:, None]
        writer.append(part, (rows * np.ones(4)).astype(np.float32))
    if killed:  # the system closes the files and gives back the lock
        writer._files.close(sync=False)
        writer._unlock()
    else:
        writer.close(complete=upto >= total)


@settings(max_examples=60, deadline=None)
@given(
    done=st.integers(0, 9),
    views=st.integers(1, 3),
    torn=st.binary(max_size=40).filter(lambda data: b"\n" not in data),
    extra=st.lists(st.integers(0, 500), min_size=3, max_size=3),
)
def test_what_a_kill_leaves_is_made_good(
    done: int, views: int, torn: bytes, extra: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    straight, killed = (tmp_path_factory.mktemp(name) / "c" for name in ("straight", "killed"))
    fill(straight, upto=99, views=views)
    fill(killed, upto=done, views=views, killed=True)
    # A kill comes in the middle of a batch: arrays are ahead of the log, by any number of bytes,
    # and the log's last line may be torn.
    for name, size in zip(ARRAYS, extra, strict=True):
        with (killed / name).open("ab") as file:
            file.write(bytes(range(256)) * 2)
            file.truncate(file.tell() - 512 + size)
    with (killed / LOG).open("ab") as file:
        file.write(torn)
    fill(killed, upto=99, views=views)
    for name in (*ARRAYS, LOG):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    cache = FeatureCache(killed)
    assert len(cache) == 10 * views
    assert [name for name, _ in cache.bad()] == ["4.jpg", "9.jpg"]


PASS = """
import sys, time
from pathlib import Path
from support.caft import toy
from zoo.caft import cache_features
data, out, log = map(Path, sys.argv[1:])
made = toy()
run = made.session.features
def counted(images):
    with log.open("a") as file:
        file.write(f"{len(images)}\\n")
    time.sleep(0.02)
    return run(images)
made.session.features = counted
cache_features(data, made, out, augment=1, storage="fp16", batch=8)
"""


def test_a_pass_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=3, each=20)
    cache_features(data, toy(), tmp_path / "straight", augment=1, storage="fp16", batch=8)
    out, log = tmp_path / "killed", tmp_path / "runs"
    command = [sys.executable, "-c", PASS, str(data), str(out), str(log)]
    kills = 0
    for goal in (1, 20, 44):  # images that are to be done before the kill
        process = subprocess.Popen(command, env=ENVIRONMENT)
        while process.poll() is None and done_in(out) < goal:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if out.is_dir() and (out / "card.json").exists() and kills:
            with pytest.raises(CacheError) as raised:
                FeatureCache(out)
            assert_golden("caft/unfinished", raised.value, hiding(raised.value, tmp_path))
    assert kills >= 2
    subprocess.run(command, env=ENVIRONMENT, check=True)
    for name in (*ARRAYS, LOG):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    rows = sum(map(int, log.read_text().split()))
    assert 120 <= rows <= 120 + 8 * kills  # twice is done what was in flight, and nothing else


def done_in(out: Path) -> int:
    log = out / LOG
    return log.read_bytes().count(b"\n") if log.exists() else 0


MILLION = """
import resource, sys
from pathlib import Path
import numpy as np
from support.caft import identity, outcome
from zoo.caft.cache import FeatureCache
from zoo.caft.rows import standardise
from zoo.caft.writer import CacheWriter
status = Path("/proc/self/status").read_text()
used = int(status.split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (96 << 20),) * 2)
out, views, samples = Path(sys.argv[1]), 5, 200_000
for upto in (samples // 2, samples):
    writer = CacheWriter(out, identity(128, views=views, storage="fp16"))
    for start in range(writer.samples, upto, 1000):
        numbers = np.arange(start, start + 1000)
        rows = np.repeat(numbers % 7, views)[:, None] * np.ones(128, np.float32)
        writer.append([outcome(int(n), f"c{n % 7}") for n in numbers], rows)
    writer.close(complete=upto == samples)
cache = FeatureCache(out)
mean, scale = standardise(cache, np.arange(samples))
print(len(cache), cache.features.nbytes, float(mean[0]))
"""


def test_a_million_rows_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path / "c")],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows, size, mean = done.stdout.split()
    assert int(rows) == 1_000_000
    assert int(size) > 2 * (96 << 20)
    assert float(mean) == pytest.approx(np.mean(np.arange(200_000) % 7), abs=1e-3)


def test_a_set_that_has_grown_costs_what_is_new(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", classes=2, each=3)
    _, first = cache_features(data, toy(), tmp_path / "c")
    photo(77).save(data / "class0" / "0a.png")
    shutil.copy(data / "class1" / "2.png", data / "class0" / "0b.png")
    card, second = cache_features(data, toy(), tmp_path / "c")
    assert (first.images, second.images, second.before, second.renamed) == (6, 1, 6, 1)
    cache = FeatureCache(tmp_path / "c")
    assert card.samples == len(cache) == 8
    assert list(cache.names())[1:3] == ["class0/0a.png", "class0/0b.png"]
    assert np.array_equal(cache.features[2], cache.features[7])
    assert [cache.label_names[number] for number in cache.labels] == ["class0"] * 5 + ["class1"] * 3
    (data / "class0" / "0a.png").unlink()
    os.utime(data / "class1" / "1.png", (2e9, 2e9))
    _, third = cache_features(data, toy(), tmp_path / "c", batch=100_000)
    assert (third.images, third.before, third.found, third.gone, third.rewritten) == (0, 8, 7, 1, 0)
    assert len(FeatureCache(tmp_path / "c")) == 7


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"engine": {"sha256": "9" * 64, "size": 1}}, "engine"),
        (
            {
                "inputs": record().inputs.model_copy(
                    update={"preprocess": PREPROCESS.model_copy(update={"crop": 1.0})}
                )
            },
            "preprocessing",
        ),
    ],
)
def test_rows_of_another_engine_are_refused(
    changes: dict[str, object], what: str, tmp_path: Path
) -> None:
    data = folder(tmp_path / "data", classes=2, each=2)
    cache_features(data, toy(), tmp_path / "c")
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(**changes), tmp_path / "c")
    assert_golden(
        f"caft/other_{what}", raised.value, {tmp_path: "FOLDER", toy().engine[:12]: "ENGINE"}
    )
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(), tmp_path / "c", storage="fp16")
    assert_golden("caft/other_storage", raised.value, hiding(raised.value, tmp_path))
    with pytest.raises(CacheError) as raised:
        cache_features(data, toy(), tmp_path / "c", augment=2)
    assert_golden("caft/other_augmentation", raised.value, hiding(raised.value, tmp_path))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}


def test_names_of_another_data_set_are_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, other = (folder(tmp_path / name, classes=2, each=2) for name in ("data", "other"))
    cache_features(data, toy(), tmp_path / "c")
    with pytest.raises(CacheError) as raised:
        cache_features(other, toy(), tmp_path / "c")
    assert_golden("caft/other_data_set", raised.value, hiding(raised.value, tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cache_features("data", toy(), "c")[1].images == 0  # the same place, said otherwise
    data.rename(tmp_path / "new")
    assert cache_features("new", toy(), "c", moved=True)[1].images == 0
    assert cache_features("new", toy(), "c")[1].before == 4


def test_what_fp16_does_not_hold_is_refused(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", identity(4, storage="fp16"))
    writer.append([outcome(0, "a")], np.full((1, 4), 60_000, np.float32))
    rows = np.array([[1.0] * 4, [70_000.0] * 4], np.float32)
    with pytest.raises(CacheError) as raised:
        writer.append([outcome(1, "a"), outcome(2, "a")], rows)
    assert_golden("caft/beyond_fp16", raised.value, hiding(raised.value, tmp_path))
    writer.close(complete=True)
    assert len(FeatureCache(tmp_path / "c")) == 1


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    writer = CacheWriter(tmp_path / "c", identity(4))
    with pytest.raises(CacheError) as raised:
        CacheWriter(tmp_path / "c", identity(4))
    assert_golden("caft/locked", raised.value, hiding(raised.value, tmp_path))
    writer.close(complete=False)
    CacheWriter(tmp_path / "c", identity(4)).close(complete=False)


def test_what_is_no_cache_is_said(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep me")
    with pytest.raises(CacheError) as raised:
        CacheWriter(tmp_path / "photos", identity(4))
    assert_golden("caft/other_files", raised.value, hiding(raised.value, tmp_path))
    with pytest.raises(CacheError) as raised:
        FeatureCache(tmp_path / "photos")
    assert_golden("caft/no_card", raised.value, hiding(raised.value, tmp_path))
    with pytest.raises(CacheError) as raised:
        FeatureCache(tmp_path / "nowhere")
    assert_golden("caft/no_folder", raised.value, hiding(raised.value, tmp_path))
    rows, labels = clusters()
    made = write_cache(tmp_path / "c", rows, labels)
    (made / FEATURES).write_bytes((made / FEATURES).read_bytes()[:-64])
    with pytest.raises(CacheError) as raised:
        FeatureCache(made)
    assert_golden("caft/array_unreadable", raised.value, hiding(raised.value, tmp_path))
    with pytest.raises(CacheError) as raised:
        CacheWriter(made, identity(8))
    assert_golden("caft/array_short", raised.value, hiding(raised.value, tmp_path))
    (made / "card.json").write_text(json.dumps({"identity": 1}))
    with pytest.raises(CacheError) as raised:
        FeatureCache(made)
    assert_golden("caft/not_a_card", raised.value, hiding(raised.value, tmp_path))


def test_a_cache_is_a_torch_dataset_and_plain_numpy(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader

    data = folder(tmp_path / "data", classes=2, each=3)
    cache_features(data, toy(), tmp_path / "c", augment=2)
    cache = FeatureCache(tmp_path / "c")
    batches = list(DataLoader(cache, batch_size=5))
    features = np.concatenate([batch.numpy() for batch, _ in batches])
    labels = np.concatenate([batch.numpy() for _, batch in batches])
    assert features.shape == (18, 8)
    assert np.array_equal(features, np.load(tmp_path / "c" / "features.npy"))
    assert np.array_equal(labels, np.repeat(np.load(tmp_path / "c" / "labels.npy"), 3))
    assert np.array_equal(cache.plain, cache.features[[0, 3, 6, 9, 12, 15]])
    assert isinstance(cache.features, np.memmap)
    sent = pickle.dumps(cache)
    assert len(sent) < 1000  # its place; workers of a DataLoader open the files themselves
    assert np.array_equal(pickle.loads(sent).features, cache.features)
    assert cache[-1][1] == 1


def test_an_old_reader_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    rows, labels = clusters()
    made = write_cache(tmp_path / "c", rows, labels)
    values = json.loads((made / "card.json").read_text()) | {"new": 1}
    (made / "card.json").write_text(json.dumps(values))
    card = read_card(made)
    assert card is not None
    assert json.loads(card.to_json())["new"] == 1
    assert card.identity == Identity.of(toy(), "fp32", Augmentation())
