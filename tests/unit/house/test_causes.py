"""Errors of others are read to their end: the cause, in plain text, with nothing cut off."""

from __future__ import annotations

import pytest

from zoo.util.causes import cause_of, end_of, plain


def raised_from(*errors: Exception) -> Exception:
    """Raises each error from the one before; returns the last."""
    caught: Exception | None = None
    for error in errors:
        try:
            raise error from caught
        except Exception as now:
            caught = now
    assert caught is not None
    return caught


def test_the_cause_is_the_first_error_of_a_chain() -> None:
    error = raised_from(
        AssertionError("only 4D query, key, and value are supported"),
        ValueError("Error when translating node %scaled_dot_product_attention"),
        RuntimeError("Failed to convert.\n\x1b[96mThis is step 3/3\x1b[0m\nNext steps:\n- none"),
    )
    assert cause_of(error) == "only 4D query, key, and value are supported"


def test_what_was_handled_meanwhile_is_no_cause() -> None:
    try:
        try:
            {}["fast path"]
        except KeyError:
            raise RuntimeError("the disk is full")  # noqa: B904  as libraries do
    except RuntimeError as error:
        assert cause_of(error) == "the disk is full"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("aten::unfold"), "KeyError: 'aten::unfold'"),
        (NotImplementedError(), "NotImplementedError"),
        (
            RuntimeError("first line\n\n  second line: the cause"),
            "first line second line: the cause",
        ),
        (raised_from(TimeoutError(), OSError("the server is gone")), "the server is gone"),
        (raised_from(OSError("[Errno 111] refused"), OSError("no host")), "[Errno 111] refused"),
    ],
    ids=["key", "empty", "lines", "empty-cause", "cause"],
)
def test_a_cause_is_a_sentence(error: Exception, text: str) -> None:
    assert cause_of(error) == text


def test_a_chain_that_bites_its_tail_ends() -> None:
    error, other = ValueError("the one"), ValueError("the other")
    error.__cause__, other.__cause__ = other, error
    assert cause_of(error) == "the other"


def test_the_members_of_a_group_are_the_cause() -> None:
    group: Exception = RuntimeError("2 sub-exceptions")
    group.exceptions = (ValueError("the one"), OSError("the other"))  # type: ignore[attr-defined]
    error = RuntimeError("no engine")
    error.__cause__ = group
    assert cause_of(error) == "the one; the other"


def test_colours_of_eight_bits_are_left_out() -> None:
    assert plain("\x9b31mred\x9b0m text") == "red text"


@pytest.mark.parametrize(
    "text",
    [
        "\x1b(B\x1b[mError: no",  # tput sgr0
        "\x1bPq#0;2;0;0;0\x1b\\Error: no",  # a picture
        "\x90q#0;2\nx\x9cError: no",  # the same of eight bits, over two lines
        "\x1b]0;title\x07Error: no\x1b]0;cut",
        "\x1b_payload\x1b\\\x1b^private\x1b\\\x1bXstring\x1b\\Error: no",
        "\x1bPtmux;\x1b\x1b]0;a\x07\x1b\\Error: no",
        "\x1b7\x1b=\x1b#8\x1b%GError: no\x1b8\x1bc",
        "Error: no\x1b[31",
        "Error: no\x1b[",
        "Error: no\x1b(",
        "Error: no\x1b",
        "\x1b[38;5;1\nError: no",
        "\x1b[?25l\x1b[2 qError: no",
    ],
)
def test_escape_sequences_are_left_out_whole(text: str) -> None:
    assert plain(text) == "Error: no"
    assert end_of(text) == "Error: no"


def test_what_reverses_text_is_made_visible() -> None:
    assert plain("photo\u202egpj.exe\u2069") == "photo\\u202egpj.exe\\u2069"


def test_text_is_plain_and_keeps_both_ends() -> None:
    assert (
        plain("\x1b[1;31mred\x1b[0m\r\n\x1b]8;;http://x\x07link\x1b]8;;\x07\t\x00end")
        == "red link end"
    )
    text = plain(f"start {'x ' * 5000}the cause", 100)
    assert len(text) <= 100
    assert text.startswith("start")
    assert text.endswith("the cause")


DOCKER = """docker: Error response from daemon: could not select device driver "" with \
capabilities: [[gpu]].
See 'docker run --help'.
"""
TRACEBACK = """warming up
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    import tensorrt
ImportError: libnvinfer.so.10: cannot open shared object file

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 3, in <module>
    raise RuntimeError(
pydantic_core._pydantic_core.ValidationError: 2 validation errors for Answer
index
  Field required
refused
  Input should be a string
"""
BUILDX = """\x1b[31mERROR\x1b[0m: failed to resolve: \x1b[1mpull access denied\x1b[0m

[notice] a new release is there
"""

RAISED_FROM = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
ValueError: only 4D query, key, and value are supported

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "y.py", line 2, in <module>
exporter.ConversionFailed: Error when translating a node
See the report for details.
"""
NOISE = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
trt.exc.Unsupported: no tactic for
  a convolution
Exception ignored in: <function Engine.__del__ at 0x7f>
Traceback (most recent call last):
  File "y.py", line 2, in __del__
AttributeError: 'NoneType' object has no attribute 'free'
/usr/lib/resource_tracker.py:224: UserWarning: leaked semaphores
  warnings.warn(
"""
GROUP = """Traceback (most recent call last):
  File "g.py", line 2, in run
OSError: the task was stopped

During handling of the above exception, another exception occurred:

  + Exception Group Traceback (most recent call last):
  |   File "g.py", line 9, in <module>
  | ExceptionGroup: outer (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "g.py", line 3, in f
    | AssertionError: only 4D query, key, and value are supported
    |
    | The above exception was the direct cause of the following exception:
    |
    | Traceback (most recent call last):
    |   File "g.py", line 4, in f
    | ValueError: Error when translating a node
    +---------------- 2 ----------------
    | ExceptionGroup: inner (2 sub-exceptions)
    +-+---------------- 1 ----------------
      | KeyError: 'x'
      +---------------- 2 ----------------
      | RuntimeError: two
lines
      +------------------------------------
"""
FROM_GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "g.py", line 3, in <module>
  | ExceptionGroup: g (1 sub-exception)
  +-+---------------- 1 ----------------
    | OSError: the disk is full
    +------------------------------------

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "g.py", line 5, in <module>
RuntimeError: no export
"""


RANKS = """[rank1]: Traceback (most recent call last):
[rank0]: Traceback (most recent call last):
[rank1]:   File "t.py", line 3, in <module>
[rank0]:   File "t.py", line 2, in <module>
[rank1]: RuntimeError: Connection closed by peer
[rank0]: ValueError: shape 3

[rank0]: The above exception was the direct cause of the following exception:

[rank0]: Traceback (most recent call last):
[rank0]:   File "t.py", line 2, in <module>
[rank0]: RuntimeError: a wrapper
Traceback (most recent call last):
  File "run.py", line 900, in run
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: train.py FAILED
"""
EMPTY_CAUSE = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
AssertionError

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "x.py", line 3, in <module>
RuntimeError: shape 3 expected
"""


@pytest.mark.parametrize(
    ("output", "parts", "absent"),
    [
        (DOCKER, ["could not select device driver", "[[gpu]]"], ["See 'docker"]),
        (TRACEBACK, ["2 validation errors", "refused", "should be a string"], ["File", "warming"]),
        (RAISED_FROM, ["ValueError: only 4D query, key, and value"], ["translating", "File"]),
        (NOISE, ["trt.exc.Unsupported: no tactic for a convolution"], ["free", "leaked", "File"]),
        (BUILDX, ["ERROR: failed to resolve: pull access denied"], ["\x1b", "notice"]),
        (
            GROUP,
            ["only 4D query, key, and value", "KeyError: 'x'", "RuntimeError: two lines"],
            ["stopped", "translating", "sub-exception", "File", "--", "|"],
        ),
        (FROM_GROUP, ["OSError: the disk is full"], ["no export", "sub-exception", "|"]),
        (
            RANKS,
            ["ValueError: shape 3", "RuntimeError: Connection closed by peer"],
            ["rank", "File", "wrapper", "FAILED"],
        ),
        ("[rank0]: not a traceback", ["not a traceback"], []),
        (EMPTY_CAUSE, ["RuntimeError: shape 3 expected"], ["AssertionError", "File"]),
        (EMPTY_CAUSE.partition("\n\n")[0], ["AssertionError"], ["File"]),
        ("first\nsecond\n", ["first second"], []),
        ("\n \n", ["no error message"], []),
    ],
    ids=[
        "docker",
        "traceback",
        "raised from",
        "noise at exit",
        "colours",
        "group",
        "from a group",
        "ranks",
        "a rank's line",
        "empty cause",
        "only a name",
        "lines",
        "nothing",
    ],
)
def test_error_output_is_read_to_its_end(output: str, parts: list[str], absent: list[str]) -> None:
    text = end_of(output)
    assert "\n" not in text
    assert all(part in text for part in parts), text
    assert not any(part in text for part in absent), text
