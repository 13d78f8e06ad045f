"""The commands of features and heads: what they print, and what one bad file costs."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.caft import Zoo, clusters, folder, photo, toy, write_cache
from support.goldens import assert_golden
from support.records import blob

from zoo.caft import FeatureCache, cache_features, train_head
from zoo.caft.cache import CacheError
from zoo.caft.head import Head
from zoo.caft.probe import probe
from zoo.caft.report import Report, draw, judge, wilson
from zoo.caft.settings import Settings
from zoo.caft.split import split_samples
from zoo.cli import caft


def test_what_changed_in_a_data_set_is_printed(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(tmp_path / "data", classes=2, each=3)
    assert zoo("features data --model toy -o c") == 0
    capsys.readouterr()
    assert zoo("features data --model toy -o c") == 0
    assert capsys.readouterr().err == "already cached: 6 images\n"
    (data / "class0" / "0.png").rename(data / "class1" / "9.png")
    (data / "class0" / "1.png").write_bytes((data / "class1" / "1.png").read_bytes())
    photo(50).save(data / "class1" / "2.png")
    photo(51).save(data / "top.png")
    (data / "class1" / "notes.txt").write_text("none")
    (data / "class1" / "torn.jpg").write_bytes(b"none")
    assert zoo("features data --model toy -o c") == 0
    shown = capsys.readouterr()
    assert_golden("caft/changes", shown.err)
    assert shown.out.splitlines()[0] == (
        "c: 7 images, 2 classes, 8 features in fp32; 1 skipped, 1 without a label"
    )


def test_splits_are_no_classes(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        folder(tmp_path / "data" / split, classes=2, each=2)
    assert zoo("features data --model toy -o c") == 30
    assert_golden("caft/splits", capsys.readouterr().err)
    assert not (tmp_path / "c").exists()
    assert zoo("features data --model toy -o c --split val") == 0
    assert FeatureCache(tmp_path / "c").label_names == ("class0", "class1")
    assert zoo("features data --model toy -o c --split train") == 31
    assert zoo("features data --model toy -o c --split test") == 30


@pytest.fixture
def head(tmp_path: Path) -> Path:
    data = folder(tmp_path / "photos", classes=2, each=6)
    cache_features(data, toy(), tmp_path / "photos-c", exif="apply")
    made, _ = train_head(FeatureCache(tmp_path / "photos-c"), Settings(solver="lbfgs"))
    made.save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


@pytest.mark.usefixtures("head")
def test_a_bad_file_costs_its_own_answer_alone(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff none")
    good = ["photos/class0/0.png", "photos/class1/0.png"]
    assert zoo(f"predict --head head.safetensors {' '.join(good)}") == 0
    answers = capsys.readouterr().out
    assert [line.partition(": ")[0] for line in answers.splitlines()] == good
    bad = f"predict --head head.safetensors {good[0]} torn.jpg none.jpg {good[1]}"
    assert zoo(bad) == 12
    shown = capsys.readouterr()
    assert shown.out == answers
    assert_golden("caft/predict_bad_files", shown.err)


@pytest.mark.usefixtures("head")
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (300 * "x" + ".jpg", "File name too long"),
        ("pipe.jpg", "pipe.jpg is not a regular file"),
        ("loop.jpg", "Too many levels of symbolic links"),
    ],
)
def test_a_path_that_is_no_file_costs_its_own_answer_alone(
    bad: str, reason: str, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    good = ["photos/class0/0.png", "photos/class1/0.png"]
    assert zoo(f"predict --head head.safetensors {good[0]} {bad} {good[1]}") == 12
    shown = capsys.readouterr()
    assert [line.partition(": ")[0] for line in shown.out.splitlines()] == good
    assert shown.err.splitlines()[0] == f"skipped {bad}: {reason}"


def test_a_head_turns_photos_as_its_cache_did(
    zoo: Zoo, head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    photo(3).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    photo(3).save(tmp_path / "upright.png")
    assert Head.load(head).card.identity.exif == "apply"
    assert zoo("predict --json --head head.safetensors lying.png upright.png") == 0
    lying, upright = map(json.loads, capsys.readouterr().out.splitlines())
    assert lying["classes"] == pytest.approx(upright["classes"], abs=1e-6)


def test_accuracy_stands_beside_the_majority(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, _ = clusters(classes=1, each=60)
    labels = ["major"] * 50 + ["minor"] * 8 + ["single", None]
    write_cache(tmp_path / "c", rows, labels)
    assert zoo("train-head c -o h.safetensors --solver lbfgs --no-plot") == 0
    first, second, third = capsys.readouterr().out.splitlines()[:3]
    assert "on 12 held-out images" in first
    assert first.endswith("always 'major': 83.3%")
    assert second.endswith(": 1 (single)")
    assert third.endswith(": 1")
    written = json.loads((tmp_path / "h.json").read_text())
    assert (written["majority"], written["majority_right"]) == ("major", 10)
    assert (written["not_held_out"], written["unlabelled"]) == (["single"], 1)
    assert np.sum(written["confusion"]) == 12


def test_a_probe_with_nothing_held_out_is_a_sentence(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, _ = clusters(classes=1, each=30)
    write_cache(tmp_path / "c", rows, [f"c{number}" for number in range(30)])
    assert zoo("probe c") == 31
    assert_golden("caft/probe_nothing_held_out", capsys.readouterr().err)
    with pytest.raises(CacheError):
        probe(FeatureCache(tmp_path / "c"))


def test_a_report_of_many_classes_is_sparse(tmp_path: Path) -> None:
    classes = 20_000
    names = tuple(f"c{number}" for number in range(classes))
    cells = tuple((number, (number * 7) % classes, 1) for number in range(classes))
    report = Report(
        right=1, held_out=classes, trained_on=classes, stopped_by=0, interval=wilson(1, classes),
        labels=names, cells=cells, majority="c0", majority_right=1, not_held_out=(), unlabelled=0,
        curve=(), seconds=1.0,
    )  # fmt: skip
    draw(report, tmp_path / "warm.png")  # imports matplotlib
    tracemalloc.start()
    started = time.perf_counter()
    data = report.to_json()
    draw(report, tmp_path / "report.png")
    seconds, (_, most) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) < 1 << 20
    assert most < 100 << 20
    assert seconds < 10  # 0.5 s without tracemalloc
    written = json.loads(data)
    assert written["confusion_cells"][1] == [1, 7, 1]
    assert "confusion" not in written


def test_a_sparse_matrix_is_the_dense_one(tmp_path: Path) -> None:
    rows, labels = clusters(classes=4, each=40, spread=2.5)
    cache = FeatureCache(write_cache(tmp_path / "c", rows, labels))
    head, _ = train_head(cache, Settings(epochs=2))
    split = split_samples(cache, val=0.1, test=0.5, seed=0)
    report = judge(head, cache, split, [], 0.0)
    dense = np.zeros((4, 4), np.int64)
    predicted = head.logits(cache.plain[split.test]).argmax(axis=1)
    np.add.at(dense, (cache.labels[split.test], predicted), 1)
    assert np.array_equal(report.confusion, dense)
    assert np.trace(dense) == report.right
    assert np.count_nonzero(dense - np.diag(np.diag(dense)))


def png(number: int) -> bytes:
    file = io.BytesIO()
    photo(number).save(file, "PNG")
    return file.getvalue()


def test_what_a_hint_recommends_works(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Follows each hint of features and heads to the letter."""
    import datasets

    def fails(command: str, hint: str) -> None:
        assert zoo(command) in (30, 31, 32)
        assert hint in " ".join(capsys.readouterr().err.split("\n  ", 1)[1].split())

    folder(tmp_path / "a", classes=2, each=4)
    fails("probe c", "zoo features DATASET --model MODEL -o c")
    assert zoo("features a --model toy -o c") == 0
    fails("predict --head h.safetensors a/class0/0.png", "zoo train-head CACHE -o head.safetensors")
    assert zoo("train-head c -o head.safetensors --solver lbfgs --no-plot") == 0
    (tmp_path / "a").rename(tmp_path / "b")
    fails("features b --model toy -o c", "--moved if it is the same data set elsewhere")
    assert zoo("features b --model toy -o c --moved") == 0
    card = json.loads((tmp_path / "c" / "card.json").read_text()) | {"complete": False}
    (tmp_path / "c" / "card.json").write_text(json.dumps(card))
    fails("probe c", "run the same zoo features command again")
    assert zoo("features b --model toy -o c") == 0
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("0.left.png", "0.right.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(1))
            tar.addfile(member, io.BytesIO(png(1)))
    fails("features t.tar --model toy -o t", "--image-field")
    assert zoo("features t.tar --model toy -o t --image-field left.png") == 0
    kinds = {"x": datasets.Image(), "y": datasets.Image()}
    rows = {name: [photo(number) for number in range(3)] for name in kinds}
    datasets.Dataset.from_dict(rows, features=datasets.Features(kinds)).save_to_disk("hf")
    fails("features hf --model toy -o h", "--image-column")
    assert zoo("features hf --model toy -o h --image-column y") == 0
    one_each = [f"c{number}" for number in range(30)]
    write_cache(tmp_path / "o", clusters(classes=1, each=30)[0], one_each)
    fails("probe o", "zoo train-head CACHE --test 0")
    assert zoo("train-head o --test 0 --no-plot --solver lbfgs -o o.safetensors") == 0


def test_a_hint_about_labels_leads_to_a_head(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels that are no classes are left out of a cache, and trained on from a file."""
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("float32")})
    rows = {"image": [photo(n) for n in range(8)], "label": [n / 2 for n in range(8)]}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk("hf")
    (tmp_path / "list.csv").write_text("".join(f"{n}.png,{n / 2}\n" for n in range(8)))
    for number in range(8):
        photo(number).save(tmp_path / f"{number}.png")
    for data, cache in (("hf", "c"), ("list.csv", "l")):
        assert zoo(f"features {data} --model toy -o {cache}") == 30
        hint = " ".join(capsys.readouterr().err.split("\n  ", 1)[1].split())
        assert "--no-labels" in hint
        assert "zoo train-head CACHE --task regression --labels FILE" in hint
        assert zoo(f"features {data} --model toy -o {cache} --no-labels") == 0
        names = FeatureCache(tmp_path / cache).names()
        lines = [f"{name},{n / 2}\n" for n, name in enumerate(names)]
        (tmp_path / "numbers.csv").write_text("name,price\n" + "".join(lines))
        trained = f"train-head {cache} --task regression --labels numbers.csv --no-plot"
        assert zoo(trained + " -o h.safetensors --solver lbfgs") == 0
        capsys.readouterr()


def test_hints_about_splits_fields_and_engines_work(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(command: str, hint: str) -> None:
        assert zoo(command) in (30, 31, 32)
        assert hint in " ".join(capsys.readouterr().err.split("\n  ", 1)[1].split())

    for split in ("train", "val"):
        folder(tmp_path / "data" / split, classes=2, each=4)
    fails("features data --model toy -o c", "choose one with --split train")
    assert zoo("features data --model toy -o c --split train") == 0
    fails("features data --model toy -o c --split train --exif apply", "use another folder")
    assert zoo("features data --model toy -o c2 --split train --exif apply") == 0
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("0.png", png(1)), ("0.txt", b"a cat")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert zoo("features t.tar --model toy -o t") == 0
    assert "--label-field txt" in capsys.readouterr().err
    assert zoo("features t.tar --model toy -o t --label-field txt") == 0
    assert FeatureCache(tmp_path / "t").label_names == ("a cat",)
    assert zoo("train-head c --solver lbfgs --no-plot -o h.safetensors") == 0
    monkeypatch.setattr(caft, "_extractor", lambda *arguments: toy(engine=blob(b"another")))
    predict = "predict --head h.safetensors data/val/class0/0.png"
    capsys.readouterr()
    fails(predict, "--allow-other-engine to accept this engine")
    assert zoo(f"{predict} --allow-other-engine") == 0
