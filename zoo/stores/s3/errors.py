"""What an S3 server, or the way to it, refused: in words, with what to do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from botocore import exceptions as aws

from zoo.util.errors import RepositoryError

_CREDENTIALS = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(docs/reference/stores.md), or read with --anonymous"
)
_ENDPOINT = "check the network and AWS_ENDPOINT_URL_S3; when the server is back, run this again"

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
CONDITION = frozenset({"PreconditionFailed", "412"})
CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
NO_UPLOAD = frozenset({"NoSuchUpload"})

# What an error code means, and what to do about it. {place} is bucket and endpoint.
_CODES: dict[str, tuple[str, str]] = {
    "NoSuchBucket": (
        "there is no such bucket",
        "check the name and the endpoint (AWS_ENDPOINT_URL_S3), or make the bucket",
    ),
    "InvalidBucketName": ("that is no name for a bucket", "check the URL"),
    "InvalidAccessKeyId": ("the server does not know this access key", _CREDENTIALS),
    "SignatureDoesNotMatch": (
        "the secret key does not belong to the access key",
        f"wrong credentials: {_CREDENTIALS}",
    ),
    "InvalidToken": ("the session token is not valid", _CREDENTIALS),
    "ExpiredToken": ("the credentials have expired", "get new ones: aws sso login, or the like"),
    "PermanentRedirect": ("the bucket is in another region", "set AWS_REGION to the bucket's"),
    "AuthorizationHeaderMalformed": (
        "the request was signed for another region",
        "set AWS_REGION to the bucket's",
    ),
    "PreconditionFailed": (
        "the object was changed by somebody else in the meantime",
        "run this again",
    ),
    "BadDigest": ("the bytes were changed on the way", "run this again; if it stays, the network "
                  "or this machine's memory is damaged"),
    "QuotaExceeded": ("the bucket is full", "free some space: zoo-farm gc, or a larger quota"),
    "InsufficientStorage": ("the server's disk is full", "free some space: zoo-farm gc"),
    "EntityTooLarge": ("the server does not take objects of this size", "ask who runs it"),
    "SlowDown": ("the server is overloaded", "run this again later; what is done is kept"),
    "ServiceUnavailable": ("the server is overloaded or down", "run this again later"),
}  # fmt: skip

# What kept a request from being sent or answered, the more special first.
_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (aws.NoCredentialsError, "there are no credentials", _CREDENTIALS),
    (aws.PartialCredentialsError, "the credentials are not complete", _CREDENTIALS),
    (aws.CredentialRetrievalError, "the credentials can't be had", _CREDENTIALS),
    (aws.ProfileNotFound, "there is no such profile", "check AWS_PROFILE and ~/.aws/config"),
    (aws.TokenRetrievalError, "the login has expired", "log in anew: aws sso login"),
    (aws.SSOError, "the login has expired", "log in anew: aws sso login"),
    (aws.ParamValidationError, "the server can't be asked that", "check the URL"),
    (
        aws.SSLError,
        "its certificate is not trusted",
        "AWS_CA_BUNDLE names a file of those that are",
    ),
    (aws.ProxyConnectionError, "the proxy can't be reached", "check HTTPS_PROXY and NO_PROXY"),
    (aws.ConnectionError, "the server can't be reached", _ENDPOINT),
    (aws.HTTPClientError, "the server stopped answering", _ENDPOINT),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where requests go.

    Attributes:
        url: Of the store.
        endpoint: Of the server.
        now: This machine's clock, UTC.
    """

    url: str
    endpoint: str
    now: Callable[[], datetime]

    def explain(self, verb: str, key: str, error: Exception) -> RepositoryError:
        """Puts an error of botocore in words.

        Args:
            verb: What was tried: ``read``.
            key: With which object; empty for the store as a whole.
            error: What came of it.
        """
        about = f"{self.url}: can't {verb} {key or 'it'}"
        if isinstance(error, aws.ClientError):
            what, hint = self._answer(verb, error)
        else:
            what, hint = self._cause(error)
        return RepositoryError(f"{about}: {what} ({self.endpoint})", hint=hint)

    def _answer(self, verb: str, error: aws.ClientError) -> tuple[str, str]:
        code = code_of(error)
        if code in ("RequestTimeTooSkewed", "RequestExpired"):
            return self._skewed(error)
        if code in DENIED:
            return (
                f"access denied: these credentials may not {verb} there",
                "docs/reference/stores.md lists the permissions that readers, builders and "
                "publishers need; "
                f"else {_CREDENTIALS}",
            )
        if code in _CODES:
            return _CODES[code]
        said = error.response.get("Error", {}).get("Message") or "no word"
        return f"the server says {code}: {said}", "run this again; if it stays, ask who runs it"

    def _skewed(self, error: aws.ClientError) -> tuple[str, str]:
        date = server_time(error.response)
        if date is None:
            return "this machine's clock is wrong", "set the clock"
        seconds = (self.now() - date).total_seconds()
        way = "ahead of" if seconds > 0 else "behind"
        return (
            f"this machine's clock is {_spoken(abs(seconds))} {way} the server's, "
            f"which says {date:%Y-%m-%d %H:%M:%S} UTC",
            "set this machine's clock, by NTP best; S3 takes no request that is 15 minutes off",
        )

    def _cause(self, error: Exception) -> tuple[str, str]:
        for kind, what, hint in _CAUSES:
            if isinstance(error, kind):
                return f"{what}: {_first_line(error)}", hint
        return _first_line(error), "check the URL and the AWS_ variables (docs/reference/stores.md)"


def code_of(error: aws.ClientError) -> str:
    """Returns the code of an error; of one without a body, the status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def server_time(answer: dict[str, object]) -> datetime | None:
    """Returns the server's clock when it gave an answer, UTC; None where it does not say."""
    metadata = answer.get("ResponseMetadata")
    headers = metadata.get("HTTPHeaders", {}) if isinstance(metadata, dict) else {}
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
