"""The documentation: its links lead somewhere, and its measurements stay small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.make_farm import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
PATH = re.compile(r"(?<![\w/.-])docs/[\w./-]*[\w-](?:\.\w+)?")
RESULTS_LIMIT = 1_000_000


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = sum(slug == known or re.fullmatch(rf"{slug}-\d+", known) is not None
                     for known in found)  # fmt: skip
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken_links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", CODE.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# What is *here*: `a`\n\n# Twice\n\n# Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#what-is-here-a) [b](there.md#twice-1) [c](gone.md) [d](there.md#gone)\n"
        "[e](#gone) `[f](gone.md)`\n```\n[g](gone.md)\n```\n"
    )
    assert broken_links(page) == ["gone.md", "there.md#gone", "#gone"]


def named_pages() -> dict[str, set[str]]:
    """Every page of docs/ that code, messages or other pages name by its path."""
    found: dict[str, set[str]] = {}
    for folder in ("zoo", "builders", "docker", ".github", "docs"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".toml", ".html", ".yml", ".yaml", ".md"):
                for path in PATH.findall(file.read_text(encoding="utf-8")):
                    found.setdefault(path, set()).add(str(file.relative_to(ROOT)))
    return found


def test_every_page_that_is_named_exists() -> None:
    absent = {path: files for path, files in named_pages().items() if not (ROOT / path).exists()}
    assert absent == {}


def test_every_page_is_in_the_contents() -> None:
    contents = ROOT / "docs" / "README.md"
    listed = {(contents.parent / link).resolve() for link in LINK.findall(contents.read_text())}
    for kind in ("tutorial", "how-to", "reference", "explanation"):
        assert set((ROOT / "docs" / kind).glob("*.md")) <= listed


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert listed == {page.name for page in folder.glob("0*.md")}


def test_the_results_are_small() -> None:
    files = [path for path in (ROOT / "docs" / "results").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < RESULTS_LIMIT
