"""Reference page of both command lines, generated from their argument parsers.

``python -m builders.cli options --reference > docs/reference/command-line.md`` writes it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence

_ROOT_LINK = re.compile(r"\]\((?!https?:)")
"""Start of a link in a help text, which is relative to the repository's root as in README.md."""
_INTRODUCTION = """\
# Command lines

Generated from the argument parsers by `python -m builders.cli options --reference`; a test fails
if this page is out of date. `zoo` comes with the package. `zoo-farm` needs a checkout of the
repository; most people run it through [make](../../README.md), whose variables set its options.

Exit codes: 0 for success, 2 for wrong usage, 130 after Ctrl-C; `zoo/util/errors.py` lists those of
all other errors. Errors go to standard error, with a hint on the second line.
"""


def page(parsers: Sequence[argparse.ArgumentParser]) -> str:
    """Returns the page in Markdown: a section per program and subcommand, a table of arguments."""
    parts = [_INTRODUCTION]
    for parser in parsers:
        parts += _section(parser, level=2)
    return "\n".join(parts)


def _section(parser: argparse.ArgumentParser, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {parser.prog}\n"
    if parser.description:
        yield f"{parser.description}\n"
    subparsers: Mapping[str, argparse.ArgumentParser] = {}
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            subparsers = action.choices
        elif not isinstance(action, argparse._HelpAction):
            rows.append(f"| {_name(action)} | {_text(action)} |")
    if rows:
        yield "| Argument | Description |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    for subparser in subparsers.values():
        yield from _section(subparser, level=min(level + 1, 4))


def _name(action: argparse.Action) -> str:
    """Returns how an argument is written: ``-o FILE``, ``--output FILE``."""
    value = _value(action)
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{f'{option} {value}'.rstrip()}`" for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    metavar = action.metavar if isinstance(action.metavar, str) else None
    name = metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.nargs == "+":
        return f"{name} ..."
    return f"[{name} ...]" if action.nargs == "*" else name


def _text(action: argparse.Action) -> str:
    text = " ".join((action.help or "").split())
    if action.choices is not None:
        choices = ", ".join(f"`{choice}`" for choice in action.choices)
        text += f"{'; ' if text else ''}one of {choices}"
    if action.option_strings and action.required:
        text += f"{'; ' if text else ''}required"
    text = _ROOT_LINK.sub("](../../", text)
    return text.replace("%%", "%").replace("|", "\\|").replace("<", "&lt;")
