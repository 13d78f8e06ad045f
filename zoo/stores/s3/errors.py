"""Converts errors of S3 requests to this project's errors, each with a hint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from botocore import exceptions as aws

from zoo.util.causes import plain
from zoo.util.errors import RepositoryError

_CREDENTIALS = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
    "(docs/reference/stores.md), or read with --anonymous"
)
_ENDPOINT = "check the network and AWS_ENDPOINT_URL_S3; run this again when the server is back"

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
CONDITION = frozenset({"PreconditionFailed", "412"})
CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
_SIGNATURE = "SignatureDoesNotMatch"
NO_UPLOAD = frozenset({"NoSuchUpload"})

# Message and hint for each error code.
_CODES: dict[str, tuple[str, str]] = {
    "NoSuchBucket": (
        "there is no such bucket",
        "check the name and the endpoint (AWS_ENDPOINT_URL_S3), or create the bucket",
    ),
    "InvalidBucketName": ("this is not a valid bucket name", "check the URL"),
    "InvalidAccessKeyId": ("the server does not know this access key", _CREDENTIALS),
    _SIGNATURE: (
        "the secret key does not belong to the access key",
        f"wrong credentials: {_CREDENTIALS}",
    ),
    "InvalidToken": ("the session token is not valid", _CREDENTIALS),
    "ExpiredToken": ("the credentials have expired", "renew them, for example with aws sso login"),
    "PermanentRedirect": ("the bucket is in another region", "set AWS_REGION to its region"),
    "AuthorizationHeaderMalformed": (
        "the request was signed for another region",
        "set AWS_REGION to the bucket's region",
    ),
    "PreconditionFailed": (
        "another writer changed the object in the meantime",
        "run this again",
    ),
    "BadDigest": ("the bytes arrived corrupted", "run this again; if it persists, check the "
                  "network and this machine's memory"),
    "QuotaExceeded": ("the bucket is full", "free some space with zoo-farm gc, or raise the quota"),
    "InsufficientStorage": ("the server's disk is full", "free some space with zoo-farm gc"),
    "EntityTooLarge": ("the server does not accept objects of this size", "ask its operator"),
    "SlowDown": ("the server is overloaded", "run this again later; completed work is kept"),
    "ServiceUnavailable": ("the server is overloaded or down", "run this again later"),
}  # fmt: skip

# Message and hint for each exception without a response, subclasses first.
_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (aws.NoCredentialsError, "there are no credentials", _CREDENTIALS),
    (aws.PartialCredentialsError, "the credentials are incomplete", _CREDENTIALS),
    (aws.CredentialRetrievalError, "the credentials can't be retrieved", _CREDENTIALS),
    (aws.ProfileNotFound, "there is no such profile", "check AWS_PROFILE and ~/.aws/config"),
    (aws.TokenRetrievalError, "the login has expired", "log in again: aws sso login"),
    (aws.SSOError, "the login has expired", "log in again: aws sso login"),
    (aws.ParamValidationError, "the request is invalid", "check the URL"),
    (
        aws.SSLError,
        "its certificate is not trusted",
        "set AWS_CA_BUNDLE to a file with its certificate authority",
    ),
    (aws.ProxyConnectionError, "the proxy is unreachable", "check HTTPS_PROXY and NO_PROXY"),
    (aws.ConnectionError, "the server is unreachable", _ENDPOINT),
    (aws.HTTPClientError, "the server stopped responding", _ENDPOINT),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The store that requests go to.

    Attributes:
        url: URL of the store.
        endpoint: URL of the server.
        now: This machine's clock, UTC.
    """

    url: str
    endpoint: str
    now: Callable[[], datetime]

    def explain(self, verb: str, key: str, error: Exception) -> RepositoryError:
        """Returns this project's error for one of botocore's.

        Args:
            verb: The operation, such as ``read``.
            key: Key of the object; empty for the store as a whole.
            error: The exception.
        """
        about = f"{self.url}: can't {verb} {key or 'it'}"
        if isinstance(error, aws.ClientError):
            what, hint = self._from_response(verb, error)
        else:
            what, hint = self._from_exception(error)
        return RepositoryError(f"{about}: {what} ({self.endpoint})", hint=hint)

    def _from_response(self, verb: str, error: aws.ClientError) -> tuple[str, str]:
        code = code_of(error)
        if code in ("RequestTimeTooSkewed", "RequestExpired"):
            return self._skewed(error)
        if code in DENIED:
            return (
                f"access denied: these credentials have no permission to {verb} there",
                "docs/reference/stores.md lists the permissions that readers, builders and "
                "publishers need; "
                f"otherwise {_CREDENTIALS}",
            )
        if code in _CODES:
            return _CODES[code]
        message = error.response.get("Error", {}).get("Message") or "no message"
        return (
            f"the server reports {code}: {message}",
            "run this again; if it persists, ask the server's operator",
        )

    def _skewed(self, error: aws.ClientError) -> tuple[str, str]:
        date = server_time(error.response)
        if date is None:
            return "this machine's clock is wrong", "set the clock"
        seconds = (self.now() - date).total_seconds()
        way = "ahead of" if seconds > 0 else "behind"
        return (
            f"this machine's clock is {_rounded(abs(seconds))} {way} the server's, "
            f"which says {date:%Y-%m-%d %H:%M:%S} UTC",
            "set this machine's clock, ideally with NTP; S3 rejects requests that are more than "
            "15 minutes off",
        )

    def _from_exception(self, error: Exception) -> tuple[str, str]:
        for kind, what, hint in _CAUSES:
            if isinstance(error, kind):
                return f"{what}: {_first_line(error)}", hint
        return _first_line(error), "check the URL and the AWS_ variables (docs/reference/stores.md)"


def code_of(error: aws.ClientError) -> str:
    """Returns an error's code; the status if the response had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_signature_refused(error: RepositoryError) -> bool:
    """Whether the server refused a request because its signature did not match."""
    cause = error.__cause__
    return isinstance(cause, aws.ClientError) and code_of(cause) == _SIGNATURE


def strips_conditions(url: str) -> RepositoryError:
    """Returns the error to raise if only requests with conditions arrive with a wrong signature."""
    return RepositoryError(
        f"{url}: a proxy before this server changes the headers of conditional writes "
        "(If-None-Match): the server accepts writes without them and refuses those with them, "
        "whose signature then does not match",
        hint="configure the proxy to pass all headers on, or set AWS_ENDPOINT_URL_S3 to the server "
        "itself",
    )


def server_time(answer: dict[str, object]) -> datetime | None:
    """Returns the server's time of a response, UTC; None without a ``Date`` header."""
    metadata = answer.get("ResponseMetadata")
    headers = metadata.get("HTTPHeaders", {}) if isinstance(metadata, dict) else {}
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return (plain(str(error)) or type(error).__name__).rstrip(".")


def _rounded(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
