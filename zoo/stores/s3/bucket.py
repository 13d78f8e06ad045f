"""Requests to an S3 bucket: keys, retries, conditions, and errors in this project's terms."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

from botocore import exceptions as aws

from zoo.stores.base import WITNESS, check_key
from zoo.stores.patience import answered, let_go, whole_body
from zoo.stores.s3.errors import ABSENT, CONDITION, CONFLICT, DENIED, Place, code_of, server_time
from zoo.stores.s3.lease import Lease, Tagged
from zoo.stores.transfer import again
from zoo.util.errors import NoRangesError

BROKEN = (
    aws.IncompleteReadError, aws.ReadTimeoutError, aws.ResponseStreamingError,
    aws.ConnectionClosedError,
)  # fmt: skip
"""Raised when a response body breaks off; botocore does not retry these."""

_AWAY = (aws.ConnectionError, aws.ConnectionClosedError)
"""Raised by a request to a server that is down, after botocore's own retries."""


class _TroubledError(aws.ClientError):  # type: ignore[misc]
    """The server answers with a 5xx status: it may still be starting up."""


class Bucket:
    """The objects under a prefix of a bucket.

    Args:
        client: boto3 client of service ``s3``.
        bucket: Name of the bucket.
        prefix: Prefix of all keys of this store; empty for the whole bucket.
        now: This machine's clock, UTC.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, now: Callable[[], datetime]) -> None:
        self.client = client
        self.name = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.held: list[Lease] = []
        self._place = Place(url=self.url, endpoint=str(client.meta.endpoint_url), now=now)
        self._answered = False

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``; the endpoint comes from the environment."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def read_tagged(self, key: str) -> Tagged | None:
        """Returns an object's bytes, ETag and age by the server's clock; None if there is none."""

        def read() -> tuple[Any, bytes]:
            answer = self.ask("get_object", **self.at(key))
            return answer, self.body_of(answer, key)

        try:
            with self.asked("read", key):
                answer, data = again(read, BROKEN)
        except KeyError:
            return None
        date, modified = server_time(answer), utc(answer["LastModified"])
        age = 0.0 if date is None else (date - modified).total_seconds()
        return Tagged(data=data, tag=answer["ETag"], age=age)

    def write_tagged(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Writes an object if its ETag is still ``tag``; for None, if it still does not exist.

        Returns:
            The new ETag, or None if another writer was faster.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        return self.put(key, data, condition, guarded=False)

    def put(
        self, key: str, data: bytes, condition: dict[str, str], *, guarded: bool = True
    ) -> str | None:
        """Writes an object.

        Args:
            key: Its key.
            data: Its bytes.
            condition: Arguments of a conditional write.
            guarded: Whether every held lease must still be held.

        Returns:
            Its ETag, or None if the condition failed.
        """
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()

        def write() -> str | None:
            try:
                answer = self.ask(
                    "put_object", **self.at(key), Body=data, ChecksumSHA256=digest, **condition
                )
            except aws.ClientError as error:
                if code_of(error) in CONDITION:
                    return self._own_echo(key, data, error)
                if "IfMatch" in condition and code_of(error) in ABSENT:
                    return None
                if condition and code_of(error) in CONFLICT:
                    raise _RacedError from error
                raise
            return str(answer["ETag"])

        with self.writing("write", key) if guarded else self.asked("write", key):
            return again(write, (_RacedError,))

    def _own_echo(self, key: str, data: bytes, error: aws.ClientError) -> str | None:
        """Returns the ETag of an object that an earlier attempt of the same request wrote.

        If the response to a conditional write is lost, the retry fails on its own object.
        """
        if not error.response.get("ResponseMetadata", {}).get("RetryAttempts"):
            return None
        answer = self.ask("get_object", **self.at(key))
        return str(answer["ETag"]) if self.body_of(answer, key, len(data) + 1) == data else None

    def ask(self, operation: str, **arguments: Any) -> Any:
        """Sends a request, with more retries if the server has answered before."""
        tries = 0

        def once() -> Any:
            nonlocal tries
            tries += 1
            try:
                sent = len(arguments.get("Body", b""))
                send = partial(getattr(self.client, operation), **arguments)
                answer = answered(send, self.url, sent=sent)
            except aws.ClientError as error:
                metadata = error.response.setdefault("ResponseMetadata", {})
                metadata["RetryAttempts"] = metadata.get("RetryAttempts", 0) + tries - 1
                if metadata.get("HTTPStatusCode", 0) >= 500:
                    raise _TroubledError(error.response, operation) from error
                raise
            self._answered = True
            return answer

        return again(once, (*_AWAY, _TroubledError) if self._answered else ())

    def head(self, key: str) -> Any:
        """Returns the headers of an object.

        Raises:
            KeyError: It does not exist.
        """
        with self.asked("read", key):
            try:
                return self.ask("head_object", **self.at(key))
            except aws.ClientError as error:
                if code_of(error) not in ("400", "403"):
                    raise
                # A HEAD response has no body, so no reason: send a GET to get one.
                answer = self.ask("get_object", **self.at(key), Range="bytes=0-0")
                answer["Body"].close()
                raise

    def part(self, key: str, first: int, length: int, tag: str | None = None) -> bytes:
        """Returns a range of an object, of the version that has this ETag if one is given."""
        span = f"bytes={first}-{first + length - 1}"
        version = {} if tag is None else {"IfMatch": tag}
        answer = self.ask("get_object", **self.at(key), Range=span, **version)
        if answer["ContentLength"] != length:
            let_go(answer["Body"])
            raise NoRangesError(
                f"{self.url}: the server sent {answer['ContentLength']:,} bytes of {key} for "
                f"the range {span}",
                hint="this server does not support range requests, which repositories need; "
                "tell the repository's maintainers",
            )
        return self.body_of(answer, key)

    def body_of(self, answer: Any, key: str, most: int | None = None) -> bytes:
        """Returns the body of an answer, and closes it.

        Raises:
            RepositoryError: It comes too slowly.
        """
        return whole_body(answer["Body"], self.url, key, most)

    def pages(self, operation: str, **arguments: Any) -> Iterator[Any]:
        """Yields the pages of a listing, each of which must come in time."""
        pages = iter(self.client.get_paginator(operation).paginate(**arguments))
        while (page := answered(lambda: next(pages, None), self.url)) is not None:
            yield page

    def at(self, key: str) -> dict[str, str]:
        """Returns the arguments of a request that name an object."""
        return {"Bucket": self.name, "Key": self.prefix + check_key(key)}

    @contextmanager
    def writing(self, verb: str, key: str) -> Iterator[None]:
        """Like :meth:`asked`, for writes: first checks that no held lease was lost."""
        for lease in self.held:
            lease.must_hold()
        with self.asked(verb, key):
            yield

    @contextmanager
    def asked(self, verb: str, key: str) -> Iterator[None]:
        """Converts botocore's errors to this project's errors."""
        try:
            yield
        except aws.ClientError as error:
            code = code_of(error)
            if code in ABSENT or (code in DENIED and verb == "read" and self._is_open(key)):
                raise KeyError(key) from error
            raise self._place.explain(verb, key, error) from error
        except aws.BotoCoreError as error:
            raise self._place.explain(verb, key, error) from error

    def _is_open(self, key: str) -> bool:
        """Whether :data:`~zoo.stores.base.WITNESS` is readable.

        Without list permission S3 returns 403 for missing keys. If this key is readable, a 403 on
        another key means 'not found'.
        """
        if key == WITNESS:
            return False
        try:
            self.ask("head_object", **self.at(WITNESS))
        except (aws.ClientError, aws.BotoCoreError):
            return False
        return True


class _RacedError(Exception):
    """Two conditional writes collided; a retry shows which of them succeeded."""


def utc(time: datetime) -> datetime:
    """Returns a time in UTC."""
    return time.astimezone(timezone.utc)
