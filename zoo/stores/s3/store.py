"""A store in a bucket of an S3 server, through boto3.

Imported by :func:`zoo.stores.open_store` for ``s3://`` alone: boto3 is an extra.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from botocore import exceptions as aws

from zoo.stores.base import (
    PROBES,
    WITNESS,
    Abandoned,
    Entry,
    Progress,
    check_key,
    check_prefix,
    ignores_conditions,
    is_key,
    probe,
    too_long,
)
from zoo.stores.lock_owner import PATIENCE, Say, to_stderr
from zoo.stores.s3.errors import (
    ABSENT,
    CONDITION,
    CONFLICT,
    DENIED,
    NO_UPLOAD,
    Place,
    code_of,
    server_time,
)
from zoo.stores.s3.lease import LEASE, Lease, Tagged
from zoo.stores.s3.upload import Upload
from zoo.stores.transfer import PART, again, append_parts, appending
from zoo.util.errors import RepositoryError

_BROKEN = (
    aws.IncompleteReadError, aws.ReadTimeoutError, aws.ResponseStreamingError,
    aws.ConnectionClosedError,
)  # fmt: skip
"""What reading an answer's body raises when it breaks off; botocore repeats none of these."""

_AWAY = (aws.ConnectionError, aws.ConnectionClosedError)
"""What a request raises while a server is down, when botocore has tried a few times."""


class _TroubledError(aws.ClientError):  # type: ignore[misc]
    """The server is there and fails: what it needs has not come back yet."""


class S3Store:
    """An :class:`~zoo.stores.base.ObjectStore` under a prefix of a bucket.

    Large objects go up and down in parts, several at a time. What is written carries its SHA-256,
    which a server that knows it checks and stores. Whatever is to be written once is written on the
    condition that it is absent.

    Args:
        client: boto3's, of service ``s3``.
        bucket: Its name.
        prefix: What the keys of this store begin with in the bucket; empty for the whole bucket.
        say: Is told when a lock has to be waited for.
        lease: Seconds after which the lock of a writer that is not heard of is taken over.
        patience: Seconds that a lock is waited for.
        now: This machine's clock, UTC.
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

    # Reading

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""

        def read() -> bytes:
            answer = self._ask("get_object", **self._at(key))
            with closing(answer["Body"]) as body:
                if limit is not None and answer["ContentLength"] > limit:
                    raise too_long(self.url, key, limit)
                return bytes(body.read())  # as long as it said, or an error

        with self._asked("read", key):
            return again(read, _BROKEN)

    def size(self, key: str) -> int | None:
        """Returns an object's length, None when there is none."""
        try:
            return int(self._head(key)["ContentLength"])
        except KeyError:
            return None

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file, in parts, all of the same version of the object."""
        head = self._head(key)
        end = int(head["ContentLength"])
        if size is not None and end > size:
            raise too_long(self.url, key, size)

        def read(first: int, length: int) -> bytes:
            with self._asked("read", key):
                return again(lambda: self._part(key, first, length, head["ETag"]), _BROKEN)

        with appending(path) as file:
            append_parts(file, end, read, progress)

    def local_path(self, key: str) -> Path | None:
        """A server has no paths."""
        return None

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, a request for each 1,000."""
        pages = self._client.get_paginator("list_objects_v2")
        begin = self._prefix + check_prefix(prefix)
        with self._asked("list", prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=begin):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self._prefix)
                    if is_key(key):
                        yield Entry(
                            key=key, size=found["Size"], modified=_utc(found["LastModified"])
                        )

    # Writing

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object; says whether this call wrote it."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        return self._put(key, data, condition) is not None

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Writes a file as an object, unless it is there; a large one in parts."""
        if self.size(key) is not None:
            return False
        size = path.stat().st_size
        if size <= PART:
            written = self.put(key, path.read_bytes(), if_absent=True)
            if written and progress is not None:
                progress(size)
            return written
        with self._writing("write", key):
            try:
                Upload(self._ask, self._at(key)).send(path, size, progress)
            except aws.ClientError as error:
                if code_of(error) in CONDITION | CONFLICT:  # others were faster
                    return False
                if code_of(error) not in NO_UPLOAD or self.size(key) != size:
                    raise  # else it was completed, and the answer lost
        return True

    def delete(self, key: str) -> None:
        """Removes an object."""
        with self._writing("remove", key):
            self._ask("delete_object", **self._at(key))

    def check_writable(self) -> None:
        """Tries it: once or not at all, from one state to the next, and a whole upload in parts."""
        probe(self)
        key = f"{PROBES}{uuid.uuid4().hex}"  # its own: another publisher may be trying too
        self.put(key, b"first")
        try:
            if self.write_tagged(key, b"second", '"00000000000000000000000000000000"') is not None:
                raise ignores_conditions(self.url, "If-Match")
            with self._writing("write", key):
                if Upload(self._ask, self._at(key)).overwrites():
                    raise ignores_conditions(self.url, "If-None-Match of uploads in parts")
        finally:
            self.delete(key)

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Yields uploads that were begun and neither completed nor given up, and probes."""
        pages = self._client.get_paginator("list_multipart_uploads")
        with self._asked("list uploads of", ""):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for found in page.get("Uploads", ()):
                    since = _utc(found["Initiated"])
                    if found["Key"].startswith(self._prefix) and since < before:
                        name = found["Key"].removeprefix(self._prefix)
                        yield Abandoned(name=name, since=since, upload=found["UploadId"])
        for entry in self.list(PROBES):
            if entry.modified < before:
                yield Abandoned(name=entry.key, since=entry.modified)

    def discard(self, left: Abandoned) -> None:
        """Gives an upload up, with its parts; removes a probe."""
        if not left.upload:
            return self.delete(left.name)
        at = {"Bucket": self._bucket, "Key": self._prefix + left.name}
        with self._asked("give up the upload of", left.name):
            try:
                self._ask("abort_multipart_upload", **at, UploadId=left.upload)
            except aws.ClientError as error:
                if code_of(error) not in NO_UPLOAD:
                    raise
        return None

    # Locks

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Holds a lease on ``locks/<name>.json``: see :mod:`zoo.stores.s3.lease`."""
        key = f"locks/{check_key(name)}.json"
        return self._hold(
            Lease(self, key, seconds=self._lease, patience=self._patience, say=self._say)
        )

    @contextmanager
    def _hold(self, lease: Lease) -> Iterator[None]:
        with lease.held():
            self._held.append(lease)
            try:
                yield
            finally:
                self._held.remove(lease)

    def read_tagged(self, key: str) -> Tagged | None:
        """Returns an object's bytes, its tag, and its age by the server's clock."""

        def read() -> tuple[Any, bytes]:
            answer = self._ask("get_object", **self._at(key))
            with closing(answer["Body"]) as body:
                return answer, bytes(body.read())

        try:
            with self._asked("read", key):
                answer, data = again(read, _BROKEN)
        except KeyError:
            return None
        date, modified = server_time(answer), _utc(answer["LastModified"])
        age = 0.0 if date is None else (date - modified).total_seconds()
        return Tagged(data=data, tag=answer["ETag"], age=age)

    def write_tagged(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Writes an object if it still is the one with a tag; None: if there still is none.

        Returns:
            Its new tag, or None when somebody else was faster.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        return self._put(key, data, condition, guarded=False)

    # Requests

    def _put(
        self, key: str, data: bytes, condition: dict[str, str], *, guarded: bool = True
    ) -> str | None:
        """Writes an object; returns its tag, or None when the condition did not hold."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()

        def write() -> str | None:
            try:
                answer = self._ask(
                    "put_object", **self._at(key), Body=data, ChecksumSHA256=digest, **condition
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

        with self._writing("write", key) if guarded else self._asked("write", key):
            return again(write, (_RacedError,))

    def _own_echo(self, key: str, data: bytes, error: aws.ClientError) -> str | None:
        """Returns the tag of an object that an earlier attempt of the same request wrote.

        Its answer was lost on the way, and what was sent again met what it had written.
        """
        if not error.response.get("ResponseMetadata", {}).get("RetryAttempts"):
            return None
        answer = self._ask("get_object", **self._at(key))
        return str(answer["ETag"]) if answer["Body"].read(len(data) + 1) == data else None

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

        return again(once, (*_AWAY, _TroubledError) if self._answered else ())

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


class _RacedError(Exception):
    """Two conditional writes met; one more try shows who won."""


def _utc(time: datetime) -> datetime:
    return time.astimezone(timezone.utc)
