"""Executors: where a worker runs."""

from builders.executors.base import Executor, Outcome
from builders.executors.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor", "Outcome"]
