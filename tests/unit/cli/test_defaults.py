"""Every option that has a value states its default in --help."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from builders.cli.main import farm_parser
from zoo.cli.main import client_parser


def options(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, own in action.choices.items():
                yield from options(own, f"{name} {word}")
        elif action.option_strings and action.nargs != 0 and not action.required:
            yield f"{name} {action.option_strings[-1]}", action


FOUND = [*options(client_parser(), "zoo"), *options(farm_parser(), "zoo-farm")]


def test_there_are_options_to_look_at() -> None:
    assert len(FOUND) > 150


@pytest.mark.parametrize(("name", "action"), FOUND, ids=[name for name, _ in FOUND])
def test_help_states_the_default(name: str, action: argparse.Action) -> None:
    text = " ".join((action.help or "").split())
    assert "default" in text, name
    if isinstance(action.default, (int, float)) and not isinstance(action.default, bool):
        shown = text.rpartition("default")[2].replace(",", "")
        assert f"{action.default:g}" in shown or str(action.default) in shown, name
