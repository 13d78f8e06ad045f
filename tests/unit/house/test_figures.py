"""Every figure in README and docs stands in a result, and results say where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paths import ROOT

from benchmarks.__main__ import SECTIONS
from benchmarks.bench.figures import TABLE, numbers_of, quoted, rewritten, unmarked
from benchmarks.bench.markdown import to_markdown
from benchmarks.bench.results import Bench, Growth, Median, Ratio, Section, Taken, read_bench

RESULTS = ROOT / "docs" / "results"
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if not {"results", "adr"} & {*page.relative_to(ROOT).parts} and page.name != "CHANGELOG.md"
]
SETTINGS: dict[str, tuple[str, ...]] = {
    "SECURITY.md": ("by 30 s for each object", "takes up to 3 GB"),
    "docs/explanation/farm.md": (
        "for each 7 GiB of",
        "would exceed 16 GiB (0.75 GiB on",
        "to within 10 MiB",
    ),
    "docs/explanation/precision.md": ("number below 100% is 80%",),
    "docs/explanation/repository.md": ("chunks of about 16 KB",),
    "docs/how-to/nightly.md": ("rose by more than 10%",),
    "docs/reference/catalog.md": ("160 kB",),
    "docs/reference/index-schema.md": ("(95%; absent",),
    "docs/reference/stores.md": (
        "files above 8 MiB",
        "in parts of 8 MiB",
        "for about 15 seconds",
        "less than 16 kB",
        "in 30 s (4 kB",
        "every 15 seconds",
        "After 60 seconds",
        "after 10 minutes",
        "are 15 minutes off",
    ),
}
"""What pages state of settings and limits, which nobody measured."""


def committed() -> Bench:
    bench = read_bench(RESULTS / "bench.json")
    assert bench is not None
    return bench


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_figure_of_a_page_is_in_a_result(page: Path) -> None:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    assert rewritten(text, committed()) == text, "run python -m benchmarks figures"
    for file, number in quoted(text):
        found = numbers_of((RESULTS / file).read_text(encoding="utf-8"))
        assert number in found, f"{number} is not in docs/results/{file}"
    assert unmarked(text, SETTINGS.get(name, ())) == [], "neither from a result nor in SETTINGS"


def test_the_page_is_that_of_the_results() -> None:
    bench = committed()
    assert (RESULTS / "bench.md").read_text(encoding="utf-8") == to_markdown(bench)
    assert [section.name for section in bench.sections] == [*SECTIONS]


def test_every_row_of_readmes_table_is_measured() -> None:
    assert set(TABLE) <= set(dict(committed().figures()))


def test_settings_that_a_page_no_longer_states_are_found() -> None:
    for name, words in SETTINGS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [one for one in words if one not in text] == [], name


def made(ratio: float = 2.0) -> Bench:
    taken = [Taken(seconds=1.0, mib=10.0)] * 6
    theirs = [Taken(seconds=ratio + step / 10, mib=20.0) for step in range(6)]
    section = Section(
        name="pull", title="Pulling", about="How.",
        ratios=(Ratio.of("aws", "12 MiB", "aws s3 cp 1", taken, theirs),),
        growths=(Growth.of("rows", "a pass", "rows", {10: taken, 100: theirs}),),
        skipped=("openvino: not installed",), date="2026-01-01",
    )  # fmt: skip
    return Bench(machine="a CPU", python="3.11", sections=(section,))


def test_figures_are_written_from_the_results() -> None:
    page = (
        "It is <!-- bench pull.aws -->?<!-- /bench --> (<!-- bench pull.aws interval --><!-- /bench"
        " -->) and grows with <!-- bench pull.rows exponent -->old<!-- /bench -->."
    )
    done = rewritten(page, made())
    assert "-->2.25<!--" in done
    assert "-->2.00 to 2.50<!--" in done
    assert "-->0.35<!--" in done
    assert rewritten(done, made()) == done


@pytest.mark.parametrize("key", ["pull.gone", "gone.aws", "pull.rows ratio", "pull.aws exponent"])
def test_a_figure_that_no_result_has_is_an_error(key: str) -> None:
    with pytest.raises(KeyError):
        rewritten(f"<!-- bench {key} -->?<!-- /bench -->", made())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It takes 3.3 ms.", ["3.3 ms"]),
        ("1,234 images/s and 95.7% of 12 photos", ["1,234 images/s", "95.7%"]),
        ("twice 12.8 MiB, 2.5 times as fast", ["12.8 MiB", "2.5 times as"]),
        ("`sleep 3 s`\n```sh\n# takes 3 s\n```\nfp16 on sm86, 8 s", ["8 s"]),
        ("<!-- from a.md -->3 s<!-- /from --> <!-- bench a.b -->4 s<!-- /bench -->", []),
        ("in parts of 8 MiB, 8 at a time", []),
    ],
)
def test_numbers_with_units_must_be_marked(text: str, found: list[str]) -> None:
    assert unmarked(text, ("parts of 8 MiB",)) == found


def test_a_page_states_peers_intervals_memory_and_what_is_missing() -> None:
    page = to_markdown(made())
    assert "| 12 MiB | aws s3 cp 1 | 2.25 (2.00 to 2.50) | 1.000 | 2.250 | 10 | 20 |" in page
    assert "Not measured: openvino: not installed." in page
    assert "| a pass | 10, 100 rows | 1.000, 2.250 |" in page


def test_few_rounds_state_their_range() -> None:
    assert Median.of([3.0, 1.0, 2.0]) == Median(value=2.0, low=1.0, high=3.0, rounds=3)
    nine = Median.of([float(value) for value in range(9)])
    assert (nine.low, nine.high) == (1.0, 7.0)  # the narrowest with 95%


def test_of_two_sizes_the_exponent_is_of_the_tenfold() -> None:
    runs = {
        size: [Taken(seconds=size**1.5 * slow) for slow in range(1, 3 if size > 500 else 5)]
        for size in (10, 100, 1000, 2000)
    }
    growth = Growth.of("k", "w", "rows", runs)
    assert growth.exponent.value == pytest.approx(1.5)
    assert growth.memory_exponent is None
