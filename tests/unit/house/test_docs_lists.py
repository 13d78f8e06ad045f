"""The docs list exactly the members that the closed sets and their tables have."""

from __future__ import annotations

import re

from support.paths import ROOT

from zoo.schema.floors import LIMITS
from zoo.schema.manifest import Cut
from zoo.schema.precisions import PRECISION_FACTS, Precision
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime, gpu_runtimes, title_of
from zoo.schema.targets import gpu_lines
from zoo.stores import SCHEMES


def page(name: str) -> str:
    return (ROOT / "docs/reference" / f"{name}.md").read_text(encoding="utf-8")


def table(name: str, heading: str) -> list[list[str]]:
    """Returns the rows of the table of a page that has a heading, cell by cell."""
    lines = iter(page(name).splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            break
    else:
        raise AssertionError(f"{name}.md has no table {heading}")
    assert next(lines).startswith("| ---")
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(text: str) -> list[str]:
    """Returns the words of a text that are written as code."""
    return re.findall(r"`([^`]+)`", text)


def test_the_cuts_of_the_manifest_page_are_those_of_the_set() -> None:
    assert [code(row[0]) for row in table("manifests", "cut")] == [[cut] for cut in Cut]


def test_the_precisions_of_the_manifest_page_are_those_of_the_set() -> None:
    (row,) = (row for row in table("manifests", "field") if row[0] == "`precisions`")
    assert code(row[1].partition(":")[2]) == list(Precision)


def test_the_limits_of_the_manifest_page_are_those_of_the_table() -> None:
    (row,) = (row for row in table("manifests", "field") if row[0].startswith("`tolerance"))
    listed = code(row[1].partition("`:")[2].partition(";")[0])
    assert listed == list(LIMITS)


def test_the_page_on_precision_explains_the_limits_of_the_table() -> None:
    text = (ROOT / "docs/explanation/precision.md").read_text(encoding="utf-8")
    floors = text.partition("\n## Floors")[2].partition("\n## ")[0]
    assert re.findall(r"^- `(\w+)`:", floors, re.MULTILINE) == list(LIMITS)


def test_the_runtimes_of_the_index_page_are_those_of_the_set() -> None:
    (row,) = (row for row in table("index-schema", "field") if row[0] == "`toolchain`")
    assert code(re.findall(r"\(([^)]*)\)", row[1])[0]) == list(Runtime)


def test_the_lines_of_the_target_page_are_those_of_the_table() -> None:
    listed = {
        (name, row[1]) for row in table("targets", "`TRT=`") if row[0] != "unset"
        for name in code(row[0])
    }  # fmt: skip
    assert listed == {(line.asked, title_of(line.kind)) for line in gpu_lines()}


def test_the_target_page_states_the_order_of_preference() -> None:
    listed = page("targets")
    (runtimes,) = re.findall(r"^2\. (.*(?:\n   .*)*)", listed, re.MULTILINE)
    places = [re.search(rf"\b{title_of(kind)}(?!-)\b", runtimes) for kind in gpu_runtimes()]
    starts = [place.start() if place else -1 for place in places]
    assert starts[0] >= 0
    assert starts == sorted(starts)
    (precisions,) = re.findall(r"^5\. (.*)", listed, re.MULTILINE)
    named = [name for name in re.findall(r"\w+", precisions) if name in list(Precision)]
    order = sorted(Precision, key=lambda member: PRECISION_FACTS[member].preference)
    ranks = [PRECISION_FACTS[Precision(name)].preference for name in dict.fromkeys(named)]
    assert ranks == sorted(ranks)
    assert {*named} == {*order}
    assert all(RUNTIME_FACTS[kind].title in runtimes for kind in Runtime)


def test_the_stores_of_the_readme_are_those_that_can_be_published_to() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in text.splitlines() if line.startswith("| `STORE` |"))
    listed = code(row.split("|")[2])
    writable = {scheme.form for scheme in SCHEMES.values() if scheme.form and scheme.writable}
    assert {*listed} == writable - {"file:///path"}  # README says "a directory" for that one
