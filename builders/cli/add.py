"""``zoo-farm add``: writes the manifest of a timm model."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from builders.cli.options import given_manifests
from builders.jobs.progress import Display
from zoo.cli.command import add_arguments
from zoo.schema.manifest import Cut, Fact, HubWeights, Manifest, Side, read_manifests
from zoo.util.errors import UsageError
from zoo.util.files import write_whole

if TYPE_CHECKING:
    from builders.export.available import Available
    from builders.export.draft import Draft


_KEPT = ("catalog", "batch", "precisions", "half_images", "tolerance")
"""Fields that a new draft takes from the manifest that it replaces."""


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = add_arguments(commands, "add", add)
    parser.add_argument(
        "name", metavar="TIMM_NAME",
        help="timm's name of the weights: convnext_tiny.fb_in1k; without a tag, timm's default. "
        "With --list, a pattern",
    )  # fmt: skip
    parser.add_argument(
        "--list", action="store_true",
        help="write nothing: list timm's weights whose names match the pattern, with the cut and "
        "width of each, and why some can't be added",
    )  # fmt: skip
    parser.add_argument(
        "--id", help="the manifest's id and file name (default: the architecture, or name and tag)"
    )
    parser.add_argument("--family", help="its family (default: that of related manifests)")
    parser.add_argument(
        "--cut", choices=tuple(map(str, Cut)),
        help="where features are taken (default: where the network itself pools)",
    )  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--test-size", action="store_true",
        help="the size that the weights are tested at, instead of trained",
    )  # fmt: skip
    size.add_argument(
        "--input-size", type=_pixels, metavar="PIXELS",
        help="another size; networks of a fixed size are made for it (default: the size that the "
        "weights are trained at)",
    )  # fmt: skip
    parser.add_argument(
        "--no-check", action="store_true",
        help="write the manifest without exporting the model once, with seeded weights",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace an existing manifest without asking; what timm does not state is kept: the "
        "hash of its weights, batch ranges, precisions, tolerances, reasons, catalog text",
    )  # fmt: skip


def _pixels(text: str) -> int:
    """Reads a number of pixels within the range of manifests."""
    try:
        return TypeAdapter(Side).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no number of pixels from 32 to 2048"
        ) from error


def add(options: argparse.Namespace) -> int:
    """Writes the manifest of a timm model from what timm and its network state.

    The model is exported once, with seeded weights, before anything is written.

    Raises:
        ZooError: There is no such model, it has no cut, or it can't be exported: nothing is
            written.
    """
    folder = Path(options.manifests)
    others = _others(folder)
    if options.list:
        return _list(options.name, others)
    from builders.export.anatomy import Anatomies
    from builders.export.draft import Wishes, draft, full_name

    name = full_name(options.name)
    if name != options.name:
        print(f"{options.name}: timm's default weights of it are {name}")
    wishes = Wishes(
        id=options.id,
        family=options.family,
        cut=Cut(options.cut) if options.cut else None,
        input_size=options.input_size,
        at_test_size=options.test_size,
    )
    drafted = draft(name, wishes, others, Anatomies())
    path = folder / f"{drafted.manifest.id}.toml"
    _check_free(path, drafted.manifest, others, overwrite=options.overwrite)
    there = others.get(drafted.manifest.id)
    drafted = _keep(drafted, there)
    if not options.no_check:
        drafted = _keep(_try(drafted), there)
    _write(path, drafted, given_manifests(options))
    return 0


def _others(folder: Path) -> dict[str, Manifest]:
    """Returns the manifests that there are; none if there is no folder yet."""
    return read_manifests(folder)[0] if any(folder.glob("*.toml")) else {}


def _check_free(
    path: Path, manifest: Manifest, others: dict[str, Manifest], *, overwrite: bool
) -> None:
    """Raises UsageError if a manifest is there and nobody agrees to replace it."""
    there = others.get(manifest.id)
    if there is not None and there.timm_name != manifest.timm_name:
        raise UsageError(
            f"{path} is the manifest of {there.timm_name}",
            hint="an id stands for one model forever: give another --id",
        )
    if not path.exists() or overwrite:
        return
    if sys.stdin.isatty():
        answer = input(f"{path} exists. Replace it? [y/N] ")
        if answer.strip().lower() in ("y", "yes"):
            return
    raise UsageError(
        f"{path} exists and stays as it is",
        hint="--overwrite replaces it; --id NAME adds another manifest of the same weights",
    )


def _keep(draft: Draft, there: Manifest | None) -> Draft:
    """Returns a draft with what timm does not state from the manifest that it replaces."""
    if there is None:
        return draft
    old, new = there.weights, draft.manifest.weights
    assert isinstance(new, HubWeights)
    same = isinstance(old, HubWeights) and old.repository == new.repository
    reasons = {**there.deviations, **draft.manifest.deviations}
    if Fact.INPUT_SIZE not in draft.manifest.deviations:
        reasons.pop(Fact.INPUT_SIZE, None)
    manifest = draft.manifest.model_copy(
        update={
            **{field: getattr(there, field) for field in _KEPT},
            "weights": old if same else new,
            "deviations": reasons,
        }
    )
    kept = (*_KEPT, "weights") if same else _KEPT
    remarks = {field: text for field, text in draft.remarks.items() if field not in kept}
    return replace(draft, manifest=manifest, remarks=remarks)


def _try(draft: Draft) -> Draft:
    """Exports a draft's model once, and says what came of it."""
    from builders.executors.local import LocalExecutor
    from builders.export.trial import try_export

    display = Display()
    with display.job(draft.manifest.id) as report:
        tried, exported = try_export(draft, LocalExecutor(), report)
    check = exported.check
    display.say(
        f"{draft.manifest.id}: exported with seeded weights: {exported.parameters / 1e6:.1f} "
        f"million weights; ONNX against PyTorch: worst cosine {check.worst_cosine:.6f}, worst "
        f"relative error {check.worst_relative_error:.2g}"
    )
    return tried


def _write(path: Path, draft: Draft, folder: str) -> None:
    from builders.export.draft_text import to_toml

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_toml(draft).encode())
    manifest = draft.manifest
    print(
        f"{path}: {manifest.timm_name}, {manifest.preprocess.pixels} pixels, "
        f"{manifest.backbone.feature_dim} features ({manifest.backbone.cut}), {manifest.licence}"
    )
    for field, remark in draft.remarks.items():
        print(f"  {field}: {remark}")
    chosen = f"MODELS={manifest.id}" + (f" {shlex.quote(f'MANIFESTS={folder}')}" if folder else "")
    print(f"next: read it, then make lock {chosen} and make zoo {chosen}")


def _list(pattern: str, others: dict[str, Manifest]) -> int:
    """Prints timm's weights that match a pattern, a line as soon as each is examined."""
    from builders.export.available import examine_all, names_like

    names = names_like(pattern)
    wide = max(map(len, names))
    print(f"{'name':<{wide}}  {'pixels':>9}  {'cut':<12}{'width':>8}  would work")
    for found in examine_all(names, others):
        print(f"{found.name:<{wide}}  {_columns(found)}", flush=True)
    return 0


def _columns(found: Available) -> str:
    manifest = found.draft
    if manifest is None:
        shape = f"{'-':>9}  {'-':<12}{'-':>8}"
    else:
        backbone = manifest.backbone
        shape = f"{manifest.preprocess.pixels:>9}  {backbone.cut:<12}{backbone.feature_dim:>8}"
    there = f"manifests has it as {found.model}" if found.model else f"yes ({found.licence})"
    return f"{shape}  {f'no: {found.obstacle}' if found.obstacle else there}"
