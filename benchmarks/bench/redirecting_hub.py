"""A Hugging Face hub of one file, whose bytes another server sends, as the real hub's are."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class RedirectingHub:
    """The hub, as a context manager.

    Args:
        url: Where the file's bytes are.
        file: The file, for its size and SHA-256.
    """

    def __init__(self, url: str, file: Path) -> None:
        headers = {
            "X-Repo-Commit": "0" * 40,
            "X-Linked-Etag": f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"',
            "X-Linked-Size": str(file.stat().st_size),
            "Location": url,
            "Content-Length": "0",
        }

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.send_response(302)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_HEAD = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> RedirectingHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What makes huggingface_hub ask this hub and no other."""
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
