"""What ``zoo doctor`` says of decoding on the GPU."""

from __future__ import annotations

import pytest

from zoo.cli.doctor import decoding
from zoo.inference.gpu.packages import GPU_PACKAGES


def test_all_packages() -> None:
    (finding,) = decoding(lambda package: "1.0", has_gpu=True)
    assert finding.state == "ok"
    assert all(package in finding.found for package in GPU_PACKAGES)


def test_a_missing_package_and_what_installs_it() -> None:
    missing = GPU_PACKAGES[1]
    (finding,) = decoding(lambda package: None if package == missing else "1.0", has_gpu=True)
    assert finding.state == "note"
    assert missing in finding.found
    assert GPU_PACKAGES[0] not in finding.found
    assert "caft-zoo[gpu-decode]" in finding.do


@pytest.mark.parametrize("version", [None, "1.0"])
def test_without_a_gpu_it_names_pillow(version: str | None) -> None:
    (finding,) = decoding(lambda package: version, has_gpu=False)
    assert (finding.state, finding.do) == ("ok", "")
    assert "Pillow" in finding.found
