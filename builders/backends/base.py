"""The interface of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.schema.keys import BuildInputs
from zoo.schema.runtimes import title_of
from zoo.schema.targets import Toolchain
from zoo.util.errors import UsageError
from zoo.util.names import perhaps


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a backend read from a finished engine.

    Attributes:
        values: Header version, capabilities, what the graph computes in; goes into the record.
        precision_proven: Whether the engine itself was asked what precision it runs in.
        files: Name to file of what is kept beside the engine, such as the inspector's JSON.
        timing_cache: The timing cache as it is after the build, where there is one.
    """

    values: dict[str, Any] = field(default_factory=dict)
    precision_proven: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    timing_cache: Path | None = None


class Options(BaseModel):
    """Builder options of a backend: with their defaults, all part of the build key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Backend(Protocol):
    """Builds engines of one runtime."""

    def options(self, toolchain: Toolchain, asked: Mapping[str, str]) -> dict[str, Any]:
        """Returns the builder options; they are part of the build key. Imports nothing heavy.

        Args:
            toolchain: What will build.
            asked: What ``BUILDER=`` says, name to value.

        Raises:
            UsageError: There is no such option, or not that value.
        """
        ...

    def build(
        self,
        onnx: Path,
        inputs: BuildInputs,
        engine: Path,
        *,
        parameters: int,
        timing_cache: Path | None = None,
    ) -> Facts:
        """Builds an engine and reads it back.

        Args:
            onnx: The normalised ONNX.
            inputs: What to build: architectures, batch ranges, options.
            engine: Where the engine goes; other files go beside it.
            parameters: Number of the network's weights.
            timing_cache: Of earlier builds on this GPU by this toolchain, None without one.

        Returns:
            What the engine says of itself.

        Raises:
            BuildError: It does not build, or the engine is not what was asked for.
        """
        ...


def read_options(
    defaults: Options, toolchain: Toolchain, asked: Mapping[str, str]
) -> dict[str, Any]:
    """Returns a backend's options with those that were asked for.

    Args:
        defaults: The backend's own.
        toolchain: What will build, for the message.
        asked: Name to value, as text.

    Raises:
        UsageError: There is no such option, or not that value.
    """
    kind = type(defaults)
    name = f"{title_of(toolchain.kind)} {toolchain.version}"
    for option in asked:
        if option not in kind.model_fields:
            names = list(kind.model_fields)
            raise UsageError(
                f"{name} has no builder option '{option}'.{perhaps(option, names)}",
                hint="BUILDER= takes "
                + ", ".join(f"{one}={value}" for one, value in defaults.model_dump().items()),
            )
    try:
        read = kind.model_validate({**defaults.model_dump(), **asked})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise UsageError(
            f"builder option {where}={problem['input']}: {problem['msg']}",
            hint=f"the default of {name} is {where}={getattr(defaults, where, '')}",
        ) from error
    return read.model_dump(mode="json")
