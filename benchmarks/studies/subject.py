"""The model of a study, exported once for all methods and kept in the study's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders import weights
from builders.export import onnx as export
from builders.photos import bundled as photos
from builders.photos.calibration import shipped
from builders.precision import Images
from builders.recipe.export_form import DIALECTS
from builders.weights.hub_errors import UnreachableError
from builders.weights.mode import WeightsMode
from zoo.inference.preprocess import normalise
from zoo.schema.manifest import Manifest
from zoo.util.errors import UnlockedError
from zoo.util.files import whole

if TYPE_CHECKING:
    import onnx

    from builders.export.backbone import Backbone


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to study.

    Attributes:
        manifest: The model.
        folder: Holds ``fp32.onnx`` and ``golden.npz``, for a study of fp16 also ``half.onnx``, and
            the methods' files.
        seeded: Whether its weights are seeded ones.
        photos: Number of golden photos that features are compared on.
    """

    manifest: Manifest
    folder: Path
    seeded: bool
    photos: int = photos.GOLDEN_COUNT

    def fp32(self) -> onnx.ModelProto:
        """Returns a new copy of the fp32 ONNX."""
        import onnx

        return onnx.load(self.folder / "fp32.onnx")

    def golden(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Returns normalised golden photos and PyTorch's fp32 features of them."""
        with np.load(self.folder / "golden.npz") as arrays:
            images, features = arrays["images"], arrays["features"]
        rows = np.arange(self.photos) * len(images) // self.photos
        return normalise(images[rows], self.manifest.preprocess.plain), features[rows]

    def calibration(self) -> Images:
        """Returns the images that methods may use; no golden photo is among them."""
        preprocess = self.manifest.preprocess.plain
        pixels, evaluated = shipped().pixels(preprocess)
        images = normalise(pixels, preprocess)
        return Images(all=images, evaluated=images[evaluated])


def prepare(
    manifest: Manifest,
    manifest_dir: Path,
    folder: Path,
    say: Callable[[str], None],
    *,
    dialect: str = DIALECTS["dynamo-20"],
    half: bool = False,
    photo_count: int = photos.GOLDEN_COUNT,
) -> Subject:
    """Exports a model in fp32 unless its folder has the export.

    Hub weights that are not locked, or that no hub can be asked for, are replaced by seeded ones.

    Args:
        manifest: The model.
        manifest_dir: Folder of the manifest, which paths of local weights are relative to.
        folder: Folder for the model's files.
        say: Called with progress messages.
        dialect: Exporter and opset.
        half: Whether to export PyTorch's ``.half()`` too.
        photo_count: Number of golden photos that features are compared on.

    Raises:
        ExportError: The model can't be exported.
        WeightsError: The weights are unavailable or differ from the manifest.
    """
    try:
        weights.identify(manifest, WeightsMode.MANIFEST)
        weights.fetch(manifest, manifest_dir)
        seeded = False
    except (UnlockedError, UnreachableError) as error:
        say(f"{error.message}: seeded weights are studied")
        seeded = True
    subject = Subject(manifest=manifest, folder=folder, seeded=seeded, photos=photo_count)
    fp32, halved = folder / "fp32.onnx", folder / "half.onnx"  # written in this order
    if (halved if half else fp32).is_file():
        return subject
    folder.mkdir(parents=True, exist_ok=True)
    say("exporting")
    cut, size = _backbone(subject, manifest_dir), manifest.preprocess.input_size
    export.write_golden(cut, manifest, folder / "golden.npz")
    with whole(fp32) as partial:
        export.write_onnx(cut, size, partial, dialect)
    if half:
        with whole(halved) as partial:
            export.write_onnx(_halved(cut), size, partial, dialect)
    return subject


def _backbone(subject: Subject, manifest_dir: Path) -> Backbone:
    """Returns the model in PyTorch, with its weights."""
    from builders.export import backbone
    from builders.weights import seeded, state

    manifest = subject.manifest
    network = backbone.create(manifest)
    if subject.seeded:
        images = normalise(photos.statistics_photos(manifest.preprocess), manifest.preprocess.plain)
        network.load_state_dict(seeded.make_state(lambda: backbone.create(manifest), images))
    else:
        state.load_state(network, manifest, weights.fetch(manifest, manifest_dir))
    return backbone.Backbone(network, manifest.backbone)


def _halved(backbone: Backbone) -> Any:
    """Converts a backbone to fp16 weights in place; its input and output stay fp32."""
    import torch

    class Halved(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone.half()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.backbone(images.half())
            return features.float()

    return Halved()
