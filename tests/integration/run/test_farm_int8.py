"""int8 end to end, on real weights: advised, built, verified, shown, and refused by tolerance."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.make_farm import Counts, Farm, counts
from support.models import LITE
from support.nightly import night_of, verified
from support.paths import MANIFESTS

from builders.photos.bundled import calibration_paths

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("int8")]  # one repository for all

STRICT = '[tolerance.int8]\nrelative_error = 0.0001\n\n'  # fmt: skip


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A repository with the smallest real model in fp32 and int8 on the CPU."""
    folder = tmp_path_factory.mktemp("low")
    shutil.copytree(MANIFESTS, folder / "manifests")
    made = Farm(folder=folder, manifests=folder / "manifests")
    done = made.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(done) == Counts(published=2)
    return made


def test_the_engine_is_published_under_its_honest_name(low: Farm) -> None:
    index = low.repository.model_index(LITE)
    assert index is not None
    engines = {entry.precision: entry for entry in index.engines}
    int8 = engines["int8"]
    assert int8.status == "verified"
    assert int8.precision_status == "proven"
    assert int8.engine.size < 0.7 * engines["fp32"].engine.size
    assert int8.advice is not None
    assert int8.targets == ("cpu-ort1.32-int8" + "-mixed" * int8.advice.mixed,)
    assert int8.verification is not None
    for batch in int8.verification.batches:
        assert 0.99 <= batch.worst_cosine < 1
        assert batch.neighbours is not None
        photos = batch.model_dump()["photos"]
        assert min(one["cosine"] for one in photos.values()) == pytest.approx(batch.worst_cosine)


def test_the_record_says_what_it_was_calibrated_on(low: Farm) -> None:
    [record] = [one for one in low.repository.records(LITE) if one.inputs.precision == "int8"]
    export = low.repository.export(LITE, record.export_key)
    assert export is not None
    assert export.calibration is not None
    assert export.calibration.source == "shipped"
    assert export.calibration.photos == len(export.calibration.sha256)
    assert export.calibration.crops >= 32
    assert export.advice is not None
    assert export.advice.tried[0].what == "ranges by max"
    assert export.inputs.lowering is not None
    assert export.inputs.lowering.placing == "onnxruntime"


def test_the_zoo_says_what_to_take(low: Farm) -> None:
    shown = low.zoo("show", LITE)
    assert shown.returncode == 0, shown.stderr
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("  on cpu-ort1.32")]
    assert "int8: " in line
    assert "speed against fp32" in line
    assert not re.search(r"\d times", line)  # tests leave PyTorch out
    page = (low.folder / "site" / "models" / f"{LITE}.html").read_text()
    assert "speed against fp32" in page
    # int8 is for who asks for it.
    assert "cpu-ort1.32-fp32" in low.zoo("pull", LITE).stderr
    asked = low.zoo("pull", LITE, "--precision", "int8")
    assert asked.returncode == 0, asked.stderr
    assert "cpu-ort1.32-int8" in asked.stderr


def test_a_second_run_does_nothing(low: Farm) -> None:
    before = low.snapshot()
    done = low.make(f"MODELS={LITE}", "GPU=cpu")
    assert done.returncode == 0
    assert counts(done) == Counts(current=2)
    assert low.snapshot() == before


def test_floors_that_cannot_be_kept_disable_the_cell_once(low: Farm, tmp_path: Path) -> None:
    copy = low.copy(tmp_path)
    copy.edit(LITE, "[catalog]", STRICT + "[catalog]")
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert night.status != 0, night.output  # a published precision is lost
    assert {job.model for job in night.run.failed} == {LITE}
    assert night.run.current == 1
    assert "int8" in night.issue
    assert verified(copy, LITE) == {"cpu-ort1.32-fp32"}
    index = copy.repository.model_index(LITE)
    assert index is not None
    assert [entry.precision for entry in index.engines] == ["fp32"]
    [cell] = index.disabled
    assert cell.targets == ("cpu-ort1.32-int8",)
    found = copy.repository.failed_export(LITE, cell.record)
    assert found is not None
    assert found.advice is not None
    assert len(found.advice.tried) >= 5
    assert "int8: none: " in copy.zoo("show", LITE).stdout
    assert cell.reason[:20] in (copy.folder / "site" / "index.html").read_text()
    # The same inputs are not tried again; other ones are.
    before = copy.snapshot()
    again = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert counts(again) == Counts(current=1, ruled_out=1)
    assert copy.snapshot() == before
    second = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert (second.status, second.issue) == (0, "")  # no news
    copy.edit(LITE, STRICT, "")
    back = copy.make(f"MODELS={LITE}", "GPU=cpu")
    assert counts(back) == Counts(current=2)
    restored = copy.repository.model_index(LITE)
    assert restored is not None
    assert restored.disabled == ()


def test_a_maintainers_photos_make_another_engine_and_stay_his(low: Farm, tmp_path: Path) -> None:
    copy = low.copy(tmp_path)
    photos = tmp_path / "private"
    photos.mkdir()
    random = np.random.default_rng(0)
    originals = [Image.open(path).convert("RGB") for path in calibration_paths()]
    for number in range(32):
        photo = originals[number % len(originals)]
        left, top = (int(random.integers(0, size // 4)) for size in photo.size)
        box = (left, top, left + photo.width // 2, top + photo.height // 2)
        photo.crop(box).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"not a photo")
    done = copy.make(f"MODELS={LITE}", "GPU=cpu", "PRECISION=int8", f"CALIBRATION={photos}")
    assert "broken.png" in done.stdout
    # An attempt that misses while a proven engine is published is a failure; the engine stays.
    assert counts(done) in (Counts(published=1), Counts(failed=1))
    index = copy.repository.model_index(LITE)
    assert index is not None
    assert any("int8" in label for entry in index.current for label in entry.targets)
    stored = b"".join(path.read_bytes() for path in copy.store.rglob("*.json"))
    assert b"a maintainer's folder" in stored
    assert str(photos).encode() not in stored
    refused = copy.make(f"MODELS={LITE}", "GPU=cpu", f"CALIBRATION={tmp_path / 'nowhere'}")
    assert refused.returncode != 0
    assert str(tmp_path / "nowhere") in refused.stderr
