"""A Hugging Face hub on loopback: what huggingface_hub and hf_xet ask for, from files.

The headers are those of the real hub: a file of weights is answered by a redirect to another host
(here ``localhost`` in place of ``127.0.0.1``), which carries ``X-Repo-Commit``, ``X-Linked-Etag``
(the file's SHA-256) and ``X-Linked-Size``, and for a file in Xet storage ``X-Xet-Hash`` and the
route to a token; a small file is answered directly, with git's hash of it as ``ETag``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from support import fake_xet

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Repository:
    """A repository: its commits, oldest first, each with its files."""

    commits: list[tuple[str, dict[str, Path]]] = field(default_factory=list)
    token: str | None = None
    private: bool = False


class FakeHub:
    """Serves repositories.

    Attributes:
        truncate: Names of files whose bodies always break off half way.
        interrupt: How many times the bodies of a file still break off half way.
        corrupt: Names of files whose bytes, and the hash announced with them, are not those that
            the API states.
        swapped: Names of files of which other bytes come than were announced.
        moved: From the former name of a repository to its present one.
        xet: Whether weights are in Xet storage.
        ranges: Whether a part of a file can be asked for.
        is_hub: False for a web server that answers everything with a page.
        hides_missing: Whether what is missing is answered with 401, as to a client without a token.
        requests: The requests so far.
        parts: The parts of large files that were asked for, as ``Range`` names them.
        downloads: How many times bytes of a file were asked for.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.truncate: set[str] = set()
        self.interrupt: Counter[str] = Counter()
        self.corrupt: set[str] = set()
        self.swapped: set[str] = set()
        self.moved: dict[str, str] = {}
        self.xet = False
        self.ranges = True
        self.is_hub = True
        self.hides_missing = False
        self.requests: list[str] = []
        self.parts: list[str] = []
        self.downloads: Counter[str] = Counter()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

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

    @property
    def storage(self) -> str:
        """Where the hub keeps large files: another host, to a client."""
        return f"http://localhost:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to talk to this hub and to no other."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def add(self, repository: str, name: str, path: Path) -> None:
        """Adds a file to the newest commit of a repository."""
        held = self.repositories.setdefault(repository, Repository())
        if not held.commits:
            held.commits.append((_sha1(repository), {}))
        held.commits[-1][1][name] = path

    def commit(self, repository: str) -> str:
        """Makes another commit of a repository, with the files of the one before; returns it."""
        commits = self.repositories[repository].commits
        commits.append((_sha1(f"{repository} {len(commits)}"), dict(commits[-1][1])))
        return commits[-1][0]

    def revision(self, repository: str) -> str:
        """Returns the newest commit of a repository."""
        held = self.repositories.get(repository)
        return held.commits[-1][0] if held else _sha1(repository)

    def gate(self, repository: str, token: str, *, private: bool = False) -> None:
        """Makes the files of a repository readable with a token only; if private, all of it."""
        held = self.repositories[repository]
        held.token, held.private = token, private

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(request.path.partition("?")[0]).strip("/")
        self.requests.append(f"{request.command} {path}")
        if not self.is_hub:
            return self._send(request, 200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
        parts = path.split("/")
        if parts[0] == "storage":
            return self._stored(request, *parts[1:])
        if parts[:2] == ["api", "models"]:
            return self._api(request, "/".join(parts[2:4]), parts[4:])
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._resolve(request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._error(request, 404, "RepoNotFound")

    def _repository(self, request: BaseHTTPRequestHandler, name: str) -> Repository | None:
        """Returns a repository; answers the request itself if there is none."""
        if name in self.moved:
            location = request.path.replace(name, self.moved[name], 1)
            self._send(request, 307, b"", {"Location": location})
            return None
        held = self.repositories.get(name)
        refused = held is not None and held.private and not _has(request, held.token)
        if held is None or refused:
            self._error(request, 401 if self.hides_missing or refused else 404, "RepoNotFound")
            return None
        return held

    def _files(
        self, request: BaseHTTPRequestHandler, held: Repository, revision: str
    ) -> tuple[str, dict[str, Path]] | None:
        if revision == "main":
            return held.commits[-1]
        for commit in held.commits:
            if commit[0] == revision:
                return commit
        self._error(request, 404, "RevisionNotFound")
        return None

    def _api(self, request: BaseHTTPRequestHandler, name: str, rest: list[str]) -> None:
        if (held := self._repository(request, name)) is None:
            return None
        if rest[:1] == ["xet-read-token"]:
            token = fake_xet.token(self.storage + "/storage/cas")
            return self._send(request, 200, json.dumps(token.body).encode(), token.headers)
        commit = self._files(request, held, rest[1] if rest[:1] == ["revision"] else "main")
        if commit is None:
            return None
        siblings = []
        for file, path in commit[1].items():
            data = path.read_bytes()
            sibling: dict[str, Any] = {"rfilename": file, "size": len(data)}
            sibling["blobId"] = _git_hash(data)
            if _is_large(file):
                digest = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            siblings.append(sibling)
        info = {
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": commit[0],
            "private": held.private,
            "gated": "manual" if held.token and not held.private else False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }
        body = json.dumps(info).encode()
        return self._send(request, 200, body, {"Content-Type": "application/json"})

    def _resolve(
        self, request: BaseHTTPRequestHandler, name: str, revision: str, file: str
    ) -> None:
        if (held := self._repository(request, name)) is None:
            return None
        if held.token and not _has(request, held.token):
            asked = "Authorization" in request.headers
            return self._error(request, 403 if asked else 401, "GatedRepo")
        if (commit := self._files(request, held, revision)) is None:
            return None
        headers = {"X-Repo-Commit": commit[0]}
        if file not in commit[1]:
            return self._error(request, 404, "EntryNotFound", headers)
        data = self._bytes(file, commit[1][file])
        if not _is_large(file):
            headers["ETag"] = f'"{_git_hash(data)}"'
            return self._body(request, file, data, headers)
        digest = hashlib.sha256(data).hexdigest()
        headers |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.storage}/storage/lfs/{name}/{commit[0]}/{file}",
        }
        if self.xet:
            headers["X-Xet-Hash"] = digest
            route = f"{self.endpoint}/api/models/{name}/xet-read-token/{commit[0]}"
            headers["Link"] = f'<{route}>; rel="xet-auth"'
        return self._send(request, 302, b"", headers)

    def _stored(self, request: BaseHTTPRequestHandler, kind: str, *rest: str) -> None:
        """Answers as the storage behind the hub does, which is asked without the hub's token."""
        assert "Authorization" not in request.headers or kind == "cas"
        if kind == "lfs":
            owner, name, revision, file = rest
            path = dict(self.repositories[f"{owner}/{name}"].commits)[revision][file]
            return self._body(request, file, self._bytes(file, path), {})
        large = {
            hashlib.sha256(data).hexdigest(): (file, data)
            for held in self.repositories.values()
            for _, files in held.commits
            for file, path in files.items()
            if _is_large(file) and (data := self._bytes(file, path))
        }
        file, data = large[rest[-1]]
        if kind == "cas":
            if request.command == "GET" and "/".join(rest[:2]) == "v1/reconstructions":
                answer = fake_xet.reconstruction(
                    data, f"{self.storage}/storage/xorb/{rest[-1]}", request.headers.get("Range")
                )
                return self._send(request, 200 if answer else 416, answer, {})
            return self._error(request, 404, "EntryNotFound")
        return self._body(request, file, fake_xet.xorb(data), {})

    def _bytes(self, name: str, path: Path) -> bytes:
        data = path.read_bytes()
        return data[:-1] + bytes([data[-1] ^ 1]) if name in self.corrupt else data

    def _body(
        self, request: BaseHTTPRequestHandler, name: str, data: bytes, headers: dict[str, str]
    ) -> None:
        """Sends a file, or the part of it that is asked for; perhaps not to its end."""
        if name in self.swapped:
            data = data[:-1] + bytes([data[-1] ^ 1])
        status, start, end = 200, 0, len(data)
        part = _RANGE.fullmatch(request.headers.get("Range", ""))
        if part is not None and self.ranges:
            status, start = 206, int(part[1])
            end = min(end, int(part[2]) + 1) if part[2] else end
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        body = data[start:end]
        if request.command == "GET":
            self.downloads[name] += 1
            if part is not None and _is_large(name):
                self.parts.append(part[0])
        breaks = name in self.truncate
        if self.interrupt[name] and request.command == "GET":
            self.interrupt[name] -= 1
            breaks = True
        self._send(request, status, body, headers, breaks=breaks)

    def _error(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        code: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}
        self._send(request, status, b"", told)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        breaks: bool = False,
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: len(body) // 2] if breaks else body)
        if breaks:
            request.close_connection = True


def _has(request: BaseHTTPRequestHandler, token: str | None) -> bool:
    return request.headers.get("Authorization") == f"Bearer {token}"


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
