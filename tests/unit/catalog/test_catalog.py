"""The site's pages: their facts, their sentences (goldens), and that all values are escaped."""

from __future__ import annotations

import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.catalogs import HOSTILE, Zoo, every_state, hostile, many
from support.goldens import assert_golden
from support.paths import ROOT
from support.records import engine_entry, model_index

from builders.run.expected import expected
from zoo.catalog import listing
from zoo.catalog.commands import commands
from zoo.catalog.gpus import gpu_table, known_as, slug
from zoo.catalog.index_file import SiteIndex
from zoo.catalog.model_page import accuracy, speed_charts, width
from zoo.catalog.night import Drift, FailedJob, NightlyRun, read_nightly
from zoo.catalog.place import Place
from zoo.catalog.plots import nines, spread
from zoo.catalog.portability import read_prices
from zoo.catalog.preprocessing import preprocess_snippet
from zoo.catalog.render import json_block
from zoo.catalog.report import Change, Missing, ModelReport, Rebuilt, changes
from zoo.catalog.site import build_site
from zoo.catalog.site_report import MOST, Expected, combine, same_gaps
from zoo.catalog.state import STATE
from zoo.client.recommendation import cut
from zoo.inference.preprocess import batch_of
from zoo.schema.index import ModelIndex
from zoo.schema.layout import record_key
from zoo.schema.manifest import StatedPreprocess
from zoo.schema.targets import known_archs
from zoo.stores import LocalStore
from zoo.util.errors import ManifestError, RepositoryError, UsageError

POLICY = "Content-Security-Policy"
SEPARATORS = dict.fromkeys(("a", "code", "small", "span", "strong", "time"), "")
SEPARATORS |= {"td": " | ", "th": " | "}
"""What separates the text of an element from the text before it, if not a line break."""

NO_SENTENCES = {"script", "option", "text"}
"""Elements without sentences: data, choices and the labels of charts."""


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._visible = ""
        self._skipping = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skipping = tag in NO_SENTENCES
        self._visible += SEPARATORS.get(tag, "\n")

    def handle_endtag(self, tag: str) -> None:
        self._skipping = False
        self._visible += "" if tag in SEPARATORS else "\n"

    def handle_data(self, data: str) -> None:
        self.text += data
        if not self._skipping:
            self._visible += re.sub(r"\s+", " ", data)

    @property
    def sentences(self) -> str:
        """The sentences that a reader sees, a line per paragraph or table row; no digests."""
        lines = (" ".join(line.split()) for line in self._visible.split("\n"))
        text = "\n".join(line for line in lines if line.strip(" |"))
        return re.sub(r"\b[0-9a-f]{16,64}\b", "DIGEST", text)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def links(self) -> list[str]:
        named = [attributes.get("href") or attributes.get("src") for _, attributes in self.tags]
        return [link for link in named if link is not None]


@pytest.fixture
def states(tmp_path: Path) -> tuple[Zoo, Path]:
    zoo, folder = every_state(), tmp_path / "site"
    build_site(zoo.repository, folder)
    return zoo, folder


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.html"))


def engine_file(folder: Path, words: str) -> Path:
    (found,) = [path for path in folder.glob("engines/*/*.html") if words in Page(path).words]
    return found


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    zoo = hostile()
    run = NightlyRun(
        started=HOSTILE, finished=HOSTILE, commit=HOSTILE,
        failed=(FailedJob(model=HOSTILE, target=HOSTILE, reason=HOSTILE, command=HOSTILE),),
    )  # fmt: skip
    build_site(zoo.repository, tmp_path, nightly=run)
    for path in pages(tmp_path):
        page = Page(path)
        assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "base"}, path
        scripts = [dict(a) for tag, a in page.tags if tag == "script"]
        assert all(a.get("type") == "application/json" or a.get("src") for a in scripts), path
        assert not any(n.startswith("on") or n == "style" for _, a in page.tags for n in a), path
        assert not any(link.startswith("javascript") for link in page.links()), path
    assert HOSTILE in Page(tmp_path / "index.html").text
    assert "y" * 10_000 in Page(tmp_path / "models/m.html").text


def test_data_cannot_end_its_script_element() -> None:
    block = str(json_block([HOSTILE, "</script>", "\u2028"]))
    assert not set(block) & {"<", ">", "\u2028"}
    assert json.loads(block) == [HOSTILE, "</script>", "\u2028"]


def test_commands_quote_what_a_record_says() -> None:
    target = "cpu-ort1.32-fp32; rm -rf ~"
    entry = engine_entry("cpu-ort1.32-fp32").model_copy(update={"targets": (target,)})
    _, pull, run, python, *_ = commands(model_index(entry), entry, Place())
    for one in (pull, run):
        assert target in shlex.split(one.plain)
    compile(python.plain, "snippet", "exec")


@pytest.mark.parametrize("url", ["x", "ftp://a/b", "https://a/b;ls", "https://a/$(ls)", "https://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        Place.parse(url)
    assert raised.value.exit_code == 2
    assert repr(url) in str(raised.value)


def test_sentences(states: tuple[Zoo, Path], tmp_path: Path) -> None:
    _, folder = states
    with pytest.raises(UsageError) as raised:
        Place.parse("ftp://a/b")
    assert_golden("catalog/base_url", raised.value)
    for name, path in {
        "index": folder / "index.html",
        "model": folder / "models/mini_net.html",
        "engine": engine_file(folder, "sm86-rtx1.7-fp16"),
        "engine_withdrawn": engine_file(folder, "row 3 is wrong"),
    }.items():
        assert_golden(f"catalog/page_{name}", Page(path).sentences)
    run = NightlyRun(
        started="2026-01-01T00:00:00Z", finished="2026-01-01T01:00:00Z", runs=2,
        planned={"build": 3, "verify": 1}, expected_minutes=40.0,
        published=("mini_net cpu-ort1.32-fp32",), verified=("mini_net sm86-rtx1.7-fp16",),
        current=5, disabled={"mini_net cpu-ort1.32-int8": "misses its tolerance"},
        failed=(FailedJob(model="mini_net", target="t", reason="no memory", command="zoo-farm x"),),
        regressions=(
            Drift(
                model="mini_net", target="cpu-ort1.32-fp32", record="0" * 64, measure="latency",
                batch=1, before=1.0, after=2.0,
            ),
        ),
    )  # fmt: skip
    absent = {"big": "no weights", "huge": "no weights"}
    site = tmp_path / "nightly"
    build_site(states[0].repository, site, nightly=run, expected=Expected(absent=absent))
    assert_golden("catalog/page_report_nightly", Page(site / "report.html").sentences)


def test_every_page_stands_alone_under_any_prefix(states: tuple[Zoo, Path]) -> None:
    _, folder = states
    assert len(pages(folder)) == 2 + 2 + 5
    for path in pages(folder):
        page = Page(path)
        (policy,) = [str(a["content"]) for _, a in page.tags if a.get("http-equiv") == POLICY]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        ids = [a["id"] for _, a in page.tags if "id" in a]
        assert len(ids) == len(set(ids)), path
        for link in page.links():
            if link.startswith("#"):
                assert link[1:] in ids
            elif not link.startswith("https://example.org/"):  # the origin of the weights
                assert not link.startswith(("http", "/")), link
                assert (path.parent / link.partition("#")[0]).is_file(), f"{path}: {link}"


def test_every_state_is_shown(states: tuple[Zoo, Path]) -> None:
    _, folder = states
    index = Page(folder / "index.html").words
    for words in (
        "verified", "pending", "dry run", "withdrawn", "disabled", "no int8 keeps the floors",
        "slower than PyTorch at batch 1", "cosine 0.999990",
        "500 images/s at batch 1", "TensorRT-RTX 1.7.1.116", "RTX 3080", "4 engines of 2 models",
    ):  # fmt: skip
        assert words in index, words
    assert "superseded" not in index
    page = Page(engine_file(folder, "row 3 is wrong")).words
    assert "withdrawn" in page
    assert "zoo pull" not in page
    assert "--allow-pending" not in page  # no option makes the client download it


def test_an_engines_page_has_what_it_takes_to_trust_and_run_it(states: tuple[Zoo, Path]) -> None:
    zoo, folder = states
    path = engine_file(folder, "sm86-rtx1.7-fp16")
    page = Page(path).words
    (entry, *_) = [one for one in zoo.models["mini_net"].engines if len(one.targets) == 1
                   and one.targets[0].startswith("sm86")]  # fmt: skip
    digest = entry.engine.sha256
    for words in (
        "TensorRT-RTX 1.7.1.116", "580", "RTX 3080", digest,
        "zoo pull mini_net -o mini_net-sm86-rtx1.7-fp16.engine", "--target sm86-rtx1.7-fp16",
        "--store REPOSITORY", "tensorrt-rtx-cu13==1.7.1.116",
        f"REPOSITORY/blobs/sha256/{digest[:2]}/{digest}", "sha256sum -c",
        "tensorrt_rtx --loadEngine",
        "0.999100", "0.999999", "98.0%", "--allow-pending",
        "torch 2.13.0", "3,000,000", entry.record, "RTX 30, A10, A40 and RTX 40, L4, L40",
    ):  # fmt: skip
        assert words in page, words
    for own, fetch in (("/a folder/zoo", "cp '/a folder/zoo/blobs"), ("s3://b/z", "aws s3 cp s3:")):
        build_site(zoo.repository, folder, Place.parse("", own))
        assert fetch in Page(path).words
        assert "REPOSITORY" not in Page(path).words
    build_site(zoo.repository, folder, Place.parse("https://example.org/zoo/"))
    link = f"https://example.org/zoo/blobs/sha256/{digest[:2]}/{digest}"
    (names,) = [a["download"] for _, a in Page(path).tags if a.get("href") == link]
    assert names == "mini_net-sm86-rtx1.7-fp16.engine"
    assert "REPOSITORY" not in Page(path).words


def test_a_models_page_says_what_it_is_good_for(states: tuple[Zoo, Path]) -> None:
    _, folder = states
    page = Page(folder / "models/mini_net.html")
    for words in (
        "1,280", "5,120,000", "12,810 parameters", "bicubic", "slower than PyTorch at batch 1",
        "no int8 keeps the floors", "0.67", "NOTICE", "https://example.org/m",
    ):  # fmt: skip
        assert words in page.words, words
    assert (
        len([tag for tag, a in page.tags if tag == "svg" and a.get("class") == "plot"]) == 4
    )  # 2 machines, torch, accuracy


def test_a_deviation_and_a_crop_mode_are_on_the_models_page(tmp_path: Path) -> None:
    zoo = Zoo()
    plain = zoo.publish("plain_net")
    assert "deviations" not in json.loads(plain.to_json())
    changes = {"crop_mode": "border", "input_size": (96, 64), "crop": 1.0}
    stated = {**plain.preprocess.model_dump(), **changes}
    made = zoo.publish(
        "bordered_net", deviations={"crop_mode": "asked of <the> authors"},
        preprocess=StatedPreprocess.model_validate(stated),
    )  # fmt: skip
    assert ModelIndex.model_validate_json(made.to_json()) == made
    assert made.card.deviations == made.deviations
    build_site(zoo.repository, tmp_path)
    page = Page(tmp_path / "models/bordered_net.html").words
    assert re.search(r"crop mode\b.*: asked of <the> authors", page)
    assert page.count("96 × 64") >= 2
    assert "bicubic" in page
    assert "96 × 64 px" in Page(tmp_path / "index.html").words
    assert "224 px" in Page(tmp_path / "index.html").words
    (bordered, square) = json.loads(zoo.repository.store.get("index.json"))["models"][::-1]
    assert (bordered["input_size"], bordered["input_width"]) == (96, 64)
    assert square["input_size"] == 224
    assert "input_width" not in square


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"input_size": (96, 64)}, {"crop": 1.15}, {"crop_mode": "squash", "crop": 1.0},
        {"crop_mode": "squash", "input_size": (64, 97)}, {"crop_mode": "border"},
        {"crop_mode": "border", "crop": 1.0, "input_size": (97, 64), "interpolation": "lanczos"},
    ],
)  # fmt: skip
def test_the_snippet_does_what_the_client_does(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model_index(engine_entry("cpu-ort1.32-fp32"))
    stated = {**made.preprocess.model_dump(), **changes}
    made = made.model_copy(update={"preprocess": StatedPreprocess.model_validate(stated)})
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (300, 411, 3), np.uint8)
    for shape in (noise, noise.transpose(1, 0, 2)):
        Image.fromarray(np.ascontiguousarray(shape)).save("photo.jpg")
        found: dict[str, np.ndarray] = {}
        exec(preprocess_snippet(made), found)
        expected = batch_of([Image.open("photo.jpg").convert("RGB")], made.preprocess)
        np.testing.assert_allclose(found["batch"], expected, atol=1e-5)


def test_the_report_says_why_and_what_is_missing(states: tuple[Zoo, Path]) -> None:
    zoo, folder = states
    page = Page(folder / "report.html").words
    for words in (
        "toolchain.version", '"1.32.1"', '"1.32.0"', "worst cosine", "latency, ms", "+0.0%",
        "sm120 fp32 bf16 fp16 int8",
    ):  # fmt: skip
        assert words in page, words
    run = NightlyRun(
        started="2026-01-01T00:00:00Z", finished="2026-01-01T01:00:00Z",
        failed=(FailedJob(model="mini_net", target="t", reason="no memory", command="zoo-farm x"),),
    )  # fmt: skip
    build_site(zoo.repository, folder, nightly=run)
    page = Page(folder / "report.html").words
    assert "no memory" in page
    assert "zoo-farm x" in page


def test_the_reports_commands_act_on_its_repository(tmp_path: Path) -> None:
    zoo = every_state()
    place = Place(own="/srv/zoo", checkout={"STORE": "/srv/zoo", "WEIGHTS": "seeded"})
    commands = ("zoo-farm zoo --models mini_net --gpu cpu", "zoo-farm 'of another", "true")
    failed = tuple(
        FailedJob(model="m", target="t", reason="r", command=command) for command in commands
    )
    run = NightlyRun(started="2026-01-01T00:00Z", finished="2026-01-01T01:00Z", failed=failed)
    build_site(zoo.repository, tmp_path, place, nightly=run)
    page = (tmp_path / "report.html").read_text()
    shown = re.findall(r"<code[^>]*>((?:make|\.venv).*)</code>", page)
    made = [html.unescape(text) for text in shown]
    assert len(made) > 5
    for command in made:
        words = shlex.split(command)
        assert "STORE=/srv/zoo" in words or words[-2:] == ["--store", "/srv/zoo"], command
        assert words[0] != "make" or words.count("WEIGHTS=seeded") == 1, command
    assert ".venv/bin/zoo-farm zoo --models mini_net --gpu cpu --store /srv/zoo" in made
    assert "zoo-farm &#39;of another" in page
    archs = [word for command in made for word in command.split() if word.startswith("GPU=sm")]
    gaps = [arch for arch in archs if "," not in arch][-7:]
    assert gaps == [f"GPU=sm{number}" for number in (75, 80, 86, 89, 90, 100, 120)]


def test_a_link_beside_the_pages_leads_to_the_repository(tmp_path: Path) -> None:
    store, site = LocalStore(tmp_path / "zoo"), tmp_path / "site"
    zoo = every_state(store)
    for _ in range(2):
        build_site(zoo.repository, site, Place.parse("", store.url))
        assert (site / "repository").readlink() == Path("../zoo")
    page = engine_file(site, "sm86-rtx1.7-fp16")
    blobs = [page.parent / link for link in Page(page).links() if "/blobs/" in link]
    assert len(blobs) == 2  # the engine and its licence
    assert all(blob.is_file() for blob in blobs)
    build_site(zoo.repository, site, Place.parse("https://example.org/zoo", store.url))
    assert not (site / "repository").is_symlink()
    assert (tmp_path / "zoo/index.json").is_file()

    (site / "repository").mkdir()  # a publisher's own copy
    for url in ("", "https://example.org/zoo", ""):
        build_site(zoo.repository, site, Place.parse(url, store.url))
        assert (site / "repository").is_dir()
        assert not (site / "repository").is_symlink()


def test_a_site_deletes_nothing_of_the_repository(tmp_path: Path) -> None:
    store, site = LocalStore(tmp_path / "zoo"), tmp_path / "site"
    zoo = every_state(store)
    build_site(zoo.repository, site, Place.parse("", store.url))
    state = json.loads((site / STATE).read_text())
    state["files"].append("repository/index.json")
    (site / STATE).write_text(json.dumps(state))
    build_site(zoo.repository, site, Place.parse("", store.url))
    assert (tmp_path / "zoo/index.json").is_file()


def test_the_report_stays_readable_after_an_update() -> None:
    change = Change(field="toolchain.version", before="1.0", after="1.1")
    rebuilt = tuple(
        Rebuilt(
            model=f"m{n % 3}", targets=("t",), record=f"{n:064}", previous="0" * 64,
            created=f"2026-01-01T00:{n:02}:00Z", changed=(change,) if n else (),
        )
        for n in range(9)
    )  # fmt: skip
    drift = [
        Drift(
            model="m", target="t", record=f"{n:064}", measure=measure, batch=batch,
            before=before, after=after,
        )
        for n in range(MOST)
        for measure, batch, before, after in (
            ("latency", 1, 2.0, 2.0 + n), ("latency", 4, 2.0, 1.0),
            ("cosine", 1, 0.99999, 0.99999),
        )
    ]  # fmt: skip
    found = combine([ModelReport(rebuilt=rebuilt, drift=tuple(drift))], Expected())
    assert [(len(one.engines), one.models) for one in found.rebuilt] == [(8, 3), (1, 1)]
    assert len(found.drift) == MOST == found.more_drift
    assert [(one.measure, one.batch, one.after) for one in found.drift[:2]] == [
        ("latency", 1, 101.0),
        ("latency", 1, 100.0),
    ]


def test_the_report_asks_for_no_more_than_the_manifests_do(states: tuple[Zoo, Path]) -> None:
    zoo, folder = states
    asked = Expected(
        precisions={"mini_net": ("fp32", "fp16")},
        absent={"big": "no weights", "huge": "no weights"},
    )
    build_site(zoo.repository, folder, expected=asked)
    page = Page(folder / "report.html").words
    assert "sm75 fp32 fp16 sm80 fp32 fp16 sm86 fp32 sm89 fp32 sm90 fp32" in page
    assert "sm120 fp32 bf16 fp16 int8" in page  # of a model whose manifest is not known
    assert "no weights" in page
    assert "big huge" in page


def test_a_checkout_says_what_there_could_be(tmp_path: Path) -> None:
    zoo = every_state()
    zoo.publish("resnet50")
    found = expected(zoo.repository, ROOT / "manifests")
    assert found.precisions["resnet50"] == ("fp32", "fp16", "int8")
    assert "resnet50" not in found.absent
    assert found.absent["efficientnet_lite0"] == "not built yet"
    assert "not locked" in found.absent["densenet121"]
    with pytest.raises(ManifestError, match="none"):
        expected(zoo.repository, tmp_path / "none")
    (tmp_path / "broken.toml").write_text("[")
    assert expected(zoo.repository, tmp_path).absent == {"broken": "the manifest can't be read"}


def test_a_file_that_no_run_wrote_is_refused(tmp_path: Path) -> None:
    for name, content in {"run.json": '{"started": 1}', "missing.json": None}.items():
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with pytest.raises(UsageError) as raised:
            read_nightly(path)
        assert raised.value.exit_code == 2
        assert str(path) in str(raised.value)
        assert_golden(f"catalog/nightly_{path.stem}", raised.value, {tmp_path: "FOLDER"})


def test_changes_name_the_path_of_a_field() -> None:
    found = list(changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}))
    assert [(one.field, one.before, one.after) for one in found] == [
        ("a.c", 2, 3),
        ("a.d", None, 4),
    ]


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, zoo: Zoo) -> None:
        self.reads: list[str] = []
        store = zoo.repository.store
        get = store.get

        def counted(key: str, *, limit: int | None = None) -> bytes:
            self.reads.append(key)
            return get(key, limit=limit)

        store.get = counted  # type: ignore[method-assign]


def test_what_did_not_change_is_neither_read_nor_written(states: tuple[Zoo, Path]) -> None:
    zoo, folder = states
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    counting = Counting(zoo)
    build_site(zoo.repository, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not [key for key in counting.reads if key.startswith(("records/", "attest", "export"))]

    zoo.publish("maxi_net", *zoo.models["maxi_net"].engines[:0])
    counting.reads.clear()
    gone = list(folder.glob("engines/maxi_net/*"))
    build_site(zoo.repository, folder)
    assert gone
    assert not any(path.exists() for path in gone)
    assert not [key for key in counting.reads if "mini_net" in key and key.startswith("records/")]
    assert "1 engine" not in Page(folder / "models/maxi_net.html").words


def test_a_file_that_is_not_the_sites_own_stays(states: tuple[Zoo, Path], tmp_path: Path) -> None:
    zoo, folder = states
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (folder / "CNAME").write_text("zoo.example.org")
    state = json.loads((folder / STATE).read_text())
    state["files"] += ["../precious", str(precious), "old.html"]
    (folder / "old.html").write_text("old")
    (folder / STATE).write_text(json.dumps(state))
    build_site(zoo.repository, folder)
    assert precious.exists()
    assert (folder / "CNAME").exists()
    assert not (folder / "old.html").exists()
    (folder / STATE).write_text("{")
    build_site(zoo.repository, folder)  # made anew
    assert json.loads((folder / STATE).read_text())["models"]


def test_a_record_that_was_changed_is_not_shown(tmp_path: Path) -> None:
    zoo = every_state()
    (entry, *_) = zoo.models["mini_net"].engines
    key = record_key("mini_net", entry.record)
    zoo.repository.store.put(key, zoo.repository.store.get(key).replace(b"file w", b"file v"))
    with pytest.raises(RepositoryError) as raised:
        build_site(zoo.repository, tmp_path)
    assert raised.value.exit_code == RepositoryError.exit_code
    assert_golden("catalog/changed_record", raised.value, {entry.record: "RECORD"})
    zoo.repository.store.delete(key)
    build_site(zoo.repository, tmp_path)
    page = Page(tmp_path / f"engines/mini_net/{entry.record[:16]}.html")
    assert entry.record in page.words
    assert "torch 2.13.0" not in page.words  # only the record has it


def test_programs_can_read_the_index(states: tuple[Zoo, Path]) -> None:
    _, folder = states
    data = SiteIndex.model_validate_json((folder / "index.json").read_bytes())
    assert data.kind == "release"
    assert "RTX 3080" in data.gpus["sm86"]
    for one in data.models:
        assert (folder / one.page).is_file()
        assert all((folder / each.page).is_file() for each in one.engines)
    schema = json.loads((folder / "index.schema.json").read_text())
    assert set(json.loads((folder / "index.json").read_text())) <= set(schema["properties"])


def test_two_thousand_engines_fit_a_page(tmp_path: Path) -> None:
    zoo = Zoo()
    for one in many(models=100, each=20):
        zoo.publish(one.model, catalog=one.catalog)
    cards = listing.cards(many(models=100, each=20))
    data = listing.page_data(cards)
    assert len(data["rows"]) == 2000
    from zoo.catalog.render import render

    page = render(
        "index.html", root="", dry_run=False, place=Place(), cards=cards, data=data,
        data_file="rows.json", filters=listing.filters(cards), engines=2000, quick=None,
    )  # fmt: skip
    assert len(page) < 300_000


def test_gpus_are_known_by_one_name_each() -> None:
    names = [name for known in gpu_table().values() for name in known.products]
    assert len({slug(name) for name in names}) == len(names)
    assert set(gpu_table()) == set(known_archs()) - {"cpu"}
    assert all(known.source.startswith("https://") for known in gpu_table().values())


def test_a_chart_tells_engines_of_two_runtimes_apart() -> None:
    zoo = Zoo()
    records = [zoo.record("m", f"sm86-{line}-fp16") for line in ("trt11.4", "rtx1.7")]
    for record in records:
        zoo.verify(record, "sm86")
    (chart,) = speed_charts(model_index(*zoo.entries("m", *records)))
    assert {one.name for one in chart.series} == {"fp16 trt11.4", "fp16 rtx1.7"}


def test_a_chart_has_no_more_lines_than_colours() -> None:
    zoo = Zoo()
    lines = ("trt11.4", "trt10.16", "trt10.13")
    labels = [f"sm90-{line}-{name}" for line in lines for name in ("fp32", "fp16", "int8")]
    records = [zoo.record("m", label) for label in [*labels, "sm86-trt11.4-fp32"]]
    for record in records:
        zoo.verify(record, record.targets[0].partition("-")[0])
    (old, new) = speed_charts(model_index(*zoo.entries("m", *records)))
    assert [len(chart.plot.lines) for chart in (old, new)] == [1, 3]  # sm86 comes before sm90
    assert (old.more, new.more) == (0, 6)
    assert len(new.series) == 9  # the table has them all
    plot = accuracy(model_index(*zoo.entries("m", *records)))
    assert plot is not None
    assert {line.name.split()[0]: line.tone for line in new.plot.lines} == dict(plot.precisions)


def test_rows_and_cells_begin_with_what_a_reader_would_choose(tmp_path: Path) -> None:
    zoo = Zoo()
    labels = (
        "sm90-trt10.13-fp32", "sm90-trt11.4-fp32", "sm90-trt8.6-fp32", "sm90-trt11.4-fp16",
        "sm86-trt11.4-fp32",
    )  # fmt: skip
    built = [zoo.record("m", label) for label in labels]
    zoo.verify(built[0], "sm90")
    shared = zoo.record("m", "sm120-rtx1.7-fp32", "sm86-rtx1.7-fp32", version="1.7.1.116")
    zoo.publish("m", *zoo.entries("m", *built, shared))
    (card,) = listing.cards(list(zoo.repository.model_indexes()))
    assert [(row.archs[0], row.line, row.precision) for row in card.rows] == [
        ("sm86", "trt11.4", "fp32"), ("sm86", "rtx1.7", "fp32"), ("sm90", "trt10.13", "fp32"),
        ("sm90", "trt11.4", "fp32"), ("sm90", "trt11.4", "fp16"), ("sm90", "trt8.6", "fp32"),
    ]  # fmt: skip
    assert card.rows[1].archs == ("sm86", "sm120")
    build_site(zoo.repository, tmp_path)
    report = Page(tmp_path / "report.html").words
    assert "sm86-rtx1.7-fp32, sm120-rtx1.7-fp32" in report
    assert "GPU=sm86,sm120 " in report
    page = (tmp_path / "models/m.html").read_text()
    assert re.findall(r"<summary>(\d more)</summary>", page) == ["2 more"]
    assert page.count("<details>") == page.count("</details>")
    (cell,) = re.findall(r"<td>(?:(?!</td>).)*2 more(?:(?!</td>).)*</td>", page, re.DOTALL)
    assert [cell.index(line) for line in ("10.13", "2 more", "11.4", "8.6")] == sorted(
        cell.index(line) for line in ("10.13", "2 more", "11.4", "8.6")
    )


def test_models_that_lack_the_same_engines_share_a_line() -> None:
    gaps = [
        Missing(model=model, arch=arch, precisions=("fp16",))
        for model, arch in (
            ("b", "sm80"),
            ("a", "sm80"),
            ("c", "sm80"),
            ("b", "sm90"),
            ("a", "sm90"),
        )
    ]
    found = same_gaps(gaps)
    assert [names for _, names in found] == [("a", "b"), ("c",)]
    assert [gap.arch for gap in found[0][0]] == ["sm80", "sm90"]


def test_figures() -> None:
    assert [cut(0.99996, 4), cut(0.9961, 4), cut(1.0, 4)] == ["0.9999", "0.9961", "1.0000"]
    assert known_as("sm86") == "RTX 30, A10, A40"
    assert known_as("cpu") == known_as("odd (one)") == ""
    assert width(1280).head == 12_810
    assert nines(0.999) == pytest.approx(3)
    assert nines(1.0) == 8
    places = spread([50, 50, 51, 10], 0, 100)
    assert all(abs(a - b) >= 16 for i, a in enumerate(places) for b in places[:i])


def test_pages_with_tensorrt_engines_state_what_portable_ones_cost(tmp_path: Path) -> None:
    measured = read_prices((ROOT / "docs/results").glob("*/portability/*.json"))
    zoo = every_state()
    build_site(zoo.repository, tmp_path, measured=measured)
    shown = {path.name for path in pages(tmp_path) if 'id="portability"' in path.read_text()}
    offered = {
        f"{model.model}.html"
        for model in zoo.repository.model_indexes()
        if any(engine.toolchain.kind == "trt" for engine in model.current)
    }
    assert offered
    assert {name for name in shown if not re.fullmatch(r"[0-9a-f]{16}\.html", name)} == offered
    assert len(shown) > len(offered)


def test_an_engine_without_a_whole_is_pulled_with_the_client() -> None:
    def offered(**changes: object) -> str:
        entry = engine_entry("sm86-rtx1.7-fp16", **changes)
        made = commands(model_index(entry), entry, Place(url="https://example.org/zoo"))
        return "\n".join(command.plain for command in made)

    assert "blobs/sha256" in offered()
    assert "chunks" not in offered()
    alone = offered(chunks={"sha256": "5" * 64, "size": 9}, chunks_only=True)
    assert "blobs/sha256" not in alone
    assert "caft-zoo[rtx,chunks]" in alone
