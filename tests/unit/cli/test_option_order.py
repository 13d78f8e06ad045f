"""Options that a command and its subcommands share count wherever they are given."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from builders.cli import main as farm
from zoo.cli import main as client

PARSERS = {"zoo-farm": farm.farm_parser, "zoo": client.client_parser}


def subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def overwritten(parser: argparse.ArgumentParser, above: frozenset[str] = frozenset()) -> set[str]:
    """Returns the options whose default in a subcommand replaces what came before it."""
    own = {action.dest: action.default for action in parser._actions}
    own |= {name: value for name, value in parser._defaults.items() if name != "command"}
    for unstored in ("help", argparse.SUPPRESS):  # --help, and the choice of a subcommand
        own.pop(unstored, None)
    replaced = {f"{parser.prog}: {name}" for name in above & own.keys()
                if own[name] is not argparse.SUPPRESS}  # fmt: skip
    for subcommand in subcommands(parser):
        replaced |= overwritten(subcommand, above | own.keys())
    return replaced


@pytest.mark.parametrize("name", PARSERS)
def test_no_default_of_a_subcommand_overwrites_an_option_before_it(name: str) -> None:
    assert overwritten(PARSERS[name]()) == set()


@pytest.mark.parametrize(
    "action", [["init"], ["rotate", "targets"], ["renew", "root"], ["revoke", "abc"]]
)
def test_keys_folder_counts_before_and_after_the_action(action: list[str]) -> None:
    parser = farm.farm_parser()

    assert parser.parse_args(["keys", "--keys", "X", *action]).keys == "X"
    assert parser.parse_args(["keys", *action, "--keys", "X"]).keys == "X"
    assert parser.parse_args(["keys", "--keys", "X", *action, "--keys", "Y"]).keys == "Y"
    assert parser.parse_args(["keys", *action]).keys == ""
