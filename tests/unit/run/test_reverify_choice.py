"""Which pending engines a machine can verify, and why it can't."""

from __future__ import annotations

from support.records import engine_entry, toolchain

from builders.run.reverify import need, why_not
from zoo.client.selection import Machine


def test_what_an_engine_needs_is_compared_with_what_a_machine_has() -> None:
    entry = engine_entry("sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16", status="pending")
    assert need(entry) == "sm86 or sm89 with TensorRT-RTX 1.7.1.116"
    fits = Machine(archs=("sm89", "cpu"), toolchains=(toolchain("rtx", "1.7.1.116"),))
    assert why_not(entry, fits) is None
    other = Machine(archs=("sm89", "cpu"), toolchains=(toolchain("rtx", "1.7.2.1"),))
    assert why_not(entry, other) == "requires TensorRT-RTX 1.7.1.116; 1.7.2.1 is installed"
