"""Opens stores on S3 servers: endpoint, credentials and region the AWS way."""

from __future__ import annotations

from typing import Any

import boto3
from botocore import UNSIGNED
from botocore import exceptions as aws
from botocore.config import Config

from zoo.stores.base import check_prefix
from zoo.stores.s3.store import S3Store
from zoo.stores.transfer import WORKERS
from zoo.util.errors import RepositoryError

ATTEMPTS = 4
"""Tries of a request, in botocore's standard mode, which pauses for a second or two in all."""


def open_s3(
    bucket: str,
    prefix: str = "",
    *,
    anonymous: bool = False,
    attempts: int = ATTEMPTS,
    **named: Any,
) -> S3Store:
    """Opens a store in a bucket.

    Args:
        bucket: Its name.
        prefix: What the store's keys begin with there.
        anonymous: Whether to ask without credentials.
        attempts: Tries of a request.
        named: Of :class:`~zoo.stores.s3.store.S3Store`.

    Raises:
        RepositoryError: The URL or the environment does not name a server.
    """
    url = f"s3://{bucket}/{prefix}"
    if not bucket:
        raise RepositoryError(f"{url}: which bucket?", hint="s3://bucket/prefix")
    check_prefix(prefix.strip("/"))
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=2 * WORKERS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        user_agent_extra="caft-zoo",
        # Our own SHA-256 goes with every object; what needs a checksum beside it gets one.
        request_checksum_calculation="when_required",
        # It is among the headers that are signed, so the body need not be hashed a second time.
        s3={"payload_signing_enabled": False},
        signature_version=UNSIGNED if anonymous else None,
    )
    try:
        client = boto3.Session().client("s3", config=config)
    except (aws.BotoCoreError, ValueError) as error:
        raise RepositoryError(
            f"{url}: {error}",
            hint="check the AWS_ variables and ~/.aws/config (docs/reference/stores.md)",
        ) from error
    return S3Store(client, bucket, prefix, **named)
