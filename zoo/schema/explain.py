"""Explains what is wrong with a manifest in terms of the TOML file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypedDict

from pydantic_core import ErrorDetails

from zoo.util.names import perhaps

SOURCES = ("hub", "pypi", "file")
"""The sources of weights: the tags of the union ``weights``."""

_WANTED_TYPES = {
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list",
    "dict_type": "a table",
}
_WANTED_TEXT = {
    "revision": "a commit of 40 hexadecimal digits, or 'unlocked',",
    "sha256": "64 hexadecimal digits, or 'unlocked',",
    "origin": "an https:// address",
}


SchemaNode = TypedDict(
    "SchemaNode",
    {
        "$ref": str,
        "$defs": dict[str, "SchemaNode"],
        "properties": dict[str, "SchemaNode"],
        "additionalProperties": "SchemaNode",
        "oneOf": list["SchemaNode"],
    },
    total=False,
)
"""The keywords of a JSON schema that list a table's fields."""


def true_problems(problems: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Returns errors without those that say that a list is too short since its items are wrong.

    Pydantic counts only the items that are right, and every list that a manifest may not leave
    empty needs one.
    """
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(_is_inside(other["loc"], problem["loc"]) for other in problems)
    ]


def _is_inside(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def explain(problem: ErrorDetails, schema: SchemaNode) -> str:
    """Turns a pydantic error into ``field.path: what is wrong, what is allowed``.

    Args:
        problem: An item of ``ValidationError.errors()``.
        schema: JSON schema of the model, which lists the fields.
    """
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    if not path:  # a condition on several fields
        return str(problem["msg"]).removeprefix("Value error, ")
    if path[0] == "weights" and len(path) > 1 and path[1] in SOURCES:
        del path[1]  # the tag of the union, which is not in the file
    field, value, context = ".".join(path), problem["input"], problem.get("ctx", {})
    if problem["type"] == "missing":
        return f"{field}: missing"
    if problem["type"] == "extra_forbidden":
        known = _fields_at(path[:-1], schema)
        return f"{field}: unknown field.{perhaps(path[-1], known)} Allowed: {', '.join(known)}"
    if problem["type"] == "union_tag_invalid":
        field, tag = f"{field}.source", str(context["tag"])
        allowed = re.findall(r"'(\w+)'", context["expected_tags"])
        return f"{field}: '{tag}' is not one of {', '.join(allowed)}.{perhaps(tag, allowed)}"
    if problem["type"] == "union_tag_not_found":
        return f"{field}.source: missing; allowed: " + ", ".join(SOURCES)
    if problem["type"] in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", context["expected"])
        near = perhaps(str(value), allowed)
        return f"{field}: '{value}' is not one of {', '.join(allowed)}.{near}"
    if problem["type"] in _WANTED_TYPES:
        return f"{field}: {value!r}: {_WANTED_TYPES[problem['type']]} is needed"
    if problem["type"] == "string_pattern_mismatch" and path[-1] in _WANTED_TEXT:
        return f"{field}: '{value}': {_WANTED_TEXT[path[-1]]} is needed"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {value!r}: {message[0].lower()}{message[1:]}"


def _fields_at(path: Iterable[str], schema: SchemaNode) -> list[str]:
    """Returns the fields that the table at a path of a manifest may have."""
    node = schema
    for part in path:
        node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        node = _resolve(node, schema)
    branches = [_resolve(branch, schema) for branch in node.get("oneOf", [node])]
    return sorted({name for branch in branches for name in branch.get("properties", {})})


def _resolve(node: SchemaNode, schema: SchemaNode) -> SchemaNode:
    reference = node.get("$ref")
    if reference is None:
        return node
    return schema["$defs"][reference.rsplit("/", 1)[1]]
