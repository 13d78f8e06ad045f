"""Threads of the farm work beside each other, and whoever measures an engine is alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from builders.executors.quiet import Quiet

SECONDS = 30  # until a test gives up


def test_threads_work_beside_each_other() -> None:
    quiet, meet = Quiet(), threading.Barrier(2, timeout=SECONDS)

    def work() -> None:
        with quiet.working(), quiet.working():  # a part of the work may say so again
            meet.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work) for _ in range(2)]:
            done.result(SECONDS)


def test_whoever_measures_is_alone() -> None:
    quiet, meet, here = Quiet(), threading.Barrier(3, timeout=SECONDS), []
    seen: list[int] = []

    def model() -> None:
        with quiet.working():
            meet.wait()  # all work at once
            for _ in range(20):
                with quiet.alone():
                    here.append(1)
                    seen.append(len(here))
                    here.pop()
                here.append(1)
                here.pop()

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(model) for _ in range(3)]:
            done.result(SECONDS)
    assert seen == [1] * 60


def test_work_begins_after_those_who_wait_to_measure() -> None:
    quiet, order = Quiet(), []
    waiting = threading.Event()

    def measure() -> None:
        with quiet.working():
            waiting.set()
            with quiet.alone():
                order.append("measured")

    def begin() -> None:
        with quiet.working():
            order.append("begun")

    with ThreadPoolExecutor(2) as pool:
        with quiet.working():
            first = pool.submit(measure)
            assert waiting.wait(SECONDS)
            while not quiet._waiting:  # it has stopped working, and waits for this thread
                pass
            second = pool.submit(begin)
        first.result(SECONDS)
        second.result(SECONDS)
    assert order == ["measured", "begun"]


def test_an_error_ends_it_for_all() -> None:
    quiet = Quiet()
    for state in (quiet.working, quiet.alone):
        with pytest.raises(ZeroDivisionError), state():
            _ = 1 / 0
    with quiet.alone():
        pass
