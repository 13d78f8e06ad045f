"""Which engines a machine can verify, why it can't, and what is said of their verdicts."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console
from support.goldens import assert_golden
from support.records import engine_entry, toolchain
from support.signed_repository import LABEL, ROW, TOLERANCE, Signed

from builders.executors.local import LocalExecutor
from builders.jobs.progress import Display
from builders.publish.candidates import Proposals
from builders.publish.publisher import Published
from builders.run.reverify import Reverified, Reverifier, need, summarise, why_not
from zoo.client.selection import Machine
from zoo.schema.index import EngineEntry
from zoo.util.clock import utc_now
from zoo.util.errors import TrustError


def test_what_an_engine_needs_is_compared_with_what_a_machine_has() -> None:
    entry = engine_entry("sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16", status="pending")
    assert need(entry) == "sm86 or sm89 with TensorRT-RTX 1.7.1.116"
    fits = Machine(archs=("sm89", "cpu"), toolchains=(toolchain("rtx", "1.7.1.116"),))
    assert why_not(entry, fits) is None
    other = Machine(archs=("sm89", "cpu"), toolchains=(toolchain("rtx", "1.7.2.1"),))
    assert why_not(entry, other) == "requires TensorRT-RTX 1.7.1.116; 1.7.2.1 is installed"


def verify(
    signed: Signed,
    monkeypatch: pytest.MonkeyPatch,
    publish: Callable[[], Published] | None = None,
    models: tuple[str, ...] | None = ("m",),
) -> tuple[Reverified, str]:
    """Verifies the CPU engines of models, all of which pass; returns what was said, too."""

    def passes(
        self: Reverifier, label: str, model: str, entry: EngineEntry, manifest: object
    ) -> None:
        signed.attest(entry.engine, time=utc_now(), key="7" * 64)

    monkeypatch.setattr(Reverifier, "_verify", passes)
    said = StringIO()
    machine = Machine(archs=("cpu",), toolchains=(toolchain("ort", "1.32.0"),))
    proposals = Proposals(signed.repository, publish or signed.publish)
    console = Display(Console(file=said, width=200))
    executor = LocalExecutor()
    reverifier = Reverifier(signed.repository, executor, console, signed.folder, machine, proposals)
    proven = reverifier.run({}, {}, models, pending_only=False)
    return proven, said.getvalue() + "\n".join(summarise(proven))


def statuses(signed: Signed) -> dict[str, str]:
    indexes = signed.repository.model_indexes()
    return {index.model: entry.status for index in indexes for entry in index.engines}


def test_a_verified_engine_that_stays_withdrawn_is_not_called_verified(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = signed.release()
    body = {"reason": "it leaks", "by": "a maintainer"}
    signed.attest(record.engine, kind="withdrawn", time="2026-02-01T00:00:00.000000Z", body=body)
    proven, said = verify(signed, monkeypatch)
    assert proven.withdrawn == {f"m {LABEL}": "it leaks"}
    assert statuses(signed) == {"m": "withdrawn"}
    assert_golden("run/verified-and-withdrawn", said)


def test_a_verdict_is_that_of_all_models_with_the_engine(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("m", "twin"):
        record = signed.release(model)
    body = {"reason": "row 3 is far", "batches": [ROW], "tolerance": TOLERANCE}
    signed.attest(record.engine, kind="withdrawn", time="2026-02-01T00:00:00.000000Z", body=body)
    for model in ("m", "twin"):
        signed.propose(*signed.repository.records(model))
    signed.publish()
    assert statuses(signed) == {"m": "withdrawn", "twin": "withdrawn"}
    _, said = verify(signed, monkeypatch)
    assert statuses(signed) == {"m": "verified", "twin": "verified"}
    assert_golden("run/verified-together", said)
    assert "twin: " not in verify(signed, monkeypatch, models=None)[1]  # it has its own line


def test_a_signature_that_fails_does_not_stop_the_others(
    signed: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("m", "other"):
        signed.release(model, model.encode())

    def refuse() -> Published:
        raise TrustError("the publisher key was rotated")

    proven, _ = verify(signed, monkeypatch, refuse, models=None)
    assert proven.failed.keys() == {"m", "other"}
    assert proven.verified == [f"m {LABEL}", f"other {LABEL}"]
