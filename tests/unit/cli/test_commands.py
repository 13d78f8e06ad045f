"""``zoo-farm`` imports only the module of the command that it runs."""

from __future__ import annotations

from importlib import import_module

import pytest

from builders.cli.main import COMMANDS, command_in, farm_parser
from zoo.cli.command import Parser


@pytest.mark.parametrize("module", COMMANDS)
def test_each_module_adds_the_commands_it_is_listed_with(module: str) -> None:
    commands = Parser(prog="zoo-farm").add_subparsers(parser_class=Parser)
    import_module(f"builders.cli.{module}").add_commands(commands)
    assert tuple(commands.choices) == COMMANDS[module]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["plan", "--gpu", "cpu"], "plan"), (["--manifests", "x", "torch-speed"], "torch-speed"),
        (["--manifests=x", "plan"], None), (["--help"], None), ([], None), (["unknown"], None),
        (["--manifests"], None),
    ],
)  # fmt: skip
def test_the_command_of_a_command_line(arguments: list[str], command: str | None) -> None:
    assert command_in(arguments) == command


def test_a_parser_of_one_command_reads_it_as_the_whole_one_does() -> None:
    arguments = ["--manifests", "m", "plan", "--gpu", "cpu", "--json"]
    of_one, of_all = farm_parser("plan"), farm_parser()
    assert vars(of_one.parse_args(arguments)) == vars(of_all.parse_args(arguments))
