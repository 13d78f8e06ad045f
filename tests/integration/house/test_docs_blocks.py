"""Every block of code in the documentation is run, or says why not; all are well-formed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tomllib
from support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<why>[^\n]+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^ *```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
RUN = {"docs/tutorial/classifier.md": None, "README.md": (1, 2, 3)}
"""Pages whose blocks are run, all or some: by test_tutorial.py and test_readme.py."""


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_is_run_or_says_why_not(page: Path) -> None:
    which = RUN.get(str(page.relative_to(ROOT)), ())
    for number, block in enumerate(blocks(page)):
        is_run = which is None or number in which
        assert is_run != bool(block["why"]), block["text"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_is_well_formed(page: Path) -> None:
    for block in blocks(page):
        text = re.sub(rf"^{block['indent']}", "", block["text"], flags=re.MULTILINE)
        match block["language"]:
            case "sh":
                subprocess.run(["bash", "-n", "-c", text], check=True)
            case "python":
                compile(text, str(page), "exec")
            case "toml":
                tomllib.loads(text)
            case other:
                pytest.fail(f"a block in {other}: how is it checked?")


def test_a_block_without_a_reason_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nls\n```\n\n  <!-- not run: it is long -->\n  ```sh\n  ls\n  ```\n")
    assert [block["why"] for block in blocks(page)] == [None, "it is long"]
