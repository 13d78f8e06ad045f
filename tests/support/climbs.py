"""Counts calls that go back up a layer, by callback or injection, which no import shows."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any

import tomllib

from support.paths import ROOT


@dataclass(frozen=True, order=True)
class Climb:
    """A function that is called from a lower layer than its own.

    Attributes:
        caller: Module and function that calls, ``builders.run.exports: make``.
        called: Module and function that is called.
    """

    caller: str
    called: str


@dataclass
class Climbs:
    """The calls of a run.

    Attributes:
        calls: Number of calls between functions of different rooms.
        up: Those of them that go up, with how often.
    """

    calls: int = 0
    up: Counter[Climb] = field(default_factory=Counter)


@cache
def layers() -> dict[str, int]:
    """Returns each room's layer in ``pyproject.toml``, 0 for the highest; zoo is below builders."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = [one for one in tools["importlinter"]["contracts"] if one["type"] == "layers"]
    found: dict[str, int] = {}
    for container in ("builders", "zoo"):
        (contract,) = [one for one in contracts if one["containers"] == [container]]
        below = max(found.values(), default=-1) + 1
        for number, layer in enumerate(contract["layers"]):
            found |= {f"{container}.{room.strip()}": below + number for room in layer.split(":")}
    return found


def room_of(frame: FrameType) -> str | None:
    """Returns the room that a frame's code is in, None if it is not the project's."""
    room = ".".join(frame.f_globals.get("__name__", "").split(".")[:2])
    return room if room in layers() else None


@contextmanager
def counted() -> Iterator[Climbs]:
    """Counts the calls of everything that runs inside, in new threads too."""
    climbs = Climbs()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (called := room_of(frame)) is None:
            return
        back = frame.f_back
        while back is not None and room_of(back) is None:
            back = back.f_back
        if back is None or (caller := room_of(back)) is None or caller == called:
            return
        climbs.calls += 1
        if layers()[called] < layers()[caller]:
            climbs.up[Climb(_name(back), _name(frame))] += 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield climbs
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _name(frame: FrameType) -> str:
    return f"{frame.f_globals['__name__']}: {frame.f_code.co_qualname}"
