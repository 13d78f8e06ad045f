"""Hints: the commands and options that messages recommend exist and are not refused."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator

import pytest
import tomlkit
from support.paths import ROOT

from builders.cli.main import farm_parser
from zoo.cli import main

_ARGUMENT = r"(?<=--task )[a-z-]+|\.\.\.|--?[a-z-]+|\d+|[A-Z][A-Z.]*|[\w.-]*\.\w+"
_COMMAND = re.compile(rf"(?<!make )\bzoo ([a-z-]+)((?: (?:{_ARGUMENT}))*)")
_FARM = re.compile(r"\bzoo-farm ([a-z-]+)")
_MAKE = re.compile(r"\bmake ([a-z-]+)((?: [A-Z_]+=\S*)*)")
_EXTRA = re.compile(r"caft-zoo\[([a-z0-9,-]+)\]")
_HINTS = ("hint", "install")


def texts(node: ast.expr, constants: dict[str, ast.expr]) -> Iterator[str]:
    """Yields what an expression of a hint may be; what is filled in stands as X."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(part.value if isinstance(part, ast.Constant) else "X" for part in parts)
        case ast.BinOp(left=left, right=right):
            for first in texts(left, constants):
                yield from (first + second for second in texts(right, constants))
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body, constants)
            yield from texts(other, constants)
        case ast.Name(id=name) if name in constants:
            yield from texts(constants[name], constants)
        case ast.Dict(values=values) | ast.Tuple(elts=values):
            for value in values:
                yield from texts(value, constants)
        case ast.Subscript(value=value) | ast.Call(func=ast.Attribute(value=value)):
            yield from texts(value, constants)
        case _:
            return


def constants_of(module: ast.Module) -> dict[str, ast.expr]:
    """Returns the constants that a file defines: hints may name them."""
    found = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = value
    return found


def hints(package: str) -> list[tuple[str, str]]:
    """Returns the hints of a package's code, with their files."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        module = ast.parse(path.read_text())
        constants = constants_of(module)
        for node in ast.walk(module):
            if isinstance(node, ast.keyword) and node.arg in _HINTS:
                found += [(path.name, text) for text in texts(node.value, constants)]
    return found


HINTS = hints("zoo")
ALL = HINTS + hints("builders")
COMMANDS = sorted(
    {match.group(0) for _, text in ALL for match in _COMMAND.finditer(text) if match[2]}
)


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    return dict(action.choices)


def test_there_are_hints_to_look_at() -> None:
    assert len(HINTS) > 150
    assert len(ALL) > 300
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_hint_is_one(command: str) -> None:
    words = command.replace("...", "DATASET --model MODEL").split()[1:]
    options = main.client_parser().parse_args(words)
    assert options.command


@pytest.mark.parametrize(
    ("pattern", "known"),
    [
        (_COMMAND, frozenset(subparsers(main.client_parser()))),
        (_FARM, frozenset(subparsers(farm_parser()))),
    ],
    ids=["zoo", "zoo-farm"],
)
def test_a_command_that_a_hint_mentions_exists(
    pattern: re.Pattern[str], known: frozenset[str]
) -> None:
    mentioned = {match[1]: file for file, text in ALL for match in pattern.finditer(text)}
    assert len(mentioned) > 2
    assert not {word: file for word, file in mentioned.items() if word not in known}


def test_what_a_hint_makes_is_a_target_with_its_variables() -> None:
    takes = dict(re.findall(r"^TAKES_(\w+) := (.*)$", (ROOT / "options.mk").read_text(), re.M))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    made = [(file, match) for file, text in ALL for match in _MAKE.finditer(text) if match[2]]
    assert len(made) > 3
    for file, match in made:
        assert match[1] in targets, file
        variables = {word.partition("=")[0] for word in match[2].split()}
        assert variables <= set(takes[match[1]].split()), f"{file}: {match[0]}"


def test_what_a_hint_installs_is_an_extra() -> None:
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()["project"]
    extras = {
        extra for _, text in ALL for match in _EXTRA.findall(text) for extra in match.split(",")
    }
    assert len(extras) > 3
    assert extras <= set(project["optional-dependencies"])


def test_every_option_of_a_hint_exists() -> None:
    parsers = subparsers(main.client_parser()).values()
    known = {option for parser in parsers for option in parser._option_string_actions}
    foreign = {"--connect-timeout", "--query-gpu", "--repair"}  # the last one is of zoo-farm
    for file, text in HINTS:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert option in known | foreign, f"{file}: {text}"
