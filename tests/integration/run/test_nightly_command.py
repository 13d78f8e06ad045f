"""``make nightly`` when something fails: exit status, report, issue, and what stays published."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.make_farm import Farm
from support.models import LITE, SMALL
from support.nightly import night_of, verified
from support.paths import TESTS

STRICT = "[tolerance.fp32]\nrelative_error = 0.00000001\n\n"


def test_a_failed_export(dry_run_copy: Farm) -> None:
    """One of two models names a tag that timm lacks; the other is up to date."""
    night = night_of(dry_run_copy, "WEIGHTS=seeded", f"MODELS={SMALL},{LITE}", "GPU=cpu")
    assert night.status != 0
    assert night.run.current == 1
    assert {job.model for job in night.run.failed} == {LITE}
    (title, _, *body) = night.issue.splitlines()
    assert title.endswith("1 failure")
    assert any("'nothing_in1k'" in line for line in body)
    assert verified(dry_run_copy, SMALL) == {"cpu-ort1.32-fp32"}
    page = (dry_run_copy.folder / "site" / "report.html").read_text()
    assert "nothing_in1k" in page


def test_failed_weights(copy: Farm) -> None:
    """The hash in the manifest is not that of the package; what is published stays."""
    before = verified(copy, LITE)
    text = (copy.manifests / f"{LITE}.toml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("sha256 = ")]
    copy.edit(LITE, line, f'sha256 = "{"0" * 64}"')
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert night.status != 0
    assert {job.model for job in night.run.failed} == {LITE}
    assert LITE in night.issue
    assert verified(copy, LITE) == before


def test_a_failed_verification(copy: Farm) -> None:
    """The engine misses the manifest's new tolerance; the second night is no news."""
    copy.edit(LITE, "[catalog]", f"{STRICT}[catalog]")
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert night.status != 0
    assert night.failed == {f"{LITE} cpu-ort1.32-fp32"}
    assert "relative error" in night.issue
    assert verified(copy, LITE) == set()
    again = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert (again.status, again.issue, again.run.failed) == (0, "", ())


def test_one_broken_manifest_among_good_ones(copy: Farm) -> None:
    for name in ("not_toml", "unknown_field"):
        shutil.copy(TESTS / "manifests" / f"{name}.toml", copy.manifests)
    night = night_of(copy, "GPU=cpu", "PRECISION=fp32", f"MODELS={LITE},not_toml,unknown_field")
    assert night.status != 0
    assert {job.model for job in night.run.failed} == {"not_toml", "unknown_field"}
    assert night.run.current == 1
    assert "2 failures" in night.issue.splitlines()[0]
    assert verified(copy, LITE) == {"cpu-ort1.32-fp32"}


def test_a_calm_night(copy: Farm) -> None:
    path = Path(copy.folder / "_nightly" / "issue.md")
    path.parent.mkdir()
    path.write_text("of yesterday")
    night = night_of(copy, f"MODELS={LITE}", "GPU=cpu")
    assert (night.status, night.issue, night.run.failed, night.run.current) == (0, "", (), 1)
