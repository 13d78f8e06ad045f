"""What is not signed because readers would refuse it, and what the old key of a rotation signs."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from tuf.api.metadata import Metadata, Timestamp

from builders.publish.keys import Expiry, KeyEntry, KeyRing
from zoo.client.tuf import TIMESTAMP_LIMIT
from zoo.schema.layout import TIMESTAMP
from zoo.stores import ObjectStore
from zoo.util.errors import TrustError

_OLD_TIMESTAMP_LIMIT = 16_384
"""Maximum bytes of ``timestamp.json`` for readers of version 0.1 and other clients of TUF."""

_SIGNED_AT = "x-caft-zoo-signed"
"""Field of ``timestamp.json`` with the time of its signature; clients of TUF ignore it."""

CLOCK_IS_RIGHT = "ZOO_CLOCK_IS_RIGHT"
"""Environment variable that lets this machine sign although the last signature is in its future."""

_BEHIND = 1 / 7
"""Share of the shortest lifetime by which a signer's clock may be behind: a day of a week."""


def utc_now() -> datetime:
    """Returns this machine's time, UTC."""
    return datetime.now(timezone.utc)


def check_clock(
    store: ObjectStore,
    timestamp: Metadata[Timestamp],
    expiry: Expiry,
    clock: Callable[[], datetime],
) -> None:
    """Checks that this machine's clock is not behind the last signature.

    What it would sign expires early, or has expired already; readers would refuse it. The time
    of the last signature is in ``timestamp.json``; before version 0.2, the store's time of
    writing that file stands in.

    Raises:
        TrustError: It is behind by more than a share of the shortest lifetime of a signature.
    """
    now = clock()
    shortest = min(expiry.root, expiry.targets, expiry.index, expiry.timestamp)
    text = timestamp.signed.unrecognized_fields.get(_SIGNED_AT)
    times = [datetime.fromisoformat(text)] if isinstance(text, str) else []
    if not times and clock is utc_now:  # the clock is the one that the store's time is of
        times = [entry.modified for entry in store.list(TIMESTAMP)]
    last = max(times, default=now)
    if os.environ.get(CLOCK_IS_RIGHT) == "1":
        return
    if last - now > timedelta(days=shortest) * _BEHIND:
        raise TrustError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M}, but {store.url} was signed "
            f"at {last:%Y-%m-%d %H:%M} (UTC): signatures made now would expire "
            f"{(last - now) / timedelta(days=1):.0f} days early",
            hint="nothing was signed; set this machine's clock. If it is right, and the last "
            f"signer's was ahead, set {CLOCK_IS_RIGHT}=1 for one run of zoo-farm publish "
            "--refresh",
        )


def note_time(timestamp: Metadata[Timestamp], now: datetime) -> None:
    """Records in a timestamp when it is signed."""
    timestamp.signed.unrecognized_fields[_SIGNED_AT] = now.replace(microsecond=0).isoformat()


def check_length(url: str, timestamp: Metadata[Timestamp]) -> None:
    """Checks that readers accept a signed timestamp.

    Raises:
        TrustError: It is too long.
    """
    if (length := len(timestamp.to_bytes())) > TIMESTAMP_LIMIT:
        raise TrustError(
            f"{url}: timestamp.json has {length:,} bytes with its signatures; "
            f"readers accept {TIMESTAMP_LIMIT:,}",
            hint="nothing was published; use fewer or shorter keys",
        )


def sign_as_before(metadata: Metadata[Any], keys: KeyRing, old: KeyEntry) -> None:
    """Adds the signature of a key that is being replaced, if it can still sign.

    It is wanted by readers that have not seen the new root yet; a lost key must not keep
    anybody from replacing it.
    """
    alone = dict(metadata.signatures)
    try:
        metadata.sign(keys.signer(old), append=True)
    except Exception:  # signers of hardware and clouds raise what they like
        metadata.signatures = alone
    if len(metadata.to_bytes()) > _OLD_TIMESTAMP_LIMIT and isinstance(metadata.signed, Timestamp):
        metadata.signatures = alone
