"""``make`` passes on what the table of options has, and refuses what has no effect."""

from __future__ import annotations

import argparse
import re
import subprocess

import pytest
from support.goldens import assert_golden
from support.paths import ROOT

from builders.planning.options import COMMANDS, OF_MAKE, OPTIONS, add_options


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "PYTHON=python3", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_make_hands_over_every_option_of_a_command(command: str) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, command)
    flags = {flag for action in parser._actions for flag in action.option_strings} - {
        "-h",
        "--help",
    }
    given = [
        f"{option.variable}={1 if option.switch else 'x'}"
        for option in OPTIONS
        if command in option.takes
    ]
    done = make(command, *given)
    assert done.returncode == 0, done.stderr
    assert not {flag for flag in flags if f"{flag} " not in f"{done.stdout} ".replace("\n", " ")}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["demo", "MODELS=x"], 2), (["catalog", "MODELS=x"], 2), (["zoo", "JSON=1"], 2),
        (["test", "GPU=cpu"], 2), (["demo", "DATA=x"], 0), (["prove", "STORE=x", "TRUST=r"], 0),
        (["zoo", "plan", "MODELS=x"], 0), (["lint", "zoo", "MODELS=x"], 0),
        (["demo", "zoo", "MODELS=x"], 2), (["zoo", "serve", "MODELS=x", "PORT=1"], 2),
        (["lint", "test", "GPU=cpu"], 2), (["MODELS=x"], 2),
    ],
)  # fmt: skip
def test_make_refuses_what_has_no_effect(words: list[str], status: int) -> None:
    done = make(*words)
    assert done.returncode == status, done.stderr
    if status:
        goals = "-".join(word for word in words if "=" not in word) or "no-goal"
        assert_golden(f"planning/no-effect-{goals}", done.stderr.partition("*** ")[2])


def test_the_trusted_root_is_that_of_the_repository_which_is_verified() -> None:
    assert '--store "_repository" --trust "r"' in make("verify", "TRUST=r").stdout
    assert '--store "s" --trust "r"' in make("verify", "TRUST=r", "STORE=s").stdout


def test_make_says_that_a_misspelt_goal_does_not_exist() -> None:
    done = make("zooo", "MODELS=x")
    assert done.returncode == 2
    assert "zooo" in done.stderr
    assert "MODELS" not in done.stderr


def test_help_lists_the_variables_last_as_plain_text() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    targets, _, variables = done.stdout.partition("\nVariables;")
    assert "\nzoo " in targets
    names = [line.split()[0] for line in variables.splitlines()[1:]]
    assert names == [option.variable for option in (*OPTIONS, *OF_MAKE)]
    assert "(default: $ZOO_FARM_CERTS)" in variables
    assert "](" not in variables


def test_the_old_name_of_verify_works_and_warns() -> None:
    commands = make("prove", "STORE=x", "MODELS=m").stdout.splitlines()
    warning = commands.pop()
    assert warning.startswith("echo")
    assert warning.endswith(">&2")
    assert {"make prove", "make verify"} <= set(re.findall("make [a-z]+", warning))
    assert commands == make("verify", "STORE=x", "MODELS=m").stdout.splitlines()
