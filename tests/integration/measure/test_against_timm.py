"""The comparison with timm: what its side computes, and the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.against_timm import HEADINGS, photos, table, timm_rows
from builders.export.anatomy import Anatomies
from builders.export.backbone import Backbone, create
from builders.export.draft import Wishes, draft
from builders.measure.beside_timm import BesideTimm
from builders.verify.metrics import compare_rows
from zoo.inference.preprocess import batch_of
from zoo.schema.measurements import Cost


@pytest.mark.parametrize(
    ("name", "wishes"),
    [("test_convnext.r160_in1k", Wishes(input_size=128)), ("test_vit.r160_in1k", Wishes())],
)
def test_our_photos_and_cut_give_what_timms_give(name: str, wishes: Wishes) -> None:
    manifest = draft(name, wishes, {}, Anatomies()).manifest
    torch.manual_seed(0)
    network = create(manifest).eval()
    images = photos()
    assert len({image.size for image in images}) >= 6
    expected = timm_rows(manifest, network, images)
    assert expected.shape == (len(images), manifest.backbone.feature_dim)
    with torch.inference_mode():
        batch = torch.from_numpy(batch_of(images, manifest.preprocess.plain))
        ours = Backbone(network, manifest.backbone)(batch).numpy()
    numbers = compare_rows(ours, expected, expected)
    assert numbers.worst_cosine is not None
    assert numbers.worst_cosine > 0.99999
    shifted = manifest.model_copy(
        update={"preprocess": manifest.preprocess.model_copy(update={"crop": 0.5})}
    )
    assert np.array_equal(timm_rows(shifted, network, images), expected)  # timm's, not ours


def test_an_engine_that_did_not_run_has_no_numbers() -> None:
    cost = Cost(seconds=12.0, peak_memory=3 * 2**29, proof_seconds=None)
    row = BesideTimm(
        model="vit", targets="sm86-rtx1.7-fp16", status="pending", export=cost, build=cost,
        size=2**21, seeded=True,
    )  # fmt: skip
    heading, rule, line = table([row])
    assert heading.count("|") == rule.count("|") == line.count("|") == len(HEADINGS) + 1
    assert line == ("| vit | sm86-rtx1.7-fp16 | pending |  |  | 12 | 1.5 | 12.0 |  | 1.5 | 2.0 |")
