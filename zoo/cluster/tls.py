"""Secures connections of a cluster: mutual TLS, or plain TCP on the loopback interface only.

Anybody who can connect to a Dask scheduler can run code on its workers. Therefore every connection
except on loopback requires a certificate signed by the cluster's own authority.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import ssl
import traceback
from pathlib import Path
from typing import Any, Literal

from zoo.cluster import CERTS
from zoo.util.causes import plain
from zoo.util.errors import ClusterError, MissingPackageError, UsageError

Role = Literal["scheduler", "worker", "client"]
ROLES: tuple[Role, ...] = ("scheduler", "worker", "client")


def certs_folder(text: str) -> Path | None:
    """Returns the folder of certificates from an option or the environment, None without either."""
    named = text or os.environ.get(CERTS, "")
    return Path(named) if named else None


def open_security(role: Role, certs: Path | None) -> Any:
    """Returns Dask's security settings for a role, None for plain TCP.

    Raises:
        UsageError: A file is missing from the folder, or is damaged.
        MissingPackageError: distributed is not installed.
    """
    try:
        from distributed.security import Security
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "a cluster needs distributed, which is not installed",
            hint="pip install 'caft-zoo[dask]'; in a checkout, pip install '.[dask]' "
            "-c constraints.txt",
        ) from error
    if certs is None:
        return None
    files = {
        "tls_ca_file": certs / "ca.pem",
        f"tls_{role}_cert": certs / f"{role}.pem",
        f"tls_{role}_key": certs / f"{role}-key.pem",
    }
    for path in files.values():
        if not path.is_file():
            raise UsageError(
                f"{path} is missing", hint=f"create it with zoo-farm cluster certs {certs}"
            )
    paths = {name: str(path.resolve()) for name, path in files.items()}
    if role == "worker":  # a worker and its nanny are also clients of the scheduler
        paths |= {"tls_client_cert": paths["tls_worker_cert"]}
        paths |= {"tls_client_key": paths["tls_worker_key"]}
    security = Security(require_encryption=True, **paths)
    try:
        security.get_connection_args(role)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"{files[f'tls_{role}_cert']}, its key or {certs / 'ca.pem'} is damaged: {error}",
            hint="create new ones with zoo-farm cluster certs, in the folder that has ca-key.pem",
        ) from error
    return security


def check_address(address: str, certs: Path | None) -> str:
    """Returns a scheduler's address after checking it.

    Raises:
        UsageError: It is not an address, is TLS without certificates, or is plain TCP to another
            machine.
    """
    scheme, colon, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    is_port = port.isdecimal() and int(port) <= 65_535
    if not colon or scheme not in ("tls", "tcp") or not host or not is_port:
        raise UsageError(
            f"{address} is not a scheduler's address",
            hint="use tls://host:8786, for example; zoo-farm cluster up prints its address",
        )
    if scheme == "tls" and certs is None:
        raise UsageError(
            f"{address} needs certificates",
            hint=f"name their folder with --certs DIR (CERTS=, ${CERTS}); create them with "
            "zoo-farm cluster certs DIR",
        )
    if scheme == "tcp" and not is_loopback(host):
        raise UsageError(
            f"{address} would send jobs unencrypted, and accept them from anybody",
            hint="create certificates with zoo-farm cluster certs DIR, then use tls://",
        )
    return address


def is_loopback(host: str) -> bool:
    """Whether a host is the loopback interface, which other machines can't reach."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def quiet() -> None:
    """Silences Dask's loggers: errors are raised, and reported once."""
    importlib.import_module("distributed")  # its import sets log levels
    for name in ("distributed", "tornado", *logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def say_cause(error: BaseException) -> str:
    """Returns the message of a Dask error's cause; its own message names Dask's objects.

    Causes without a message, such as timeouts, are skipped.
    """
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    if _is_plain_text(error):
        return "it does not use TLS"
    return plain(str(error)) or "it does not respond like a scheduler"


def _is_plain_text(error: BaseException) -> bool:
    """Whether a TLS handshake failed because the other side sent something that is not TLS.

    OpenSSL has a reason code for that. If the bytes arrive before the handshake, Tornado raises a
    plain ``ValueError``, which is recognised by where it was raised.
    """
    if isinstance(error, ssl.SSLError):
        return error.reason == "WRONG_VERSION_NUMBER"
    from tornado.iostream import IOStream

    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, ValueError) and codes[-1:] == [IOStream.start_tls.__code__]


def connect(address: str, certs: Path | None, timeout: float = 10) -> Any:
    """Connects to a scheduler; returns a ``distributed.Client``.

    Raises:
        ClusterError: No scheduler responds, or it rejects the certificate.
    """
    check_address(address, certs)
    security = open_security("client", certs if address.startswith("tls") else None)
    quiet()
    import asyncio

    from distributed import Client

    try:
        asyncio.run(_greet(address, security, timeout))
        return Client(address, security=security, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise ClusterError(
            f"no scheduler responds at {address}: {say_cause(error)}",
            hint="check that it is running (zoo-farm cluster up, cluster scheduler) and that all "
            "certificates are from one authority",
        ) from error


async def _greet(address: str, security: Any, timeout: float) -> None:
    """Connects once: a client would wait forever for a peer that is not a scheduler."""
    import asyncio

    from distributed.comm import connect as dial

    arguments = security.get_connection_args("client") if security else {}
    comm = await asyncio.wait_for(dial(address, timeout=timeout, **arguments), timeout + 1)
    comm.abort()
