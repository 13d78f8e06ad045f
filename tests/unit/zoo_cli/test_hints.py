"""Hints: the commands and options that messages recommend exist and are not refused."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator

import pytest
from support.paths import ROOT

from zoo.cli import main

_COMMAND = re.compile(r"\bzoo ([a-z-]+)((?: (?:\.\.\.|--?[a-z-]+|\d+|[A-Z][A-Z.]*|[\w.-]*\.\w+))*)")


def texts(node: ast.expr) -> Iterator[str]:
    """Yields what an expression of a hint may be; what is filled in stands as X."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in parts)
        case ast.BinOp(left=left, right=right):
            for first in texts(left):
                yield from (first + second for second in texts(right))
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body)
            yield from texts(other)
        case _:
            return


def hints() -> list[tuple[str, str]]:
    """Returns the hints of the client's code, with their files."""
    found = []
    for path in sorted((ROOT / "zoo").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                found += [(path.name, text) for text in texts(node.value)]
    return found


HINTS = hints()
COMMANDS = sorted(
    {match.group(0) for _, text in HINTS for match in _COMMAND.finditer(text) if match[2]}
)


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = (
        action
        for action in main.client_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(action.choices)


def test_there_are_hints_to_look_at() -> None:
    assert len(HINTS) > 100
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_hint_is_one(command: str) -> None:
    words = command.replace("...", "DATASET --model MODEL").split()[1:]
    options = main.client_parser().parse_args(words)
    assert options.command


def test_every_option_of_a_hint_exists() -> None:
    known = {option for parser in subparsers().values() for option in parser._option_string_actions}
    known |= {"--image-column", "--help"}
    foreign = {"--connect-timeout"}
    for file, text in HINTS:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert option in known | foreign, f"{file}: {text}"
