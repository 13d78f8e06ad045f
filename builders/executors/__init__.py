"""Executors: run workers on this machine, in containers or on a cluster."""

from builders.executors.base import Executor, Outcome
from builders.executors.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor", "Outcome"]
