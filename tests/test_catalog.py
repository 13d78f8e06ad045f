"""The page: what it shows, and that nothing of a manifest or record gets out of its text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from factories import engine, model

from zoo.catalog import build_site, render_index
from zoo.index import Index, ModelIndex, index_row
from zoo.manifest import CatalogText
from zoo.repository import Repository
from zoo.stores import MemoryStore

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e{{ 7*7 }}"


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def hostile_model() -> ModelIndex:
    text = CatalogText(
        title=HOSTILE, summary="x" * 600, characteristics=(HOSTILE,), use_case=HOSTILE
    )
    bad = engine("cpu-ort1.32-fp32", status="withdrawn", reason=HOSTILE)
    return model(bad, catalog=text, weights=HOSTILE, licence=HOSTILE)


def test_hostile_text_stays_text() -> None:
    page = Page(render_index([hostile_model()], dry_run=False))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "iframe", "object"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in "".join(page.text)
    assert "49" not in "".join(page.text)


def test_nothing_comes_from_another_host_and_the_policy_is_strict() -> None:
    page = Page(render_index([model(engine("cpu-ort1.32-fp32"))], dry_run=False))
    sources = [a.get("src") or a.get("href") for tag, a in page.tags if tag in ("link", "script")]
    assert sources == ["style.css"]
    (policy,) = [
        str(a["content"]) for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert not any("style" in attributes for _, attributes in page.tags)


def test_every_status_is_shown() -> None:
    rows = [{"batch": 4, "latency_ms": 8.0, "images_per_second": 500.0}]
    batches = [
        {"batch": batch, "worst_cosine": cosine, "worst_relative_error": 0.01}
        for batch, cosine in ((1, 0.99997), (4, 0.99991))
    ]
    engines = (
        engine(
            "cpu-ort1.32-fp32",
            verification={"batches": batches},
            benchmark={"batches": rows, "machine": {"cpu": "A CPU", "cores": 2}},
        ),
        engine("sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16", status="pending", reason="not run",
               precision_status="unproven"),
        engine("sm75-rtx1.7-fp16", status="withdrawn", reason="row 3", dry_run=True),
    )  # fmt: skip
    text = " ".join("".join(Page(render_index([model(*engines)], dry_run=True)).text).split())
    for words in (
        "verified", "0.999910", "500.0 images/s at batch 4", "A CPU, 2 cores", "pending",
        "precision unproven", "sm86-rtx1.7-fp16, sm89-rtx1.7-fp16", "withdrawn", "row 3",
        "dry run", "Dry run.", "11.8 MiB", "1 to 16",
    ):  # fmt: skip
        assert words in text, words


@pytest.fixture
def repository() -> Repository:
    made = Repository(MemoryStore())
    made.claim("release")
    one = model(engine("cpu-ort1.32-fp32"))
    index = Index(kind="release", models=(index_row(one, one.to_json()),))
    made.store.put("index/m.json", one.to_json())
    made.store.put("index.json", index.to_json())
    return made


def test_a_site_has_a_page_and_data_for_programs(repository: Repository, tmp_path: Path) -> None:
    build_site(repository, tmp_path / "site")
    data = json.loads((tmp_path / "site" / "index.json").read_text())
    assert data["schema_version"] == 1
    assert data["kind"] == "release"
    assert data["models"][0]["engines"][0]["engine"]["sha256"] == "1" * 64
    assert (tmp_path / "site" / "style.css").exists()


def test_a_site_that_is_right_is_left_alone(repository: Repository, tmp_path: Path) -> None:
    build_site(repository, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    build_site(repository, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
