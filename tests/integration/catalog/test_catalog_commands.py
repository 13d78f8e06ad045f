"""Every command of every page works as it stands: copied into an empty environment and run there.

The pages are opened in a browser, because it is the browser that knows where a site is served. One
environment is made, by the page's own command; only what a page offers is installed into it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from skimage import data
from support.make_farm import Farm
from support.models import LITE
from support.paths import ROOT
from support.s3_server import READER, S3Server, credentials
from support.tutorial import run_tutorial

from builders.run.catalog import built_wheel, make_site
from zoo.catalog.place import Place
from zoo.catalog.site import build_site
from zoo.repository.repository import Repository
from zoo.stores import LocalStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.full, pytest.mark.timeout(3000)]  # pip installs torch
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
COPIED = """codes => codes.map(code => [code.dataset.language, code.textContent])"""
OF_ANY_MACHINE = ("zoo pull", "curl", "aws")
"""How the commands begin that work for an engine of a GPU that this machine lacks."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: Any) -> None: ...


@dataclass(frozen=True)
class Snippet:
    """A command as it is copied from a page."""

    page: str
    language: str
    text: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a plain server of it."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with an empty environment in ``venv``, and the variables of who uses it."""
    folder = tmp_path_factory.mktemp("reader")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    # Of this environment only where pip finds packages, and the versions that were tested.
    base = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    found = {"PATH": f"{folder}/venv/bin:{os.environ['PATH']}", "HOME": str(folder)}
    base |= {**found, "LANG": "C.UTF-8", "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    return folder, base


@pytest.fixture(scope="module")
def reader(empty: tuple[Path, dict[str, str]]) -> Callable[..., str]:
    """Runs a snippet as a person with an empty environment does, and returns what it prints."""
    folder, base = empty
    work = folder / "work"
    for name in ("astronaut", "coffee", "rocket"):
        _photos(getattr(data, name)(), work / "photos" / name)
    shutil.copy(work / "photos/coffee/0-0.jpg", work / "photo.jpg")

    def run(snippet: Snippet, home: str, **environment: str) -> str:
        for result in work.glob("photo.*.npy"):  # of another page, which zoo run would not replace
            result.unlink()
        python = snippet.language == "python"
        command = ["python", "-c"] if python else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, snippet.text], capture_output=True, text=True, cwd=work, timeout=1500,
            env={**base, "ZOO_HOME": str(folder / home), **environment},
        )  # fmt: skip
        assert done.returncode == 0, f"{snippet.page}: {snippet.text}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


def _photos(pixels: Any, folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    photo = Image.fromarray(pixels)
    for left in range(0, photo.width - 199, 200):
        for top in range(0, photo.height - 199, 200):
            crop = photo.crop((left, top, left + 200, top + 200))
            crop.save(folder / f"{left}-{top}.jpg")


@contextmanager
def pages(browser: Browser, site: Path, address: str) -> Iterator[dict[str, list[Snippet]]]:
    """Yields the snippets of every page of a site, by page, as a browser shows them."""
    found = {}
    context = browser.new_context()
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        page = context.new_page()
        page.goto(f"{address}/{name}")
        codes = page.locator("code[data-language]").evaluate_all(COPIED)
        found[name] = [Snippet(name, language, text) for language, text in codes]
        page.close()
    yield found
    context.close()


def build(farm: Farm, site: Path, place: Place) -> None:
    wheel = built_wheel(ROOT / "dist")
    assert wheel is not None  # make zoo built it, for the farm
    repository = Repository(LocalStore(farm.store))
    build_site(repository, site, place, wheel=wheel)


def run_all(
    found: dict[str, list[Snippet]], run: Callable[..., str], home: str, **environment: str
) -> set[str]:
    """Runs the snippets of all pages but the maintainers', and returns how those left out begin."""
    order = sorted(found, key=lambda name: (name != "index.html", name))
    left_out = set()
    for name in order:
        on_gpu = any("--target sm" in snippet.text for snippet in found[name])
        for snippet in found[name] if name != "report.html" else ():
            if on_gpu and not snippet.text.startswith(OF_ANY_MACHINE):
                left_out.add(snippet.text.split()[0])
                continue
            said = run(snippet, home, **environment)
            if snippet.text.startswith("zoo run"):
                assert "features (1, 1280)" in said
    return left_out


def test_every_command_works_over_http(
    browser: Browser, farm: Farm, served: tuple[Path, str], reader: Callable[..., str]
) -> None:
    folder, address = served
    (folder / "zoo").symlink_to(farm.store)
    build(farm, folder / "a site", Place.parse(f"{address}/zoo"))
    with pages(browser, folder / "a site", f"{address}/a%20site") as found:
        first = found["index.html"][0].text
        assert first.startswith("pip install 'caft-zoo[onnxruntime,caft] @ http://127.0.0.1:")
        assert "zoo train-head" in found["index.html"][2].text
        assert len(found) == 3 + 3
        assert len(found[f"models/{LITE}.html"]) == 5
        # Engines of a GPU are downloaded; what installs or runs their runtime is not run.
        assert run_all(found, reader, "http") == {"pip", "zoo", "import", "tensorrt_rtx"}
        assert all(
            snippet.text.startswith(("make ", ".venv/bin/zoo-farm "))
            for snippet in found["report.html"]
        )


def test_every_command_works_where_only_the_site_is_served(
    browser: Browser, farm: Farm, served: tuple[Path, str], reader: Callable[..., str]
) -> None:
    """Without BASE_URL, the site has the repository beside its pages, whoever serves it."""
    folder, address = served
    repository, site = Repository(LocalStore(farm.store)), folder / "alone"
    make_site(repository, site, "", manifests=farm.manifests)
    with pages(browser, site, f"{address}/alone") as found:
        texts = [snippet.text for name in found for snippet in found[name]]
        assert any(f"--store {address}/alone/repository" in text for text in texts)
        assert any("curl -fL" in text and f"{address}/alone/repository/" in text for text in texts)
        run_all(found, reader, "alone")
        for snippet in found["report.html"]:
            assert str(farm.store) in snippet.text, snippet.text
        (plan,) = [one.text for one in found["report.html"] if one.text.startswith("make plan ")]
    done = subprocess.run(
        plan, shell=True, capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **farm.home},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(farm.store) in done.stdout


def test_the_tutorial_needs_two_extras(
    farm: Farm,
    empty: tuple[Path, dict[str, str]],
    reader: Callable[..., str],
    served: tuple[Path, str],
    tmp_path: Path,
) -> None:
    """What it has by now is [onnxruntime,caft], installed by the page's command."""
    folder, base = empty
    python = folder / "venv/bin/python"
    if not (folder / "venv/bin/zoo").is_file():  # this test runs alone
        wheel = built_wheel(ROOT / "dist")
        assert wheel is not None
        reader(
            Snippet("", "sh", f"pip install 'caft-zoo[onnxruntime,caft] @ {wheel.as_uri()}'"), ""
        )
    environment = {**base, "ZOO_STORE": str(farm.store), **farm.trusted_in(tmp_path / "home")}
    done = run_tutorial(python, tmp_path, environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_works_from_s3(
    browser: Browser,
    farm: Farm,
    served: tuple[Path, str],
    reader: Callable[..., str],
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zoo.stores import open_store

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    url = s3_server.new_url()
    bucket, local = open_store(url), LocalStore(farm.store)
    for entry in local.list(""):
        path = local.local_path(entry.key)
        assert path is not None
        bucket.put_file(entry.key, path)
    folder, address = served
    build(farm, folder / "of-s3", Place.parse("", url))
    aws = str(Path(sys.executable).parent / "aws")
    assert Path(aws).is_file()
    with pages(browser, folder / "of-s3", f"{address}/of-s3") as found:
        assert "[onnxruntime,s3,caft] @ http://" in found["index.html"][0].text
        tools = folder / "tools"
        tools.mkdir()
        (tools / "aws").write_text(f'#!/bin/sh\nexec {aws} "$@"\n')
        (tools / "aws").chmod(0o755)
        path = f"{os.environ['PATH']}:{tools}"
        environment = credentials(s3_server.endpoint, READER)
        assert run_all(found, with_path(reader, path), "s3", **environment) >= {"pip", "zoo"}


def with_path(run: Callable[..., str], tools: str) -> Callable[..., str]:
    """Adds folders of tools behind those of the reader's environment."""

    def running(snippet: Snippet, home: str, **environment: str) -> str:
        text = snippet.text
        if snippet.language == "sh":
            text = f'PATH="$PATH:{tools}"\n{text}'
        return run(Snippet(snippet.page, snippet.language, text), home, **environment)

    return running
