"""The documentation: its links and names exist, and its measurements stay small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import tomllib
from support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
PATH = re.compile(r"(?<![\w/.-])docs/[\w./-]*[\w-](?:\.\w+)?")
RESULTS_LIMIT = 1_000_000
# The folders of the checkout whose files pages name; what runs create is elsewhere.
CHECKOUT = "(?:zoo|builders|tests|benchmarks|examples|docs|docker|manifests|[.]github)"
NAMED_PATH = re.compile(rf"{CHECKOUT}(?:/[\w.*{{,}}-]+)+/?|[\w-]+[.](?:py|mk|txt)")
NAMED_MODULE = re.compile(r"(?:zoo|builders|benchmarks|examples)(?:[.]\w+)+")
RUN_MODULE = re.compile(r"python3? -m ((?:zoo|builders|benchmarks|examples|tests)[\w.]*)")
ROOMS = re.compile(r"^\| (`[^|]+`) \|", re.MULTILINE)
# Results name files of their own folder, and what an earlier commit was asked to do.
NAMING_PAGES = [page for page in PAGES if "results" not in page.relative_to(ROOT).parts]


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


def defines(module: Path, name: str) -> bool:
    """Whether a module or package defines or imports a name at its top."""
    source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    if not source.is_file():
        return False
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and node.value == name:
            names.add(name)  # a lazy package lists its names as strings
    return name in names


def module_exists(dotted: str, root: Path = ROOT) -> bool:
    """Whether a dotted name is a module of the checkout, or a name that one defines."""
    path = root.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file() or defines(path.parent, path.name)


def runnable(dotted: str, root: Path = ROOT) -> bool:
    path = root.joinpath(*dotted.split("."))
    return (path / "__main__.py").is_file() or path.with_suffix(".py").is_file()


def path_exists(name: str, root: Path = ROOT) -> bool:
    """Whether a path, or a bare file name anywhere among the sources, leads to something."""
    if "/" not in name:
        folders = ("zoo", "builders", "benchmarks", "examples", "tests")
        return (root / name).exists() or any(any((root / f).rglob(name)) for f in folders)
    before, brace, after = name.rstrip("/").partition("{")
    choices, _, end = after.partition("}")
    paths = [f"{before}{choice}{end}" for choice in choices.split(",")] if brace else [before]
    return all(any(root.glob(path)) for path in paths)


def absent_names(page: Path, root: Path = ROOT) -> list[str]:
    """Back-quoted paths and modules of a page, and modules that its commands run, that are gone."""
    text = page.read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`", CODE.sub("", text))
    return [
        *(name for name in quoted if NAMED_PATH.fullmatch(name) and not path_exists(name, root)),
        *(n for n in quoted if NAMED_MODULE.fullmatch(n) and not module_exists(n, root)),
        *(module for module in RUN_MODULE.findall(text) if not runnable(module, root)),
    ]


@pytest.mark.parametrize("page", NAMING_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_module_that_a_page_names_exists(page: Path) -> None:
    assert absent_names(page) == []


def test_a_path_or_module_that_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "room").mkdir(parents=True)
    (tmp_path / "zoo" / "room" / "here.py").write_text("def act() -> None: ...\n")
    page = tmp_path / "page.md"
    page.write_text(
        "`zoo/room/here.py` `zoo/room/` `zoo/*/here.py` `zoo.room.here` `zoo.room.here.act`\n"
        "`zoo/room/{here,gone}.py` `zoo/{room}/here.py`\n"
        "`zoo/here.py` `zoo.here` `zoo.room.here.gone` `gone.py` `here.py`\n"
        "```sh\npython -m zoo.room.here\npython -m zoo.room\n```\n"
    )
    assert absent_names(page, tmp_path) == [
        "zoo/room/{here,gone}.py",
        "zoo/here.py",
        "gone.py",
        "zoo.here",
        "zoo.room.here.gone",
        "zoo.room",
    ]


@pytest.mark.parametrize("package", ["builders", "zoo"])
def test_contributing_lists_the_rooms_in_their_import_order(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c.get("containers") == [package])
    table = (ROOT / "CONTRIBUTING.md").read_text().split(f"<!-- rooms of {package} -->")[1]
    rows = [re.findall(r"`(\w+)`", row) for row in ROOMS.findall(table.split("<!--")[0])]
    assert rows == [layer.split(" : ") for layer in layers]
