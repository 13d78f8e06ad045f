"""`zoo doctor` on a real repository."""

from __future__ import annotations

import json
from pathlib import Path

from support.make_farm import Farm
from support.models import LITE


def test_every_line_is_ok_or_what_to_do(farm: Farm, tmp_path: Path) -> None:
    done = farm.zoo("doctor", "--json", **farm.trusted_in(tmp_path / "home"))
    findings = json.loads(done.stdout)
    checks = {one["check"]: one for one in findings}
    assert checks["store"]["found"] == f"{farm.store}: 1 model"
    assert set(checks) >= {"software", "gpu", "runtime", "store", "trust", "clock", "disk"}
    assert all(one["state"] == "ok" or one["do"] for one in findings)
    failed = [one for one in findings if one["state"] == "fail"]
    assert done.returncode == bool(failed)
    lacking = farm.zoo("doctor", ZOO_STORE=str(tmp_path / "nowhere"))
    assert lacking.returncode == 1
    assert "fail  store" in lacking.stdout
    assert "note  clock" in lacking.stdout
    assert "make zoo" in lacking.stdout


def test_the_cache_is_listed_checked_and_pruned(farm: Farm, tmp_path: Path) -> None:
    home = farm.trusted_in(tmp_path)
    assert "0 files" in farm.zoo("cache", "ls", **home).stdout
    engine = Path(farm.zoo("pull", LITE, **home).stdout.strip())
    assert f"{engine.name} {LITE} cpu-ort1.32-" in farm.zoo("cache", "ls", **home).stdout
    assert "1 engine verified" in farm.zoo("cache", "verify", **home).stdout
    data = engine.read_bytes()
    engine.write_bytes(data[:-1] + b"x")
    broken = farm.zoo("cache", "verify", **home)
    assert broken.returncode == 10
    assert engine.name[:12] in broken.stderr
    assert not engine.exists()
    assert farm.zoo("pull", LITE, **home).returncode == 0
    assert "0 files removed" in farm.zoo("cache", "prune", **home).stdout
    for days in ("-1", "nan", "soon"):
        refused = farm.zoo("cache", "prune", f"--days={days}", **home)
        assert refused.returncode == 2
        assert f"--days: {days} " in refused.stderr
    assert "1 file removed" in farm.zoo("cache", "prune", "--days", "0", **home).stdout
    assert not engine.exists()
