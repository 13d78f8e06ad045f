"""What a cluster says of addresses and certificates that are of no use. No cluster is started."""

from __future__ import annotations

import shutil
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from support.goldens import assert_golden

from builders.executors.dask.certificates import make_certs
from zoo.cluster.tls import check_address, connect, open_security
from zoo.util.errors import ClusterError, UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certs(folder)
    return folder


@pytest.fixture
def certs(made: Path, tmp_path: Path) -> Path:
    """Certificates that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "certs"))


@pytest.mark.parametrize("damaged", ["ca.pem", "worker.pem", "worker-key.pem"])
def test_a_damaged_certificate_is_named(damaged: str, certs: Path) -> None:
    (certs / damaged).write_text("nonsense\n")
    with pytest.raises(UsageError, match=damaged.partition("-")[0].removesuffix(".pem")) as caught:
        open_security("worker", certs)
    assert caught.value.exit_code == 2
    assert "zoo-farm cluster certs" in (caught.value.hint or "")
    if "worker" in damaged:
        open_security("client", certs)  # another role's


def test_the_key_of_another_certificate_is_refused(certs: Path) -> None:
    shutil.copy(certs / "scheduler-key.pem", certs / "client-key.pem")
    with pytest.raises(UsageError, match=r"client\.pem"):
        open_security("client", certs)


def test_where_nobody_listens_is_said_in_a_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ClusterError, match=address) as caught:
            connect(address, None, timeout=2)
    assert caught.value.exit_code == 18
    assert "<" not in str(caught.value)  # no object of somebody's code


@pytest.mark.parametrize(
    ("scheme", "greeting", "asked", "golden"),
    [
        ("tcp", b"", False, "silent"),
        ("tls", b"", False, "silent-tls"),
        ("tls", b"in the clear", False, "no-tls"),
        ("tls", b"HTTP/1.1 400 Bad Request", True, "no-tls"),
    ],
)
def test_what_is_no_such_scheduler_is_said_in_time(
    scheme: str, greeting: bytes, asked: bool, golden: str, made: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = []

        def answer() -> None:
            with suppress(OSError):
                while True:
                    taken.append(other.accept()[0])
                    if asked:
                        taken[-1].recv(1)
                    taken[-1].sendall(greeting)

        threading.Thread(target=answer, daemon=True).start()
        address = f"{scheme}://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ClusterError) as caught:
            connect(address, made, timeout=2)
        assert caught.value.exit_code == 18
        assert_golden(f"executors/scheduler-{golden}", caught.value, {address: "ADDRESS"})
        other.shutdown(socket.SHUT_RDWR)
        for one in taken:
            one.close()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:99999", "tcp://127.0.0.1", "http://a:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_address(address, None)
    assert_golden("executors/scheduler-address", caught.value, {address: "ADDRESS"})
