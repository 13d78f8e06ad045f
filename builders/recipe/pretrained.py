"""Compares a manifest with what timm states about its tag.

A manifest repeats facts that timm has in its ``pretrained_cfg``. A wrong one would be published as
verified: engines are compared with a PyTorch model that gets the same wrong input.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from zoo.schema.closed import complete
from zoo.schema.manifest import Fact, HubWeights, InputSize, Manifest, StatedPreprocess
from zoo.util.errors import ManifestError

_CLOSE = 1e-6  # timm's constants have up to 17 digits
_NO_TAG = "timm states nothing about weights without a tag"
_UNKNOWN_LICENCES = ("", "unknown")


class PretrainedFacts(BaseModel):
    """What timm states about a tag, as far as a manifest repeats it.

    Attributes:
        name: ``resnet50.a1_in1k``.
        input_size: Size that the weights were trained at.
        test_input_size: Size that they are evaluated at, where it is another.
        fixed_size: Whether the network takes no other size.
        crop: Crop at the first size.
        test_crop: Crop at the second, where it is another.
        crop_mode: How photos of another aspect ratio are resized.
        interpolation: Interpolation filter of the resize.
        mean: Per channel.
        std: Per channel.
        licence: SPDX identifier or timm's own, in lower case; None if timm states none.
        repository: Repository of the weights on the hub, None if timm knows none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    input_size: tuple[int, int]
    test_input_size: tuple[int, int] | None = None
    fixed_size: bool = False
    crop: float
    test_crop: float | None = None
    crop_mode: str = "center"
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str | None = None
    repository: str | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field of a manifest that differs from what an authority states.

    Attributes:
        fact: Its name in the manifest's table ``deviations``.
        field: Its path in the manifest.
        stated: The manifest's value.
        expected: The authority's, in its own words.
    """

    fact: Fact
    field: str
    stated: str
    expected: str


_FIELDS = complete(
    Fact,
    {
        Fact.LICENCE: "licence",
        Fact.REPOSITORY: "weights.repository",
        Fact.TAG: "tag",
        **{fact: f"preprocess.{fact}" for fact in Fact if fact in StatedPreprocess.model_fields},
    },
)


def check_facts(manifest: Manifest, facts: PretrainedFacts | None, timm: str) -> None:
    """Checks a manifest against timm, for every fact at once.

    Args:
        manifest: The model.
        facts: What timm states about its tag; None for a manifest without a tag.
        timm: Version of timm, for messages.

    Raises:
        ManifestError: A field differs and ``deviations`` gives no reason, or ``deviations`` gives a
            reason for a field that does not differ.
    """
    differences = [] if facts is None else list(_differences(manifest, facts))
    check_differences(manifest, differences, f"timm {timm}")
    differing = {difference.fact for difference in differences}
    if facts is None or isinstance(manifest.weights, HubWeights):
        differing.add(Fact.LICENCE)  # from the hub's card, or the weights' own
    if isinstance(manifest.weights, HubWeights):
        differing.add(Fact.TAG)  # from the hub's config.json
    if idle := [fact for fact in manifest.deviations if fact not in differing]:
        same = f"timm {timm} states the same for {facts.name}" if facts else _NO_TAG
        raise ManifestError(
            "\n".join(f"{manifest.id}: deviations.{fact}: {same}" for fact in idle),
            hint="a reason is only for a field that differs: remove it",
        )


def check_differences(manifest: Manifest, differences: list[Difference], authority: str) -> None:
    """Raises an error for every difference that the manifest gives no reason for.

    Args:
        manifest: The model.
        differences: Where it differs.
        authority: From what, for messages.

    Raises:
        ManifestError: There is one.
    """
    lines = [
        f"{manifest.id}: {difference.field}: the manifest says {difference.stated}, "
        f"{authority} says {difference.expected}"
        for difference in differences
        if difference.fact not in manifest.deviations
    ]
    if lines:
        raise ManifestError(
            "\n".join(lines),
            hint="correct the manifest; or, if it is meant, say why in its table "
            '[deviations], such as: crop = "evaluated at this crop by ..."',
        )


def _differences(manifest: Manifest, facts: PretrainedFacts) -> list[Difference]:
    preprocess, expected = manifest.preprocess, _expected(manifest.preprocess, facts)
    found = []
    for fact, value in expected.items():
        stated = getattr(preprocess, fact)
        if not _same(stated, value):
            found.append(_difference(fact, stated, _note(fact, value, facts, manifest)))
    if facts.licence not in (None, *_UNKNOWN_LICENCES, manifest.licence):
        found.append(_difference(Fact.LICENCE, manifest.licence, repr(facts.licence)))
    if isinstance(manifest.weights, HubWeights) and facts.repository is not None:
        repository = manifest.weights.repository
        if repository != facts.repository:
            found.append(
                _difference(Fact.REPOSITORY, repository, f"'{facts.repository}' for {facts.name}")
            )
    return found


def _expected(stated: StatedPreprocess, facts: PretrainedFacts) -> dict[Fact, object]:
    """Returns what timm states for the size, of the two, that a manifest takes.

    As in timm, what has no value of its own for tests is as in training.
    """
    is_test = stated.size_of == "test"
    size = (facts.test_input_size if is_test else None) or facts.input_size
    return {
        Fact.INPUT_SIZE: size[0] if size[0] == size[1] else size,
        Fact.CROP: (facts.test_crop if is_test else None) or facts.crop,
        Fact.CROP_MODE: facts.crop_mode,
        Fact.INTERPOLATION: facts.interpolation,
        Fact.MEAN: facts.mean,
        Fact.STD: facts.std,
    }


def _same(stated: object, expected: object) -> bool:
    if isinstance(stated, tuple) and isinstance(expected, tuple):
        pairs = zip(stated, expected, strict=False)
        return len(stated) == len(expected) and all(_same(*pair) for pair in pairs)
    if isinstance(stated, float) and isinstance(expected, (int, float)):
        return abs(stated - expected) <= _CLOSE
    return stated == expected


def _difference(fact: Fact, stated: object, expected: str) -> Difference:
    return Difference(
        fact=fact, field=_FIELDS[fact], stated=repr(_plain(stated)), expected=expected
    )


def _note(fact: Fact, value: object, facts: PretrainedFacts, manifest: Manifest) -> str:
    """Returns a value of timm with what explains it."""
    words = repr(_plain(value))
    if fact is Fact.INPUT_SIZE and facts.test_input_size is not None:
        words += (
            f" (trained at {_size(facts.input_size)}, tested at {_size(facts.test_input_size)})"
        )
    if fact is Fact.INPUT_SIZE and facts.fixed_size and not manifest.arguments:
        words += ", and the network takes no other size without [arguments]"
    return words


def _size(size: tuple[int, int]) -> InputSize:
    return size[0] if size[0] == size[1] else size


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value
