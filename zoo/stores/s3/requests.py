"""Requests to a bucket: tried again while a server is down, and their errors explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from typing import Any

from botocore import exceptions as aws

from zoo.stores.base import (
    WITNESS,
    check_key,
)
from zoo.stores.lock_owner import PATIENCE, Say, to_stderr
from zoo.stores.s3.errors import (
    ABSENT,
    DENIED,
    Place,
    code_of,
)
from zoo.stores.s3.lease import LEASE, Lease
from zoo.stores.transfer import again
from zoo.util.errors import RepositoryError

BROKEN = (
    aws.IncompleteReadError, aws.ReadTimeoutError, aws.ResponseStreamingError,
    aws.ConnectionClosedError,
)  # fmt: skip
"""What reading an answer's body raises when it breaks off; botocore repeats none of these."""

AWAY = (aws.ConnectionError, aws.ConnectionClosedError)
"""What a request raises while a server is down, when botocore has tried a few times."""


class _TroubledError(aws.ClientError):  # type: ignore[misc]
    """The server is there and fails: what it needs has not come back yet."""


class Requests:
    """Sends requests about the objects under a prefix of a bucket.

    Its arguments are those of :class:`~zoo.stores.s3.store.S3Store`.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        say: Say = to_stderr,
        lease: float = LEASE,
        patience: float = PATIENCE,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._say, self._lease, self._patience = say, lease, patience
        self._place = Place(url=self.url, endpoint=str(client.meta.endpoint_url), now=now)
        self._held: list[Lease] = []
        self._answered = False

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``; the endpoint is the environment's."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def _ask(self, operation: str, **arguments: Any) -> Any:
        """Sends a request. A server that has answered before is given time to come back."""
        tries = 0

        def once() -> Any:
            nonlocal tries
            tries += 1
            try:
                answer = getattr(self._client, operation)(**arguments)
            except aws.ClientError as error:
                metadata = error.response.setdefault("ResponseMetadata", {})
                metadata["RetryAttempts"] = metadata.get("RetryAttempts", 0) + tries - 1
                if metadata.get("HTTPStatusCode", 0) >= 500:
                    raise _TroubledError(error.response, operation) from error
                raise
            self._answered = True
            return answer

        return again(once, (*AWAY, _TroubledError) if self._answered else ())

    def _head(self, key: str) -> Any:
        """Returns what the server says of an object."""
        with self._asked("read", key):
            try:
                return self._ask("head_object", **self._at(key))
            except aws.ClientError as error:
                if code_of(error) not in ("400", "403"):
                    raise
                # The answer to HEAD has no body, and so no reason: ask in a way that has one.
                answer = self._ask("get_object", **self._at(key), Range="bytes=0-0")
                answer["Body"].close()
                raise

    def _part(self, key: str, first: int, length: int, tag: str) -> bytes:
        span = f"bytes={first}-{first + length - 1}"
        answer = self._ask("get_object", **self._at(key), Range=span, IfMatch=tag)
        with closing(answer["Body"]) as body:
            if answer["ContentLength"] != length:
                raise RepositoryError(
                    f"{self.url}: the server was asked for {span} of {key} and sends "
                    f"{answer['ContentLength']:,} bytes",
                    hint="a server without ranges can't serve a repository",
                )
            return bytes(body.read())

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    @contextmanager
    def _writing(self, verb: str, key: str) -> Iterator[None]:
        for lease in self._held:
            lease.must_hold()
        with self._asked(verb, key):
            yield

    @contextmanager
    def _asked(self, verb: str, key: str) -> Iterator[None]:
        """Turns what botocore raises into this project's errors."""
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
        """Whether this store can be read: S3 denies what is absent to whom may not list."""
        if key == WITNESS:
            return False
        try:
            self._ask("head_object", **self._at(WITNESS))
        except (aws.ClientError, aws.BotoCoreError):
            return False
        return True


def utc(time: datetime) -> datetime:
    """Returns a time in UTC."""
    return time.astimezone(timezone.utc)
