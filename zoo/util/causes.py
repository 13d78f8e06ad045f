"""Errors of other programs and libraries, read to their end, as plain text for messages.

What went wrong often stands last: in the exception that others were raised from, or below a first
line that names only the step that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences, such as colours
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])"  # strings, such as a title or a link, to their end ...
    r"(?:[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|[^\x07\x1b\x9c\n]*)"  # ... or that of the line
    r"|\x1b[ -/]*[0-~]?"  # character sets, and everything else
)
"""Escape sequences (ECMA-48) of 7 and 8 bits, also those that are cut short."""

_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What reverses the direction of the text after it."""
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

_OF_RANK = re.compile(r"(\[(?:rank|default)\d+\]):(?: |$)")
"""What torch and torchrun put before each line of one of several processes."""

_NO_TEXT = re.compile(r"[\w.]+:?")
"""The message of an exception that is only its name."""

_OF_GROUP = re.compile(r"\s+(?:\+ Exception Group Traceback|\||\+[-+]*-{4,})")
"""A line of an exception group, which is drawn as a tree."""
_BRANCH = re.compile(r"\s+(?:\| )*\+[-+]*-{4,}(?: (?:\d+|\.\.\.) -{4,})?")
"""A line between the members of a group, or after the last one."""
_TREE = re.compile(r"^\s+(?:\||\+(?= Exception Group))\s?")
_COUNT = re.compile(r"[\w.]*: .*\(\d+ sub-exceptions?\)")
"""The message of a group, which only counts its members."""


def plain(text: str, limit: int = _LIMIT) -> str:
    """Returns text of another program as one line without escape sequences and control characters.

    Those that reverse the direction of text are written as in Python.

    Args:
        text: The text.
        limit: Number of characters above which the middle is left out: both ends matter.
    """
    words = " ".join(_CONTROLS.sub(" ", _ESCAPES.sub("", text)).split())
    words = _BIDI.sub(lambda found: f"\\u{ord(found[0]):04x}", words)
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
    as in :func:`cause_of`, with all lines of its message, or the members of a group; of several
    processes started by torchrun those of each; of other output everything, shortened in the
    middle. Advice on how to use the program is left out.

    Args:
        output: What it wrote to standard error.
        otherwise: Returned if that is nothing.
    """
    lines = [line.rstrip() for line in _ESCAPES.sub("", output).splitlines()]
    lines = _of_ranks(lines) or _cause_of_one(lines) or [line for line in lines if line.strip()]
    kept = [line for line in lines if not _ADVICE.match(line.strip())]
    return plain("\n".join(kept)) or otherwise


def _of_ranks(lines: list[str]) -> list[str]:
    """Returns what ended the processes of torchrun, whose lines may be mixed; each cause once."""
    ranks: dict[str, list[str]] = {}
    for line in lines:
        if of_rank := _OF_RANK.match(line):
            ranks.setdefault(of_rank[1], []).append(line[of_rank.end() :])
    causes = {" ".join(map(str.strip, _cause_of_one(own))): None for own in ranks.values()}
    return ["; ".join(filter(None, causes))] if any(causes) else []


def _cause_of_one(lines: list[str]) -> list[str]:
    """Returns the message of the exception that ended one process; empty without a traceback."""
    return _cause_in(_without_groups([line for line in lines if line.strip()]))


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
            if not is_noise and not (before == _CAUSED and _says_more(message)):
                message = _message_of(lines[number + 1 :]) or message
            before = ""
        elif _AFTER.match(line):
            before = line
    return message


def _says_more(message: list[str]) -> bool:
    """Whether the message of an exception is more than its name."""
    return not _NO_TEXT.fullmatch(" ".join(message).strip()) if message else False


def _message_of(lines: list[str]) -> list[str]:
    """Returns the message below the frames of a traceback, which are indented."""
    start = next((number for number, line in enumerate(lines) if not line[0].isspace()), None)
    if start is None:
        return []
    end = start + 1
    while end < len(lines) and not _AFTER.match(lines[end]) and lines[end].strip() != _TRACEBACK:
        end += 1
    return lines[start:end]
