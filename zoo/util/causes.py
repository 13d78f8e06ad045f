"""Errors of other programs and libraries, read to their end, as plain text for messages.

What went wrong often stands last: in the exception that others were raised from, or below a first
line that names only the step that failed.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_LIMIT = 1000
_ADVICE = re.compile(
    r"(See '.*--help'|Run '.*--help'|For more help|\[notice\]|Traceback \(most recent call last\))"
)
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Warning|Interrupt|Exit)\b")


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
    if not text or isinstance(last, LookupError) or " " not in text:
        return f"{type(last).__name__}: {text}" if text else type(last).__name__
    return text


def end_of(output: str, otherwise: str = "no error message") -> str:
    """Returns what a program's error output says at its end.

    Of a Python traceback that is the last exception with all lines of its message, of other output
    everything, shortened in the middle; advice on how to use the program is left out.

    Args:
        output: What it wrote to standard error.
        otherwise: Returned if that is nothing.
    """
    lines = [_ESCAPES.sub("", line).rstrip() for line in output.splitlines()]
    lines = [line for line in lines if line.strip()]
    raised = [number for number, line in enumerate(lines) if _RAISED.match(line)]
    if raised and any(line.startswith("Traceback") for line in lines):
        lines = lines[raised[-1] :]
    kept = [line for line in lines if not _ADVICE.match(line.strip())]
    return plain("\n".join(kept)) or otherwise
