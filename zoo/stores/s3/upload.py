"""Upload: a large file goes to an S3 server in parts, several at a time.

s3transfer, which boto3 brings, does the same but takes no condition for the upload as a whole
(``If-None-Match`` of ``CompleteMultipartUpload``), and over TLS sends checksums as trailers, which
many servers do not read. Hence these few lines on boto3's own calls.
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
"""How many parts an upload may have (S3, "Multipart upload limits")."""


class Part(TypedDict):
    """An uploaded part, as ``CompleteMultipartUpload`` lists it.

    Attributes:
        PartNumber: Its number, from 1.
        ETag: The server's tag of it.
        ChecksumSHA256: SHA-256 in base64; absent if the server does not store it.
    """

    PartNumber: int
    ETag: str
    ChecksumSHA256: NotRequired[str]


class Upload:
    """One upload in parts: complete, or given up.

    Args:
        ask: Sends a request: the name of an operation, and its arguments.
        at: Bucket and key of the object.
    """

    def __init__(self, ask: Ask, at: dict[str, str]) -> None:
        self._ask = ask
        self._at = at

    def send(self, path: Path, size: int, progress: Progress | None) -> None:
        """Writes a file as an object that is not there yet.

        Args:
            path: The file.
            size: Its length, bytes; 1 or more.
            progress: Is told of bytes as the server has them.

        Raises:
            aws.ClientError: Of a condition, when the object is there by now; or of anything else.
        """
        part = max(PART, -(-size // _MOST_PARTS))

        def send_part(span: tuple[int, int]) -> Part:
            with path.open("rb") as file:
                file.seek(span[0])
                return self._send_part(1 + span[0] // part, file.read(span[1]))

        self._id = self._begin()
        done = []
        try:
            with contextlib.closing(in_order(send_part, spans(0, size, part))) as sent:
                for (_, length), answer in zip(spans(0, size, part), sent, strict=True):
                    done.append(answer)
                    if progress is not None:
                        progress(length)
            self._complete(done)
        except BaseException:
            self._give_up()
            raise

    def overwrites(self) -> bool:
        """Whether an upload replaces an object that is there, against its condition."""
        self._id = self._begin()
        try:
            self._complete([self._send_part(1, b"third")])
        except aws.ClientError as error:
            self._give_up()
            if code_of(error) in CONDITION:
                return False
            raise
        return True

    def _begin(self) -> str:
        begun = self._ask("create_multipart_upload", **self._at, ChecksumAlgorithm="SHA256")
        return str(begun["UploadId"])

    def _send_part(self, number: int, data: bytes) -> Part:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        sent = self._ask(
            "upload_part",
            **self._at,
            UploadId=self._id,
            PartNumber=number,
            Body=data,
            ChecksumSHA256=digest,
        )
        part: Part = {"PartNumber": number, "ETag": sent["ETag"]}
        if "ChecksumSHA256" in sent:  # the server stores it
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

    def _give_up(self) -> None:
        with contextlib.suppress(aws.ClientError, aws.BotoCoreError):  # else it is abandoned
            self._ask("abort_multipart_upload", **self._at, UploadId=self._id)
