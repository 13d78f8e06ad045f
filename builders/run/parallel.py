"""Calls a function for many items, in threads if the executor has several slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(
    function: Callable[[T], R], items: Iterable[T], at_once: int, stop: Callable[[], None]
) -> list[R]:
    """Calls a function with each item.

    Args:
        function: The function; called from several threads unless ``at_once`` is 1.
        items: Its arguments.
        at_once: Most calls at the same time.
        stop: Makes running calls end soon; called if a call raises, or on an interrupt.

    Returns:
        The results, in the order of the items.

    Raises:
        Exception: The first that a call raised.
    """
    if at_once <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        calls = [pool.submit(function, item) for item in items]
        try:
            done, _ = wait(calls, return_when=FIRST_EXCEPTION)
            if failed := next((call for call in done if call.exception()), None):
                failed.result()
        except BaseException:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [call.result() for call in calls]
