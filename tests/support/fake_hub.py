"""A Hugging Face hub on loopback: what huggingface_hub asks for, served from memory or files."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class FakeHub:
    """Serves repositories of one commit each.

    ``truncate`` names files whose bodies break off half way, and ``corrupt`` files whose bytes are
    not those that the API announces.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, Path]] = {}
        self.truncate: set[str] = set()
        self.corrupt: set[str] = set()
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to talk to this hub and to no other."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def add(self, repository: str, name: str, path: Path) -> None:
        self.files.setdefault(repository, {})[name] = path

    def revision(self, repository: str) -> str:
        return hashlib.sha1(repository.encode()).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(request.path.partition("?")[0]).strip("/")
        self.requests.append(f"{request.command} {path}")
        parts = path.split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.files:
            return self._info(request, "/".join(parts[2:4]))
        repository = "/".join(parts[:2])
        files = self.files.get(repository, {})
        if len(parts) >= 5 and parts[2] == "resolve" and parts[4] in files:
            if parts[3] in ("main", self.revision(repository)):
                return self._file(request, repository, parts[4], files[parts[4]], body)
            return self._error(request, "RevisionNotFound")
        return self._error(request, "EntryNotFound" if files else "RepoNotFound")

    def _info(self, request: BaseHTTPRequestHandler, repository: str) -> None:
        siblings = []
        for name, path in self.files[repository].items():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = path.stat().st_size
            lfs = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append({"rfilename": name, "size": size, "blobId": digest[:40], "lfs": lfs})
        info = {
            "_id": "0",
            "id": repository,
            "modelId": repository,
            "sha": self.revision(repository),
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }
        data = json.dumps(info).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _file(
        self, request: BaseHTTPRequestHandler, repository: str, name: str, path: Path, body: bool
    ) -> None:
        data = path.read_bytes()
        if name in self.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        request.send_response(200)
        request.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        request.send_header("X-Repo-Commit", self.revision(repository))
        request.send_header("Content-Length", str(len(data)))
        request.send_header("Accept-Ranges", "none")
        request.end_headers()
        if body:
            request.wfile.write(data[: len(data) // 2] if name in self.truncate else data)
        if name in self.truncate:
            request.close_connection = True

    def _error(self, request: BaseHTTPRequestHandler, code: str) -> None:
        request.send_response(404)
        request.send_header("X-Error-Code", code)
        request.send_header("X-Error-Message", code)
        request.send_header("Content-Length", "0")
        request.end_headers()
