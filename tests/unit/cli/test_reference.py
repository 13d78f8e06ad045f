"""The reference page of the command lines."""

from __future__ import annotations

import argparse

from support.paths import ROOT

from builders.cli.main import farm_parser
from builders.cli.reference import page
from zoo.cli.main import client_parser


def test_the_page_is_current() -> None:
    text = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    assert text == page([client_parser(), farm_parser()])


def test_every_kind_of_argument_is_described() -> None:
    parser = argparse.ArgumentParser(prog="toy", description="A toy.")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file")
    own = parser.add_subparsers().add_parser("sub")
    own.add_argument("photos", nargs="+", metavar="PHOTO", help="a|b <c> 5%% [d](docs/d.md)")
    own.add_argument("--kind", choices=("x", "y"))
    own.add_argument("--fast", action="store_true", help="quick")
    text = page([parser])
    assert "## toy\n\nA toy.\n" in text
    assert "| `-o FILE`, `--output FILE` | the file; required |" in text
    assert "### toy sub\n" in text
    assert "| `PHOTO ...` | a\\|b &lt;c> 5% [d](../../docs/d.md) |" in text
    assert "| `--kind KIND` | one of `x`, `y` |" in text
    assert "| `--fast` | quick |" in text
