"""Multipart upload of a large file to an S3 server, several parts at a time.

boto3's s3transfer is not used: it can't make a whole upload conditional (``If-None-Match`` of
``CompleteMultipartUpload``), and over TLS it sends checksums as trailers, which many servers do
not support.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from botocore import exceptions as aws
from typing_extensions import NotRequired

from zoo.stores.base import Progress
from zoo.stores.s3.errors import CONDITION, code_of
from zoo.stores.transfer import PART, in_order, spans

Ask = Callable[..., Any]

_MOST_PARTS = 10_000
"""Largest number of parts of an upload (S3, "Multipart upload limits")."""


class Part(TypedDict):
    """An uploaded part, as ``CompleteMultipartUpload`` lists it.

    Attributes:
        PartNumber: Its number, starting at 1.
        ETag: ETag that the server returned.
        ChecksumSHA256: SHA-256 in base64; absent if the server does not store it.
    """

    PartNumber: int
    ETag: str
    ChecksumSHA256: NotRequired[str]


class Upload:
    """A multipart upload, completed or aborted.

    Args:
        ask: Sends a request, given the name of the operation and its arguments.
        at: Bucket and key of the object, as arguments of requests.
    """

    def __init__(self, ask: Ask, at: dict[str, str]) -> None:
        self._ask = ask
        self._at = at

    def send(self, path: Path, size: int, progress: Progress | None) -> None:
        """Writes a file as an object that must not exist yet.

        Args:
            path: The file.
            size: Length in bytes; at least 1.
            progress: Called with the number of bytes of each part that the server has stored.

        Raises:
            aws.ClientError: The condition failed because the object exists, or another error.
        """
        part = max(PART, -(-size // _MOST_PARTS))

        def send_part(span: tuple[int, int]) -> Part:
            with path.open("rb") as file:
                file.seek(span[0])
                return self._send_part(1 + span[0] // part, file.read(span[1]))

        self._id = self._begin()
        parts = []
        try:
            with contextlib.closing(in_order(send_part, spans(0, size, part))) as sent:
                for (_, length), sent_part in zip(spans(0, size, part), sent, strict=True):
                    parts.append(sent_part)
                    if progress is not None:
                        progress(length)
            self._complete(parts)
        except BaseException:
            self._abort()
            raise

    def overwrites(self) -> bool:
        """Whether an upload replaces an existing object although its condition forbids it."""
        self._id = self._begin()
        try:
            self._complete([self._send_part(1, b"third")])
        except aws.ClientError as error:
            self._abort()
            if code_of(error) in CONDITION:
                return False
            raise
        return True

    def _begin(self) -> str:
        upload = self._ask("create_multipart_upload", **self._at, ChecksumAlgorithm="SHA256")
        return str(upload["UploadId"])

    def _send_part(self, number: int, data: bytes) -> Part:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        answer = self._ask(
            "upload_part",
            **self._at,
            UploadId=self._id,
            PartNumber=number,
            Body=data,
            ChecksumSHA256=digest,
        )
        part: Part = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumSHA256" in answer:  # the server stores it
            part["ChecksumSHA256"] = digest
        return part

    def _complete(self, parts: list[Part]) -> None:
        self._ask(
            "complete_multipart_upload",
            **self._at,
            UploadId=self._id,
            MultipartUpload={"Parts": parts},
            IfNoneMatch="*",
        )

    def _abort(self) -> None:
        with contextlib.suppress(
            aws.ClientError, aws.BotoCoreError
        ):  # then garbage collection aborts it
            self._ask("abort_multipart_upload", **self._at, UploadId=self._id)
