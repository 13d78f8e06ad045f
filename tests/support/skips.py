"""Reasons to skip a test, and which of them CI may give."""

from __future__ import annotations

NO_WHEEL = "no wheel is pinned of"
"""What a test needs does not exist for this Python or processor."""

NO_GPU = "no NVIDIA GPU with"
"""TensorRT or the GPU decoder. CI has none: what needs one is run on one, by hand."""

NO_OTHER_PYTHON = "no second CPython beside this one (python3.10)"
"""CI's system may have one alone."""

MAY_SKIP_IN_CI: tuple[str, ...] = (NO_WHEEL, NO_GPU, NO_OTHER_PYTHON)
"""Beginnings of the reasons that CI may give: what it cannot have."""


def may_skip_in_ci(reason: str) -> bool:
    """Whether CI may skip a test for this reason."""
    return reason.startswith(MAY_SKIP_IN_CI)
