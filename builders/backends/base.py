"""The interface of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.schema.keys import BuildInputs
from zoo.schema.measurements import EngineFacts
from zoo.schema.runtimes import title_of
from zoo.schema.targets import Toolchain
from zoo.util.errors import BuildError, UsageError
from zoo.util.names import perhaps


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a backend read from an engine that it built.

    Attributes:
        values: Header, layers and types of the engine, for its record.
        precision_proven: Whether the engine was inspected to confirm its precision.
        files: Other files to publish with the engine, by name, such as the inspector's JSON.
        timing_cache: The timing cache after the build, None if there is none.
    """

    values: EngineFacts = field(default_factory=EngineFacts)
    precision_proven: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    timing_cache: Path | None = None


class Options(BaseModel):
    """Builder options of a backend. All of them, defaults included, are part of the build key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyOptions = TypeVar("AnyOptions", bound=Options)


class Backend(Protocol):
    """Builds engines of one runtime."""

    def options(self, toolchain: Toolchain, requested: Mapping[str, str]) -> Options:
        """Returns the builder options. It does not import the runtime's library.

        Args:
            toolchain: The toolchain that will build.
            requested: The options in ``BUILDER=``, name to value.

        Raises:
            UsageError: An option is unknown, or its value is not allowed.
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
        """Builds an engine and inspects it.

        Args:
            onnx: The normalised ONNX.
            inputs: The architectures, batch ranges and options to build for.
            engine: Where to write the engine; other files are written beside it.
            parameters: Number of the network's weights.
            timing_cache: The timing cache of earlier builds on this GPU with this toolchain, None
                if there is none; or the tactics that the options lock.

        Returns:
            What was read from the engine.

        Raises:
            BuildError: The build failed, or the engine does not match its inputs.
        """
        ...


def read_options(
    defaults: AnyOptions, toolchain: Toolchain, requested: Mapping[str, str]
) -> AnyOptions:
    """Returns a backend's default options, updated with those requested.

    Args:
        defaults: The defaults.
        toolchain: The toolchain that will build, for the message.
        requested: Name to value, as text.

    Raises:
        UsageError: An option is unknown, or its value is not allowed.
    """
    kind = type(defaults)
    title = f"{title_of(toolchain.kind)} {toolchain.version}"
    for name in requested:
        if name not in kind.model_fields:
            names = list(kind.model_fields)
            raise UsageError(
                f"{title} has no builder option '{name}'.{perhaps(name, names)}",
                hint="BUILDER= takes "
                + ", ".join(f"{known}={getattr(defaults, known)}" for known in names),
            )
    try:
        return kind.model_validate({**defaults.model_dump(), **requested})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"builder option {name}={problem['input']}: {message[0].lower()}{message[1:]}",
            hint=f"the default of {title} is {name}={getattr(defaults, name, '')}",
        ) from error


def options_of(inputs: BuildInputs, kind: type[AnyOptions]) -> AnyOptions:
    """Returns the builder options in a build's inputs.

    Raises:
        BuildError: The backend does not have these options: another version of the farm chose them.
    """
    try:
        return kind.model_validate(inputs.options)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        raise BuildError(
            f"builder option {name}: {problem['msg']}",
            hint="farm and worker must run the same version of this project",
        ) from error
