"""A store in a bucket of an S3 server, through boto3.

Imported by :func:`zoo.stores.open_store` for ``s3://`` alone: boto3 is an extra.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from pathlib import Path

from botocore import exceptions as aws

from zoo.stores.base import (
    PROBES,
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
from zoo.stores.s3.conditional import ConditionalWrites
from zoo.stores.s3.errors import (
    CONDITION,
    CONFLICT,
    NO_UPLOAD,
    code_of,
)
from zoo.stores.s3.lease import Lease
from zoo.stores.s3.requests import BROKEN, utc
from zoo.stores.s3.upload import Upload
from zoo.stores.transfer import PART, again, append_parts, appending


class S3Store(ConditionalWrites):
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
            return again(read, BROKEN)

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
                return again(lambda: self._part(key, first, length, head["ETag"]), BROKEN)

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
                            key=key, size=found["Size"], modified=utc(found["LastModified"])
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
                    since = utc(found["Initiated"])
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
