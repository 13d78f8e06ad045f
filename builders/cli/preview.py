"""Serves the catalog on this machine."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from zoo.util.errors import UsageError

HOST = "127.0.0.1"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: Any) -> None:
        """Logs nothing: every page would print several lines."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Returns a listening server of a folder, reachable from this machine only.

    Args:
        folder: Folder to serve.
        port: TCP port; 0 for a free one.

    Raises:
        UsageError: The port is in use, or only root may use it.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise UsageError(
            f"port {port}: {error.strerror}", hint="use another port: make serve PORT=8001"
        ) from error


def serve(folder: Path, port: int) -> None:
    """Serves a folder until Ctrl-C."""
    with server(folder, port) as running:
        print(f"http://{HOST}:{running.server_address[1]}/ (Ctrl-C stops)", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
