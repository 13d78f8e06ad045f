"""A drafted manifest as TOML, in the layout of the other manifests."""

from __future__ import annotations

from collections.abc import Iterable

import tomlkit
from tomlkit.items import Array, InlineTable, Table

from builders.export.draft import Draft
from zoo.schema.manifest import BatchRange, HubWeights, Manifest, StatedPreprocess

_LINE = 100  # characters; a longer list has a line for each item
_TOP = ("id", "family", "arch", "tag", "licence", "origin")


def to_toml(draft: Draft) -> str:
    """Returns the text of a draft's manifest, with its remarks as comments.

    Args:
        draft: The draft; its weights are on the hub.
    """
    manifest, remarks = draft.manifest, draft.remarks
    document = tomlkit.document()
    for name in _TOP:
        if name in remarks:
            document.add(tomlkit.comment(remarks[name]))
        document.add(name, getattr(manifest, name))
    document.add("precisions", _list(map(str, manifest.precisions)))
    if manifest.half_images:
        document.add("half_images", tomlkit.item(True))
    tables = {
        "arguments": _table(manifest.arguments.items()),
        "weights": _weights(manifest),
        "backbone": _table(manifest.backbone.model_dump(mode="json").items()),
        "preprocess": _preprocess(manifest.preprocess),
        "batch": _batch(manifest),
        "tolerance": _tolerance(manifest),
        "deviations": _table((str(fact), text) for fact, text in manifest.deviations.items()),
        "catalog": _table(manifest.catalog.model_dump(mode="json").items()),
    }
    for name, table in tables.items():
        if not table:
            continue
        if name in remarks:
            table.comment(remarks[name])
        document.add(tomlkit.nl())
        document.add(name, table)
    return "#:schema schema.json\n" + tomlkit.dumps(document)


def _weights(manifest: Manifest) -> Table:
    """Returns the table of weights: what is open is written out, what has a default is not."""
    weights = manifest.weights
    assert isinstance(weights, HubWeights)
    stated = weights.model_dump(mode="json")
    always = ("source", "repository", "revision", "file", "sha256", "size")
    return _table(
        (name, value) for name, value in stated.items() if name in always or value not in (None, [])
    )


def _preprocess(preprocess: StatedPreprocess) -> Table:
    stated = preprocess.model_dump(mode="json")
    first = ("input_size", "size_of", "size_reason")
    return _table((name, stated[name]) for name in dict.fromkeys((*first, *stated)))


def _tolerance(manifest: Manifest) -> Table:
    own = manifest.tolerance.items()
    dumped = ((precision, one.model_dump(mode="json", exclude_none=True)) for precision, one in own)
    return _table((str(precision), _table(stated.items())) for precision, stated in dumped)


def _batch(manifest: Manifest) -> Table:
    table = tomlkit.table()
    table.add("cpu", _range(manifest.batch.cpu))
    gpu = tomlkit.array()
    for profile in manifest.batch.gpu:
        gpu.append(_range(profile))
    table.add("gpu", gpu)
    return table


def _range(batch: BatchRange) -> InlineTable:
    table = tomlkit.inline_table()
    table.update(batch.model_dump())
    return table


def _table(pairs: Iterable[tuple[str, object]]) -> Table:
    table = tomlkit.table()
    for name, value in pairs:
        table.add(name, _list(value) if isinstance(value, (list, tuple)) else value)
    return table


def _list(values: Iterable[object]) -> Array:
    items = list(values)
    array = tomlkit.array()
    is_long = len(repr(items)) > _LINE or any(" " in str(item) for item in items)
    for item in items:
        if is_long:
            array.add_line(item, indent="  ")
        else:
            array.append(item)
    if is_long:
        array.add_line(indent="")
    return array
