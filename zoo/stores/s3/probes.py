"""Tries the conditional writes of an S3 server: creation, races, replacement, uploads in parts."""

from __future__ import annotations

import uuid

from zoo.stores.base import (
    ELSEWHERE,
    PROBES,
    ObjectStore,
    delete_probe,
    ignores_conditions,
    probe,
    race,
)
from zoo.stores.s3.bucket import Bucket
from zoo.stores.s3.errors import is_signature_refused, strips_conditions
from zoo.stores.s3.upload import Upload
from zoo.util.errors import RepositoryError

_NO_TAG = '"00000000000000000000000000000000"'
"""An ETag that no object has."""


def check_conditions(store: ObjectStore, bucket: Bucket) -> None:
    """Checks that a server keeps all conditions of writes.

    Args:
        store: The store.
        bucket: Its bucket.

    Raises:
        RepositoryError: It does not, a proxy drops them, or the store is not writable.
    """
    try:
        probe(store)
    except RepositoryError as error:
        if is_signature_refused(error) and _takes_plain_writes(store):
            raise strips_conditions(store.url) from error
        raise
    race(store)
    key = f"{PROBES}{uuid.uuid4().hex}"  # unique: another publisher may test at the same time
    tag = bucket.write_tagged(key, b"first", None)
    try:
        _check_replacement(bucket, key, tag)
        with bucket.writing("write", key):
            if Upload(bucket.ask, bucket.at(key)).overwrites():
                raise ignores_conditions(store.url, "If-None-Match of multipart uploads")
    finally:
        delete_probe(store, key)


def _check_replacement(bucket: Bucket, key: str, tag: str | None) -> None:
    """Checks that an object is replaced on the condition of its own ETag, and of no other."""
    if bucket.write_tagged(key, b"second", _NO_TAG) is not None:
        raise ignores_conditions(bucket.url, "If-Match")
    if tag is None or bucket.write_tagged(key, b"second", tag) is None:
        raise RepositoryError(
            f"{bucket.url}: this server refuses conditional writes (If-Match) even if they name "
            "the object's ETag, so that no publisher can keep its lock",
            hint=ELSEWHERE,
        )


def _takes_plain_writes(store: ObjectStore) -> bool:
    """Whether a write without conditions succeeds, so that the credentials are right."""
    key = f"{PROBES}{uuid.uuid4().hex}"
    try:
        store.put(key, b"first")
    except RepositoryError:
        return False
    delete_probe(store, key)
    return True
