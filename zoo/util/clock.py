"""The time, as records write it."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> str:
    """Returns the time, ISO 8601 in UTC to the microsecond."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
