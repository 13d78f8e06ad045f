"""A model's builds: their keys and inputs, including the backend's builder options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

from builders.backends import get_backend
from builders.backends.base import Options
from builders.planning import wanted as plan
from builders.planning.wanted import Wanted
from zoo.schema.keys import BuildInputs, KeyTemplate, json_text
from zoo.schema.manifest import BatchRange, Manifest, Preprocess
from zoo.schema.records import ExportRecord
from zoo.schema.runtimes import is_portable
from zoo.schema.targets import Toolchain

_Builder: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Build:
    """A build, whose inputs are made if something beside its key is needed.

    Attributes:
        key: SHA-256 of the canonical JSON of its inputs.
        alike: Inputs that may differ in model, ONNX and preprocessing.
        model: Manifest id.
        onnx: Digest of the normalised ONNX.
        preprocess: The preprocessing.
    """

    key: str
    alike: BuildInputs
    model: str
    onnx: str
    preprocess: Preprocess

    @classmethod
    def of(cls, inputs: BuildInputs) -> Build:
        """Returns the build of these inputs."""
        return cls(
            key=inputs.key, alike=inputs, model=inputs.model, onnx=inputs.onnx,
            preprocess=inputs.preprocess,
        )  # fmt: skip

    @cached_property
    def inputs(self) -> BuildInputs:
        """Everything that determines the engine."""
        own = {"model": self.model, "onnx": self.onnx, "preprocess": self.preprocess}
        return self.alike.model_copy(update=own)


@dataclass(frozen=True)
class _Template:
    alike: BuildInputs
    keys: KeyTemplate


class ModelBuilds:
    """Makes one model's builds.

    Args:
        manifest: The model.
        builder: Requested builder options, name to value.
    """

    def __init__(self, manifest: Manifest, builder: Mapping[str, str]) -> None:
        self._manifest, self._builder = manifest, tuple(builder.items())
        self._preprocess = manifest.preprocess.plain
        self._model_json = json_text(manifest.id)
        self._preprocess_json = json_text(self._preprocess.model_dump(mode="json"))
        self._of_profiles: dict[tuple[int, bool, bool], dict[Wanted, _Template]] = {}

    def build(self, wanted: Wanted, export: ExportRecord) -> Build:
        """Returns the build of an engine.

        Args:
            wanted: The engine.
            export: The ONNX that it is built from.
        """
        templates = self._templates(wanted, export.largest_tensor)
        if (template := templates.get(wanted)) is None:
            options = _options(wanted.toolchain, self._builder)
            alike = plan.build_inputs(self._manifest, wanted, export, options)
            template = _Template(alike, KeyTemplate(alike, "model", "onnx", "preprocess"))
            templates[wanted] = template
        onnx = export.onnx.sha256
        key = template.keys.key(self._model_json, f'"{onnx}"', self._preprocess_json)
        return Build(
            key=key, alike=template.alike, model=self._manifest.id, onnx=onnx,
            preprocess=self._preprocess,
        )  # fmt: skip

    def _templates(self, wanted: Wanted, largest_tensor: int) -> dict[Wanted, _Template]:
        """Returns what models share whose engines have the same batch ranges."""
        of = largest_tensor, wanted.archs[0].is_cpu, is_portable(wanted.toolchain.kind)
        if of not in self._of_profiles:
            profiles = plan.profiles_of(self._manifest.batch, *of)
            self._of_profiles[of] = _shared(profiles, self._builder)
        return self._of_profiles[of]


@lru_cache(maxsize=256)
def _shared(profiles: tuple[BatchRange, ...], builder: _Builder) -> dict[Wanted, _Template]:
    """Returns the templates of builds with these batch ranges and options, filled as needed."""
    return {}


@lru_cache(maxsize=256)  # the same for all models
def _options(toolchain: Toolchain, builder: _Builder) -> Options:
    return get_backend(toolchain.kind).options(toolchain, dict(builder))
