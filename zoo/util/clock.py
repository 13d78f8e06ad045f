"""Timestamps in the format of records."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> str:
    """Returns the current time as ISO 8601 in UTC with microseconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
