"""A store in a bucket of an S3 server, through boto3.

:func:`zoo.stores.open_store` imports it for ``s3://`` URLs only: boto3 is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from botocore import exceptions as aws

from zoo.stores.base import (
    PROBES,
    Abandoned,
    Entry,
    Progress,
    Take,
    check_key,
    check_prefix,
    is_key,
    too_long,
)
from zoo.stores.lock_owner import PATIENCE, Say, to_stderr
from zoo.stores.patience import let_go
from zoo.stores.s3.bucket import BROKEN, Bucket, utc
from zoo.stores.s3.errors import (
    CONDITION,
    CONFLICT,
    NO_UPLOAD,
    code_of,
)
from zoo.stores.s3.lease import LEASE, Lease
from zoo.stores.s3.probes import check_conditions
from zoo.stores.s3.upload import Upload
from zoo.stores.transfer import PART, again, append_parts, appending


class S3Store:
    """An :class:`~zoo.stores.base.ObjectStore` under a prefix of a bucket.

    Large objects are transferred in parts, several at a time. Every write carries its SHA-256,
    which servers that support it check and store. Objects that must be written only once are
    written on the condition that they do not exist.

    Args:
        client: boto3 client of service ``s3``.
        bucket: Name of the bucket.
        prefix: Prefix of all keys of this store; empty for the whole bucket.
        say: Called with a message when a lock has to be waited for.
        lease: Seconds without renewal after which a writer's lock is taken over.
        patience: Seconds to wait for a lock.
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
        self._bucket = Bucket(client, bucket, prefix, now)
        self._say, self._lease, self._patience = say, lease, patience

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``; the endpoint comes from the environment."""
        return self._bucket.url

    # Reading

    def get(self, key: str, *, limit: int | None = None) -> bytes:
        """Returns an object's bytes."""

        def read() -> bytes:
            answer = self._bucket.ask("get_object", **self._bucket.at(key))
            if limit is not None and answer["ContentLength"] > limit:
                let_go(answer["Body"])
                raise too_long(self.url, key, limit)
            return self._bucket.body_of(answer, key)  # raises unless the length is ContentLength

        with self._bucket.asked("read", key):
            return again(read, BROKEN)

    def size(self, key: str) -> int | None:
        """Returns an object's length, None if it does not exist."""
        try:
            return int(self._bucket.head(key)["ContentLength"])
        except KeyError:
            return None

    def fetch(
        self, key: str, path: Path, *, size: int | None = None, progress: Progress | None = None
    ) -> None:
        """Copies an object to a file, in parts, all from the same version of the object."""
        head = self._bucket.head(key)
        end = int(head["ContentLength"])
        if size is not None and end > size:
            raise too_long(self.url, key, size)

        def read(first: int, length: int) -> bytes:
            with self._bucket.asked("read", key):
                return again(lambda: self._bucket.part(key, first, length, head["ETag"]), BROKEN)

        with appending(path) as file:
            append_parts(file, end, read, progress)

    def read_range(self, key: str, first: int, length: int) -> bytes:
        """Returns a range of an object."""
        with self._bucket.asked("read", key):
            return again(lambda: self._bucket.part(key, first, length), BROKEN)

    def stream_range(self, key: str, first: int, length: int, take: Take) -> None:
        """Passes a range of an object on in one piece."""
        take(self.read_range(key, first, length))

    def local_path(self, key: str) -> Path | None:
        """Returns None: the objects are on the server."""
        return None

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys start with ``prefix``, with a request per 1,000."""
        begin = self._bucket.prefix + check_prefix(prefix)
        with self._bucket.asked("list", prefix):
            pages = self._bucket.pages("list_objects_v2", Bucket=self._bucket.name, Prefix=begin)
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._bucket.prefix)
                    if is_key(key):
                        yield Entry(key=key, size=item["Size"], modified=utc(item["LastModified"]))

    # Writing

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Writes an object; returns whether this call wrote it."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        return self._bucket.put(key, data, condition) is not None

    def put_file(self, key: str, path: Path, *, progress: Progress | None = None) -> bool:
        """Writes a file as an object unless it exists; a large file in parts."""
        if self.size(key) is not None:
            return False
        size = path.stat().st_size
        if size <= PART:
            written = self.put(key, path.read_bytes(), if_absent=True)
            if written and progress is not None:
                progress(size)
            return written
        with self._bucket.writing("write", key):
            try:
                Upload(self._bucket.ask, self._bucket.at(key)).send(path, size, progress)
            except aws.ClientError as error:
                if code_of(error) in CONDITION | CONFLICT:  # another writer was faster
                    return False
                if code_of(error) not in NO_UPLOAD or self.size(key) != size:
                    raise  # otherwise it was completed and the response lost
        return True

    def delete(self, key: str) -> None:
        """Removes an object."""
        with self._bucket.writing("remove", key):
            self._bucket.ask("delete_object", **self._bucket.at(key))

    def check_writable(self) -> None:
        """Tests conditional writes: creation, races, replacement, and multipart uploads."""
        check_conditions(self, self._bucket)

    def abandoned(self, before: datetime) -> Iterator[Abandoned]:
        """Yields multipart uploads that were neither completed nor aborted, and probes."""
        with self._bucket.asked("list uploads of", ""):
            at = {"Bucket": self._bucket.name, "Prefix": self._bucket.prefix}
            for page in self._bucket.pages("list_multipart_uploads", **at):
                for upload in page.get("Uploads", ()):
                    since = utc(upload["Initiated"])
                    if upload["Key"].startswith(self._bucket.prefix) and since < before:
                        name = upload["Key"].removeprefix(self._bucket.prefix)
                        yield Abandoned(name=name, since=since, upload=upload["UploadId"])
        for entry in self.list(PROBES):
            if entry.modified < before:
                yield Abandoned(name=entry.key, since=entry.modified)

    def discard(self, left: Abandoned) -> None:
        """Aborts an upload and deletes its parts; deletes a probe."""
        if not left.upload:
            return self.delete(left.name)
        at = {"Bucket": self._bucket.name, "Key": self._bucket.prefix + left.name}
        with self._bucket.asked("abort the upload of", left.name):
            try:
                self._bucket.ask("abort_multipart_upload", **at, UploadId=left.upload)
            except aws.ClientError as error:
                if code_of(error) not in NO_UPLOAD:
                    raise
        return None

    # Locks

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Holds a lease on ``locks/<name>.json``: see :mod:`zoo.stores.s3.lease`."""
        key = f"locks/{check_key(name)}.json"
        return self._hold(
            Lease(self._bucket, key, seconds=self._lease, patience=self._patience, say=self._say)
        )

    @contextmanager
    def _hold(self, lease: Lease) -> Iterator[None]:
        with lease.held():
            self._bucket.held.append(lease)
            try:
                yield
            finally:
                self._bucket.held.remove(lease)
