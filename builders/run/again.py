"""The command that shows a failure of a night again, on whichever machine the night ran."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from builders.planning.options import OPTIONS
from zoo.schema.targets import EngineName, on_gpu

_OF_LABEL = ("--gpu", "--trt", "--precision")
_OF_ENGINE = ("--models", *_OF_LABEL)
"""Options that say which engine is meant: its label gives them, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a night was run with, as far as it is not the default.

    Attributes:
        manifests: The folder of manifests; empty for the default.
        values: From option of ``zoo-farm zoo`` to its value, empty for a switch.
    """

    manifests: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: argparse.Namespace, manifests: str = "") -> Again:
        """Returns what options were given.

        Args:
            given: Options of a command; those that it lacks have their defaults.
            manifests: The folder of manifests; empty for the default.
        """
        values = {
            option.flag: "" if option.switch else str(value)
            for option in OPTIONS
            if "zoo" in option.takes and (value := getattr(given, option.variable.lower(), None))
        }
        return cls(manifests=manifests, values=values)

    def command(self, name: EngineName, *, retry: bool = False) -> str:
        """Returns the command that repeats what was done for a model or an engine.

        Args:
            name: The model or engine.
            retry: Whether the engine is disabled since, and would not be tried again otherwise.
        """
        label = name.label
        chosen = {"--models": name.model}
        if label is None:
            chosen |= {flag: text for flag, text in self.values.items() if flag in _OF_LABEL}
        else:
            chosen["--gpu"] = ",".join(label.archs)
            if on_gpu(label.runtime.kind):
                chosen["--trt"] = label.runtime.asked
            if label.precision:
                chosen["--precision"] = label.precision
        chosen |= {flag: text for flag, text in self.values.items() if flag not in _OF_ENGINE}
        if retry:
            chosen["--retry"] = ""
        before = ["--manifests", self.manifests] if self.manifests else []
        given = [word for pair in chosen.items() for word in pair if word]
        return shlex.join(["zoo-farm", *before, "zoo", *given])
