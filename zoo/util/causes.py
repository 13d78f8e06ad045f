"""Errors of other programs and libraries, read to their end, as plain text for messages.

What went wrong often stands last: in the exception that others were raised from, or below a first
line that names only the step that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_LIMIT = 1000
_ADVICE = re.compile(
    r"(See '.*--help'|Run '.*--help'|For more help|\[notice\]|Traceback \(most recent call last\))"
)
_TRACEBACK = "Traceback (most recent call last):"
_CAUSED = "The above exception was the direct cause of the following exception:"
_AFTER = re.compile(
    r"The above exception was |During handling of the above exception|Exception ignored in|"
    r"\S+:\d+: \w*Warning: "
)
"""What Python writes after an exception's message: the next exception, or noise at its exit."""

_OF_GROUP = re.compile(r"\s+(?:\+ Exception Group Traceback|\||\+[-+]*-{4,})")
"""A line of an exception group, which is drawn as a tree."""
_BRANCH = re.compile(r"\s+(?:\| )*\+[-+]*-{4,}(?: (?:\d+|\.\.\.) -{4,})?")
"""A line between the members of a group, or after the last one."""
_TREE = re.compile(r"^\s+(?:\||\+(?= Exception Group))\s?")
_COUNT = re.compile(r"[\w.]*: .*\(\d+ sub-exceptions?\)")
"""The message of a group, which only counts its members."""


def plain(text: str, limit: int = _LIMIT) -> str:
    """Returns text of another program as one line without colours and control characters.

    Args:
        text: The text.
        limit: Number of characters above which the middle is left out: both ends matter.
    """
    words = " ".join(_CONTROLS.sub(" ", _ESCAPES.sub("", text)).split())
    if len(words) <= limit:
        return words
    half = (limit - 3) // 2
    return f"{words[:half]} … {words[-half:]}"


def cause_of(error: BaseException, limit: int = _LIMIT) -> str:
    """Returns what the exception says that an error was raised from in the first place.

    Only explicit causes count (``raise … from``): what was being handled meanwhile may be part of
    the ordinary course. A message that says nothing by itself, such as that of a ``KeyError``, is
    preceded by the exception's name.

    Args:
        error: The error that was caught.
        limit: See :func:`plain`.
    """
    seen = [error]
    while (cause := seen[-1].__cause__) is not None and cause not in seen:
        seen.append(cause)
    said = [(last, plain(str(last), limit)) for last in reversed(seen)]
    last, text = next(((last, text) for last, text in said if text), (seen[-1], ""))
    if members := getattr(last, "exceptions", None):  # of an ExceptionGroup, which only counts them
        return plain("; ".join(dict.fromkeys(cause_of(member, limit) for member in members)), limit)
    if not text or isinstance(last, LookupError) or " " not in text:
        return f"{type(last).__name__}: {text}" if text else type(last).__name__
    return text


def end_of(output: str, otherwise: str = "no error message") -> str:
    """Returns what a program's error output says at its end.

    Of Python tracebacks that is the exception that the last one was raised from in the first place,
    as in :func:`cause_of`, with all lines of its message, or the members of a group;
    of other output everything, shortened in
    the middle. Advice on how to use the program is left out.

    Args:
        output: What it wrote to standard error.
        otherwise: Returned if that is nothing.
    """
    lines = [_ESCAPES.sub("", line).rstrip() for line in output.splitlines()]
    lines = [line for line in lines if line.strip()]
    lines = _cause_in(_without_groups(lines)) or lines
    kept = [line for line in lines if not _ADVICE.match(line.strip())]
    return plain("\n".join(kept)) or otherwise


def _without_groups(lines: list[str]) -> list[str]:
    """Returns lines with each exception group as a traceback that ends in its members' messages."""
    flat: list[str] = []
    group: list[str] = []
    for line in [*lines, ""]:
        if _OF_GROUP.match(line) and (group or "+ Exception Group" in line):
            group.append(line)
            continue
        if group:
            flat += [_TRACEBACK, "; ".join(dict.fromkeys(_members(group)))]
            group = []
        if not _BRANCH.fullmatch(line):  # Python does not indent further lines of a message
            flat.append(line)
    return flat[:-1]


def _members(group: list[str]) -> Iterator[str]:
    """Yields the messages of an exception group's members, and of those of groups in it."""
    member: list[str] = []
    for line in [*group, f"  +{'-' * 4}"]:
        if not _BRANCH.fullmatch(line):
            member.append(_TREE.sub("", line))
            continue
        told = [text for text in member if text.strip()]
        message = _cause_in(told) or told
        if message and not any(_COUNT.fullmatch(text) for text in message):
            yield " ".join(text.strip() for text in message)
        member = []


def _cause_in(lines: list[str]) -> list[str]:
    """Returns the message of the exception that ended a program; empty without a traceback."""
    message: list[str] = []
    before = ""  # the line that says how the next traceback follows from the one before
    for number, line in enumerate(lines):
        if line.strip() == _TRACEBACK:
            is_noise = before.startswith("Exception ignored in")
            if not is_noise and not (message and before == _CAUSED):
                message = _message_of(lines[number + 1 :])
            before = ""
        elif _AFTER.match(line):
            before = line
    return message


def _message_of(lines: list[str]) -> list[str]:
    """Returns the message below the frames of a traceback, which are indented."""
    start = next((number for number, line in enumerate(lines) if not line[0].isspace()), None)
    if start is None:
        return []
    end = start + 1
    while end < len(lines) and not _AFTER.match(lines[end]) and lines[end].strip() != _TRACEBACK:
        end += 1
    return lines[start:end]
