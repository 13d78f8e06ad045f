"""Timing caches of standard TensorRT: times of earlier builds, or the tactics of one engine.

A build that records its tactics begins with an empty, editable cache, which then has the tactic of
every layer that was timed. A build with that cache and an error on every miss chooses the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.backends.tensorrt_api import RECORDED, TensorRTOptions
from zoo.util.errors import BuildError

_AGAIN = "BUILDER=tactics=recorded chooses tactics anew, and records them"


class TimingCache:
    """The timing cache of a build.

    Attributes:
        outcome: What became of it, in words.
        keeps_tactics: Whether it has the tactics of this engine, and nothing else.
        locked: Whether the build may use no other tactics.

    Args:
        path: The cache to begin with, None for an empty one.
        options: The builder options.
    """

    def __init__(self, path: Path | None, options: TensorRTOptions) -> None:
        self.outcome = "none yet for this GPU and TensorRT"
        self.locked = options.tactics_lock is not None
        self.keeps_tactics = self.locked or options.tactics == RECORDED
        self._path = path if options.timing_cache or self.locked else None
        self._config: Any = None
        self._before: dict[str, int] = {}
        if options.tactics == RECORDED:
            self._path = None

    def load_into(self, config: Any, trt: Any) -> None:
        """Sets the cache of a builder's config; rejected times are done without.

        Args:
            config: The config.
            trt: The ``tensorrt`` module.

        Raises:
            BuildError: TensorRT rejects locked tactics.
        """
        self._config = config
        if self.keeps_tactics:
            config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)
        if self.locked:
            config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
        if self._path is None:
            if self.keeps_tactics:
                config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
            return
        cache = config.create_timing_cache(self._path.read_bytes())
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            self.outcome = "accepted"
            self._before = _tactics(cache) if self.locked else {}
            return
        if self.locked:
            raise BuildError(
                "TensorRT rejects the locked tactics: they were recorded on another GPU, or with "
                "another TensorRT or CUDA",
                hint=_AGAIN,
            )
        self.outcome = "rejected by TensorRT; built without it"
        print(f"timing cache {self._path.name}: {self.outcome}")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def check(self) -> None:
        """Checks the tactics of the engine that was built.

        Raises:
            BuildError: None were recorded, or others were chosen than the locked ones.
        """
        if not self.keeps_tactics:
            return
        chosen = _tactics(self._config.get_timing_cache())
        if not chosen:
            raise BuildError("TensorRT recorded no tactics of this engine", hint=_AGAIN)
        if self.locked and chosen != self._before:
            names = [name for name in chosen if chosen[name] != self._before.get(name)]
            raise BuildError(
                f"TensorRT chose other tactics than the locked ones, for {len(names)} of "
                f"{len(chosen)} keys",
                hint=_AGAIN,
            )
        self.outcome = f"{len(chosen)} tactics {'locked' if self.locked else 'recorded'}"

    def failure(self, cause: str, told: str | None) -> BuildError:
        """Returns the error for a build that TensorRT gave up.

        Args:
            cause: What it said last.
            told: What it said before.
        """
        if not self.locked:
            return BuildError(f"TensorRT can't build the ONNX: {cause}", hint=told)
        return BuildError(
            f"TensorRT can't build the ONNX with the locked tactics: {cause}",
            hint="\n".join(
                filter(None, (told, f"if network, batch sizes or options have changed, {_AGAIN}"))
            ),
        )


def _tactics(cache: Any) -> dict[str, int]:
    """Returns the tactic of each key of an editable cache."""
    return {str(key): int(cache.query(key).tacticHash) for key in cache.queryKeys()}
