"""How many threads train a head: more than one only where that is faster."""

from __future__ import annotations

import time

import pytest
import torch

from zoo.caft.train import _threads_for


@pytest.mark.parametrize(("slow", "chosen"), [(2, 1), (1, 2)])
def test_the_faster_number_is_chosen(
    slow: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: threads.__setitem__(0, count))
    relu = torch.relu

    def step(values: object) -> object:
        if threads[0] == slow:
            time.sleep(0.02)
        return relu(values)

    monkeypatch.setattr(torch, "relu", step)
    assert _threads_for(1024, (512, 64, 5), "cpu") == chosen
    assert threads == [2]  # as before


def test_a_small_step_needs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert _threads_for(32, (512, 5), "cpu") == 1
    assert _threads_for(1024, (25088, 512, 5), "cuda") == 64
