"""The interface of a backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.key import BuildInputs


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a backend read from a finished engine.

    Attributes:
        values: Header version, capabilities, what the graph computes in; goes into the record.
        precision_proven: Whether the engine itself was asked what precision it runs in.
    """

    values: dict[str, Any] = field(default_factory=dict)
    precision_proven: bool = False


class Backend(Protocol):
    """Builds engines of one runtime."""

    def options(self) -> dict[str, Any]:
        """Returns the builder options; they are part of the build key. Imports nothing heavy."""
        ...

    def build(self, onnx: Path, inputs: BuildInputs, engine: Path) -> Facts:
        """Builds an engine and reads it back.

        Args:
            onnx: The normalised ONNX.
            inputs: What to build: architectures, batch range, options.
            engine: Where the engine goes.

        Returns:
            What the engine says of itself.

        Raises:
            BuildError: It does not build, or the engine is not what was asked for.
        """
        ...
