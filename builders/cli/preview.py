"""Serve: shows a site on this machine."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from zoo.util.errors import UsageError

HOST = "127.0.0.1"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: Any) -> None:
        """Says nothing: every page would be several lines."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Returns a server of a folder, for this machine alone; it listens already.

    Args:
        folder: What it shows.
        port: Where; 0 takes one that is free.

    Raises:
        UsageError: The port is taken, or is none.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Quiet, directory=str(folder)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "there is no such port"
        raise UsageError(
            f"port {port}: {reason}", hint="make serve PORT=8001 takes another"
        ) from error


def serve(folder: Path, port: int) -> None:
    """Shows a folder until Ctrl-C."""
    with server(folder, port) as running:
        print(f"http://{HOST}:{running.server_address[1]}/ (Ctrl-C stops)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
