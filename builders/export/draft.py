"""Drafts the manifest of a timm model from what timm and the network state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from pydantic import ValidationError

from builders.export.anatomy import Anatomies, Anatomy, choose_cut
from builders.export.backbone import import_timm
from builders.export.timm_facts import facts_of
from builders.planning.wanted import largest_batch
from builders.recipe.pretrained import PretrainedFacts
from zoo.schema.explain import SchemaNode, explain
from zoo.schema.licences import allowed_licences
from zoo.schema.manifest import (
    Argument,
    BackboneCut,
    Batches,
    BatchRange,
    CatalogText,
    Cut,
    Fact,
    HubWeights,
    Manifest,
    StatedPreprocess,
    sides,
)
from zoo.schema.precisions import Precision
from zoo.util.errors import ExportError, ManifestError, UsageError
from zoo.util.names import perhaps

UNKNOWN_LICENCE = "unknown"
_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
_LATENCY = BatchRange(opt=1, max=8)
_BULK, _CPU = 256, BatchRange(opt=4, max=16)
_NAMES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person wants otherwise than a draft would have it.

    Attributes:
        id: The manifest's id.
        family: Its family.
        cut: Where the features are taken.
        input_size: Pixels of the side; the network gets it as ``img_size`` if its size is fixed.
        at_test_size: Whether photos have the size that the weights are evaluated at.
    """

    id: str | None = None
    family: str | None = None
    cut: Cut | None = None
    input_size: int | None = None
    at_test_size: bool = False


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A drafted manifest.

    Attributes:
        manifest: The manifest.
        anatomy: What its network has.
        remarks: What a person should know or decide, by the path of a field.
    """

    manifest: Manifest
    anatomy: Anatomy
    remarks: Mapping[str, str]


def full_name(name: str) -> str:
    """Returns timm's name of weights, with the default tag of an architecture that has none.

    Raises:
        UsageError: timm has no such architecture or tag.
    """
    timm = import_timm()
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        near = perhaps(arch, timm.list_models())
        raise UsageError(
            f"timm has no architecture '{arch}'.{near}", hint="zoo-farm add --list 'PATTERN*'"
        )
    known = [other.partition(".")[2] for other in timm.list_pretrained(f"{arch}.*")]
    if not known:
        raise UsageError(
            f"timm has no weights of {arch}",
            hint="for weights of your own: docs/how-to/fine-tuned-checkpoint.md",
        )
    if tag and tag not in known:
        raise UsageError(
            f"timm has no tag '{tag}' of {arch}.{perhaps(tag, known)}",
            hint=f"it has {', '.join(known[:_NAMES_SHOWN])}"
            + (f" and {len(known) - _NAMES_SHOWN} more" if len(known) > _NAMES_SHOWN else ""),
        )
    return f"{arch}.{tag or timm.get_pretrained_cfg(arch).tag}"


def draft(name: str, wishes: Wishes, others: Mapping[str, Manifest], anatomies: Anatomies) -> Draft:
    """Drafts the manifest of weights.

    Args:
        name: timm's name, with the tag.
        wishes: What is wanted otherwise.
        others: The manifests that there are, by id.
        anatomies: Examines networks.

    Raises:
        ManifestError: No manifest can state these weights; says why.
        ExportError: The network does not run, or lacks the cut that is wanted.
    """
    facts = facts_of(import_timm().get_pretrained_cfg(name))
    if facts.repository is None:
        raise ManifestError(f"{name}: timm knows no repository of these weights on the hub")
    arguments, size = _arguments(facts, wishes), _size(facts, wishes)
    anatomy = anatomies.of(name, size, arguments)
    cut = _cut(name, anatomy, wishes.cut)
    try:
        manifest = Manifest(
            id=wishes.id or _free_id(name, others),
            family=wishes.family or _family(name, others),
            arch=name.partition(".")[0],
            tag=name.partition(".")[2],
            arguments=arguments,
            licence=facts.licence or UNKNOWN_LICENCE,
            origin=f"https://huggingface.co/{facts.repository}",
            weights=HubWeights(source="hub", repository=facts.repository),
            backbone=BackboneCut(cut=cut, feature_dim=anatomy.cuts[cut]),
            preprocess=_preprocess(facts, wishes),
            batch=batches(anatomy.elements),
            precisions=_PRECISIONS,
            deviations=_deviations(facts, size, wishes),
            catalog=_catalog(name, anatomy, cut, size),
        )
    except ValidationError as error:
        schema = cast(SchemaNode, Manifest.model_json_schema())
        problems = "; ".join(explain(problem, schema) for problem in error.errors())
        raise ManifestError(f"{name}: no manifest can state this: {problems}") from error
    return Draft(manifest=manifest, anatomy=anatomy, remarks=_remarks(manifest, facts, anatomy))


def as_exported(draft: Draft, elements: int, parameters: int) -> Draft:
    """Returns a draft with what only an export knows.

    Args:
        draft: The draft.
        elements: Elements of the ONNX's largest tensor for one photo.
        parameters: Number of weights that the cut needs: a network may have more before its
            classifier.
    """
    manifest, catalog = draft.manifest, draft.manifest.catalog
    drafted = _weights(draft.anatomy.parameters)
    lines = (_weights(parameters) if line == drafted else line for line in catalog.characteristics)
    told = catalog.model_copy(update={"characteristics": tuple(lines)})
    return replace(
        draft,
        manifest=manifest.model_copy(update={"batch": batches(elements), "catalog": told}),
        anatomy=replace(draft.anatomy, elements=elements, parameters=parameters),
        remarks={**draft.remarks, "batch": _largest(elements)},
    )


def batches(elements: int) -> Batches:
    """Returns the batch ranges of a network.

    Args:
        elements: Elements of its largest tensor for one photo.
    """
    largest = min(_BULK, largest_batch(elements))
    bulk = (
        (BatchRange(min=_LATENCY.max + 1, opt=largest, max=largest),)
        if largest > _LATENCY.max
        else ()
    )
    cpu = _CPU.limited(largest_batch(elements, on_cpu=True))
    return Batches(cpu=cpu, gpu=(_LATENCY.limited(largest), *bulk))


def _size(facts: PretrainedFacts, wishes: Wishes) -> tuple[int, int]:
    if wishes.input_size is not None:
        return sides(wishes.input_size)
    return (facts.test_input_size if wishes.at_test_size else None) or facts.input_size


def _arguments(facts: PretrainedFacts, wishes: Wishes) -> dict[str, Argument]:
    """Returns the arguments that give a network of a fixed size another one."""
    if wishes.input_size is None or not facts.fixed_size:
        return {}
    if sides(wishes.input_size) == facts.input_size:
        return {}
    return {"img_size": wishes.input_size}


def _cut(name: str, anatomy: Anatomy, wanted: Cut | None) -> Cut:
    """Returns the cut of a draft.

    Raises:
        ExportError: The network lacks it, or has none.
    """
    has = ", ".join(f"'{cut}' ({width})" for cut, width in anatomy.cuts.items())
    if wanted is not None and wanted not in anatomy.cuts:
        raise ExportError(f"{name} has no cut '{wanted}'", hint=f"it has {has or 'none'}")
    cut = wanted or choose_cut(anatomy)
    if cut is None:
        raise ExportError(f"{name} has no cut that gives one row of features per photo")
    return cut


def _preprocess(facts: PretrainedFacts, wishes: Wishes) -> StatedPreprocess:
    """Returns the preprocessing that timm states, at the size that is wanted."""
    height, width = _size(facts, wishes)
    is_test = wishes.at_test_size and facts.test_input_size is not None
    return StatedPreprocess.model_validate(
        {
            **facts.model_dump(include={"crop_mode", "interpolation", "mean", "std"}),
            "crop": (facts.test_crop if is_test else None) or facts.crop,
            "input_size": height if height == width else (height, width),
            "size_of": "test" if is_test else "train",
            "size_reason": _size_reason(facts, wishes),
        }
    )


def _size_reason(facts: PretrainedFacts, wishes: Wishes) -> str:
    train, test = facts.input_size, facts.test_input_size
    if wishes.input_size is not None and sides(wishes.input_size) != train:
        return f"chosen: {_work(sides(wishes.input_size), train)} the work of {_pixels(train)}"
    if test is None or test == train:
        return "the tag is trained and tested at this size"
    if wishes.at_test_size:
        return f"the tag's test size; it was trained at {_pixels(train)}"
    return (
        f"the tag was trained at {_pixels(train)}; its test size {_pixels(test)} costs "
        f"{_work(test, train)} the work for the same features' width"
    )


def _deviations(facts: PretrainedFacts, size: tuple[int, int], wishes: Wishes) -> dict[Fact, str]:
    """Returns why a size differs from both that timm states."""
    if wishes.input_size is None or size == facts.input_size:
        return {}
    trained = _pixels(facts.input_size)
    words = f"{_work(size, facts.input_size)} the work of {trained}, at which it was trained"
    return {Fact.INPUT_SIZE: words}


def _work(size: tuple[int, int], other: tuple[int, int]) -> str:
    return f"{size[0] * size[1] / (other[0] * other[1]):.2f}x"


def _pixels(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _free_id(name: str, others: Mapping[str, Manifest]) -> str:
    """Returns an id: that of the manifest of these weights, the architecture, or the whole name."""
    for other in others.values():
        if other.timm_name == name:
            return other.id
    arch = name.partition(".")[0]
    return arch if arch not in others else name.replace(".", "_")


def _family(name: str, others: Mapping[str, Manifest]) -> str:
    """Returns the family of manifests whose networks timm defines in the same file, or its name."""
    timm = import_timm()

    def module(arch: str) -> str:
        defined: Callable[..., object] = timm.model_entrypoint(arch)
        return defined.__module__.rpartition(".")[2]

    own = module(name.partition(".")[0])
    related = {
        other.family
        for other in others.values()
        if timm.is_model(other.arch) and module(other.arch) == own
    }
    return related.pop() if len(related) == 1 else own


def _catalog(name: str, anatomy: Anatomy, cut: Cut, size: tuple[int, int]) -> CatalogText:
    """Returns a text of plain facts; what the model is for is a person's to say."""
    return CatalogText(
        title=name,
        summary=f"timm's {name} at {_pixels(size)} pixels.",
        characteristics=(
            f"{anatomy.cuts[cut]:,} features ({cut})",
            _weights(anatomy.parameters),
        ),
        use_case="Not described yet",
    )


def _weights(parameters: int) -> str:
    return f"{parameters / 1e6:,.{0 if parameters >= 1e8 else 1}f} million weights"


def _largest(elements: int) -> str:
    return f"the largest tensor has {elements:,} elements an image"


def _remarks(manifest: Manifest, facts: PretrainedFacts, anatomy: Anatomy) -> dict[str, str]:
    """Returns what a person should know or decide, by field."""
    remarks = {
        "weights": "unlocked: make lock asks the hub for all three",
        "catalog": "decide: the text of the catalog's page; these are plain facts",
        "batch": _largest(anatomy.elements),
    }
    others = {cut: width for cut, width in anatomy.cuts.items() if cut is not manifest.backbone.cut}
    if others:
        listed = ", ".join(f"{cut} ({width})" for cut, width in others.items())
        remarks["backbone"] = f"this network also has: {listed}"
    if manifest.licence == UNKNOWN_LICENCE:
        remarks["licence"] = (
            f"decide: timm states no licence; read the card at {manifest.origin}. Until then "
            "nothing of it is published"
        )
    elif manifest.licence not in allowed_licences():
        remarks["licence"] = (
            "not on the list of licences that allow publishing engines (zoo/schema/licence_texts): "
            "only dry runs (WEIGHTS=seeded) build it"
        )
    if facts.test_input_size not in (None, facts.input_size):
        remarks["preprocess"] = (
            f"decide: trained at {_pixels(facts.input_size)}, tested at "
            f"{_pixels(facts.test_input_size or facts.input_size)} (--test-size)"
        )
    return remarks
