"""Other S3 servers on loopback: Ceph's gateway, from Debian's packages, and moto."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from support.s3_server import BUCKET, MAINTAINER, credentials, free_ports

_PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw",
             "radosgw-admin")  # fmt: skip
_PACKAGES = "ceph-common, ceph-mon, ceph-osd, radosgw"
_LATEST = 180.0  # seconds until the cluster is up
_GATEWAY = "client.rgw.test"

_POWERS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
    _GATEWAY: {"mon": "allow rw", "osd": "allow rwx"},
}

_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{port}/0]
public_network = 127.0.0.0/8
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 1073741824
mon_allow_pool_size_one = true
mon_data = {folder}/mon
osd_data = {folder}/osd
run_dir = {folder}
keyring = {folder}/keyring
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
mon_cluster_log_file = {folder}/cluster.log
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
rgw_enable_usage_log = false
rgw_run_sync_thread = false
"""


class CephGateway:
    """The S3 gateway of a Ceph cluster of one monitor and one OSD, with one bucket.

    The OSD keeps objects in memory. Ceph needs neither root nor systemd for this, and touches
    nothing outside its folder.

    Args:
        folder: Where the cluster keeps its logs and sockets; its path has to be short.
    """

    def __init__(self, folder: Path) -> None:
        missing = [program for program in _PROGRAMS if shutil.which(program) is None]
        if missing:
            pytest.skip(f"{missing[0]} is not installed (Debian: {_PACKAGES})")
        self.folder = folder
        self._monitor, gateway = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{gateway}"
        self._fsid = str(uuid4())
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir(parents=True)
        (folder / "ceph.conf").write_text(
            _CONFIGURATION.format(
                fsid=self._fsid, port=self._monitor, gateway=gateway, folder=folder
            )
        )
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What makes the maintainer's store out of ``s3://`` URLs."""
        return credentials(self.endpoint, MAINTAINER)

    @property
    def version(self) -> str:
        """Ceph's version, such as ``16.2.15``."""
        return self._run("radosgw", "--version").split()[2]

    def __enter__(self) -> CephGateway:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            process.kill()
            process.wait()

    def _start(self) -> None:
        monmap = self.folder / "monmap"
        at = f"[v2:127.0.0.1:{self._monitor}]"
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", at, monmap)
        ring = self.folder / "keyring"
        for name, powers in _POWERS.items():
            caps = [word for daemon, power in powers.items() for word in ("--cap", daemon, power)]
            create = [] if ring.exists() else ["--create-keyring"]
            self._run("ceph-authtool", *create, "--gen-key", "-n", name, *caps, ring)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", ring)
        self._serve("ceph-mon", "-i", "a")
        osd = str(uuid4())
        number = self._run("ceph", "osd", "new", osd).strip()
        self._run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", osd)
        self._serve("ceph-osd", "-i", number)
        self._wait(self._has_osd)
        key, secret = MAINTAINER
        self._run(
            "radosgw-admin", "-n", _GATEWAY, "user", "create", "--uid", key,
            "--display-name", key, "--access-key", key, "--secret-key", secret,
        )  # fmt: skip
        self._serve("radosgw", "-n", _GATEWAY)
        self._wait(lambda: _has_bucket(self.endpoint))

    def _has_osd(self) -> bool:
        return bool(json.loads(self._run("ceph", "osd", "stat", "-f", "json"))["num_up_osds"])

    def _wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + _LATEST
        while not ready():
            dead = [process.args for process in self._running if process.poll() is not None]
            assert not dead, f"{dead}: see {self.folder}"
            assert time.monotonic() < until, f"it does not start: see {self.folder}"
            time.sleep(0.5)

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, env=self._environment, timeout=_LATEST
        )
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        return done.stdout

    def _serve(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as out:
            self._running.append(
                subprocess.Popen([*command, "-f"], stdout=out, stderr=out, env=self._environment)
            )

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}


class MotoServer:
    """moto, a server for tests in Python, with one bucket.

    Args:
        folder: Where it writes its log.
    """

    def __init__(self, folder: Path) -> None:
        if shutil.which("moto_server") is None:
            pytest.skip("moto_server is not on PATH: make test-ceph installs it")
        self.folder = folder
        (port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        self._command = ["moto_server", "-H", "127.0.0.1", "-p", str(port)]

    @property
    def environment(self) -> dict[str, str]:
        """What makes the maintainer's store out of ``s3://`` URLs."""
        return credentials(self.endpoint, MAINTAINER)

    def __enter__(self) -> MotoServer:
        with (self.folder / "moto.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + _LATEST
        while not _has_bucket(self.endpoint):
            assert self._process.poll() is None, (self.folder / "moto.log").read_text()
            assert time.monotonic() < until, (self.folder / "moto.log").read_text()
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _has_bucket(endpoint: str) -> bool:
    """Makes the bucket on a server; returns whether the server answered."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=MAINTAINER[0], aws_secret_access_key=MAINTAINER[1],
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=60),
    )  # fmt: skip
    try:
        client.create_bucket(Bucket=BUCKET)
    except (BotoCoreError, ClientError):
        return False
    return True
