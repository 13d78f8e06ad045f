"""Turns with a decoder: one thread of all processes at a time, and none waits for a dead one."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from zoo.inference.gpu import turns
from zoo.inference.gpu.turns import Turns

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

OTHER = """
import sys
from zoo.inference.gpu import turns
turns.share(int(sys.argv[1]))
with turns.mine():
    print("taken", flush=True)
    sys.stdin.readline()
"""


def other(file: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, str(file)],
        pass_fds=(file,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("end", ["left", "killed"])
def test_another_process_is_waited_for(end: str) -> None:
    with turns.new() as file:
        assert file is not None
        process = other(file)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "taken\n"
        ended: list[bool] = []

        def take() -> None:
            with Turns(file):
                ended.append(process.stdin is None or process.stdin.closed)

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        if end == "killed":
            process.kill()
        process.stdin.close()
        thread.join()
        assert ended == [True]
        assert process.wait() == (0 if end == "left" else -9)
        process.stdout.close()


def test_threads_take_turns() -> None:
    inside, most = 0, 0
    taken = Turns()

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with taken:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_a_turn_ends_with_an_error() -> None:
    taken = Turns()
    with pytest.raises(KeyError), taken:
        raise KeyError
    with taken:
        pass
