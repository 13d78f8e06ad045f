"""A manifest on its way to an engine goes down the layers: no call goes back up to a higher one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.climbs import Climb, counted, layers
from support.histories import History
from support.models import SMALL
from support.paths import MANIFESTS

from builders.cli.main import main
from builders.publish import records
from builders.run.parallel import each
from zoo.schema.manifest import load_manifests


def nothing_new(history: History) -> None:
    history.run()


def miss(history: History) -> None:
    """An engine misses its tolerance, stricter ones are tried, and the precision is disabled."""
    history.world.passes = False
    history.run()


def crash(history: History) -> None:
    history.world.dies = True
    history.run()
    history.run()


def verify_again(history: History) -> None:
    history.run()
    history.floors(0.5)


def gpus(history: History) -> None:
    history.gpus, history.world.here = ("sm80", "sm86"), ("cpu", "sm86")
    history.run()
    history.gpus = ("sm86", "sm89")


def exports_that_miss(history: History) -> None:
    history.world.exportable = False


WAYS = [nothing_new, miss, crash, verify_again, gpus, exports_that_miss]


@pytest.mark.parametrize("before", WAYS, ids=[way.__name__ for way in WAYS])
def test_a_manifest_on_its_way_climbs_nowhere(
    before: Callable[[History], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records.provenance, "statement", lambda *_: {})
    history = History(load_manifests(MANIFESTS)[SMALL], tmp_path)
    with counted() as climbs:
        before(history)
        history.plan()
        history.run()
    assert climbs.calls > 500  # so many go from room to room
    assert climbs.up == {}


INJECTED = {
    # The entry point of both command lines calls the function of the chosen command.
    "builders.cli.plan: show_plan",
    # Keeps what `nvidia-smi` said, which several targets ask for.
    "builders.toolchains.elsewhere: _cached.<locals>.run_cached",
}


@pytest.mark.parametrize("target", [["--gpu", "cpu"], ["--gpu", "sm86", "--trt", "11.4"]])
def test_a_plan_on_the_command_line_climbs_only_where_it_has_to(
    target: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--manifests", str(MANIFESTS), "plan", "--store", str(tmp_path / "s")]
    words += ["--weights", "seeded", "--models", SMALL, *target]
    monkeypatch.setattr(sys, "argv", ["zoo-farm", *words])
    with counted() as climbs:
        assert main() == 0
    assert climbs.calls > 100
    assert {climb.called for climb in climbs.up} <= INJECTED


def test_a_call_back_up_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of ``builders.run`` that one of ``builders.publish`` is given."""
    from builders.publish.signing_limits import check_clock

    def called() -> list[int]:
        return each(int, ["1"], 1, lambda: None)

    source = "def lower(function):\n    return function()\n"
    lower: dict[str, Callable[[Callable[[], object]], object]] = {}
    exec(source, {"__name__": check_clock.__module__}, lower)
    with counted() as climbs:
        lower["lower"](called)
    (climb,) = climbs.up
    assert climb == Climb(f"{check_clock.__module__}: lower", f"{each.__module__}: each")


def test_layers_are_those_that_the_linter_holds() -> None:
    found = layers()
    assert found["builders.cli"] == 0
    assert found["builders.run"] < found["builders.publish"] < found["builders.paths"]
    assert found["builders.paths"] < found["zoo.cli"] < found["zoo.util"]
