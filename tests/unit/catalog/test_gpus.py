"""GPUs by the names that people and nvidia-smi give them."""

from __future__ import annotations

import pytest
from support.goldens import assert_golden

from zoo.catalog.gpus import gpu_table, read_archs
from zoo.util.errors import UsageError


@pytest.mark.parametrize(
    ("text", "archs"),
    [
        ("", []),
        (" , ", []),
        ("cpu", ["cpu"]),
        ("sm86,sm89", ["sm86", "sm89"]),
        ("sm86 rtx4090", ["sm86", "sm89"]),
        ("rtx3080", ["sm86"]),
        ("RTX 3080", ["sm86"]),
        ("NVIDIA GeForce RTX 3080 Laptop GPU, sm90", ["sm86", "sm90"]),
        ("NVIDIA A100-SXM4-80GB", ["sm80"]),
        ("NVIDIA H100 80GB HBM3", ["sm90"]),
        ("Tesla T4", ["sm75"]),
        ("NVIDIA RTX 6000 Ada Generation", ["sm89"]),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", ["sm120"]),
    ],
)
def test_a_gpu_is_known_by_any_of_its_names(text: str, archs: list[str]) -> None:
    assert [arch.name for arch in read_archs(text)] == archs


def test_every_product_of_the_table_is_known() -> None:
    for arch, listed in gpu_table().items():
        assert {one.name for name in listed.products for one in read_archs(name)} == {arch}


@pytest.mark.parametrize(
    "text", ["rtx308", "sm87", "sm86 zz", "NVIDIA GeForce RTX 9999", "nvidia", "sm90,RTX"]
)
def test_an_unknown_gpu_is_an_error_that_names_products(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_archs(text)
    assert "rtx3080" in str(caught.value.hint)
    assert_golden(f"catalog/unknown-gpu-{text}", str(caught.value))
