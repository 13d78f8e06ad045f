"""Writes on a condition: once or not at all, or from one known state to the next."""

from __future__ import annotations

import base64
import hashlib
from contextlib import closing
from typing import Any

from botocore import exceptions as aws

from zoo.stores.s3.errors import (
    ABSENT,
    CONDITION,
    CONFLICT,
    code_of,
    server_time,
)
from zoo.stores.s3.lease import Tagged
from zoo.stores.s3.requests import BROKEN, Requests, utc
from zoo.stores.transfer import again


class ConditionalWrites(Requests):
    """Reads and writes objects with their tags."""

    def read_tagged(self, key: str) -> Tagged | None:
        """Returns an object's bytes, its tag, and its age by the server's clock."""

        def read() -> tuple[Any, bytes]:
            answer = self._ask("get_object", **self._at(key))
            with closing(answer["Body"]) as body:
                return answer, bytes(body.read())

        try:
            with self._asked("read", key):
                answer, data = again(read, BROKEN)
        except KeyError:
            return None
        date, modified = server_time(answer), utc(answer["LastModified"])
        age = 0.0 if date is None else (date - modified).total_seconds()
        return Tagged(data=data, tag=answer["ETag"], age=age)

    def write_tagged(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Writes an object if it still is the one with a tag; None: if there still is none.

        Returns:
            Its new tag, or None when somebody else was faster.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        return self._put(key, data, condition, guarded=False)

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


class _RacedError(Exception):
    """Two conditional writes met; one more try shows who won."""
