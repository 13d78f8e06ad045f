"""The site in a real browser: filters, shared links, copying; without a script, without a mouse.

Screenshots of what was seen are left in ``_screenshots``.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from support import records
from support.catalogs import HOSTILE, Zoo, every_state, hostile, many
from support.paths import ROOT

from builders.cli.preview import server
from zoo.catalog import listing
from zoo.catalog.place import Place
from zoo.catalog.render import render
from zoo.catalog.site import build_site
from zoo.schema.index import ModelIndex
from zoo.stores import LocalStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

SHOTS = ROOT / "_screenshots"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)
WORDS = """rows => rows.map(row => [
  row.querySelector("a").getAttribute("href"), row.innerText.split(/\\s+/).join(" "),
  ...[...row.querySelectorAll(".badge")].map(badge => badge.className + badge.title),
])"""
"""What a row says: its link, its text, its badges with what they mean."""

OVERLAPS = """(() => {
  const parts = [...document.querySelectorAll(".row > *")].map(one => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return [one.textContent, range.getBoundingClientRect()];
  }).filter(([_, box]) => box.width);
  return parts.flatMap(([text, a], i) => parts.slice(i + 1).filter(([_, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1
  ).map(([other]) => [text, other]));
})()"""
"""Parts of rows whose text lies on that of another."""

CLIPPED = """[...document.querySelectorAll("svg text")].filter(one => {
  const box = one.getBoundingClientRect(), whole = one.closest("svg").getBoundingClientRect();
  return box.width && (box.left < whole.left - 1 || box.right > whole.right + 1
    || box.top < whole.top - 1 || box.bottom > whole.bottom + 1);
}).map(one => one.textContent)"""
"""Text of charts that goes beyond them."""

SHIFT = """new Promise(done => {
  let sum = 0;
  const add = list => { for (const one of list.getEntries()) sum += one.value; };
  new PerformanceObserver(add).observe({type: "layout-shift", buffered: true});
  setTimeout(() => done(sum), 50);
})"""
"""How far a page moved while it was loaded."""

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


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
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build_site(every_state().repository, folder)
    return folder


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    """Opens a page; anything that it complains of, or asks of another host, fails the test."""
    wrong: list[str] = []
    contexts = []

    def opened(address: str | Path, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a machine may be busy
        page.on("console", lambda said: wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda asked: wrong.extend(_failed(asked)))
        page.on("request", lambda asked: wrong.extend(_elsewhere(asked.url)))
        page.goto(address.as_uri() if isinstance(address, Path) else address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def engine_file(site: Path, label: str) -> Path:
    """Returns the page of the engine whose title has a label."""
    (found,) = [
        path for path in site.glob("engines/*/*.html")
        if label in path.read_text().partition("</title>")[0]
    ]  # fmt: skip
    return found


def _failed(asked: Request) -> list[str]:
    # What the browser was still loading when the test ended is aborted; that is no missing file.
    return [] if asked.failure == "net::ERR_ABORTED" else [asked.url]


def _elsewhere(url: str) -> list[str]:
    return [] if url.startswith(("file:", "http://127.0.0.1:")) else [url]


def until(page: Page, expression: str) -> None:
    """Waits until an expression is true.

    ``wait_for_function`` has the page evaluate it again, which the page's own policy forbids.
    """
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(200)
    pytest.fail(f"never true: {expression}")


def rows(page: Page) -> list[str]:
    """Names of the rows that can be seen, in order."""
    seen = page.locator(".row:visible .name").all_inner_texts()
    return [" ".join(name.split()) for name in seen]


def test_filters_find_by_the_name_of_a_gpu_and_can_be_shared(site: Path, open_page: Any) -> None:
    page = open_page(site / "index.html")
    everything = page.locator(".row").all_inner_texts()
    page.select_option("#gpu", label="RTX 3080")
    assert rows(page) == ["sm86 fp32", "sm86 fp16"]
    page.select_option("#precision", "fp16")
    assert rows(page) == ["sm86 fp16"]
    assert page.url.endswith("?gpu=rtx-3080&precision=fp16")
    assert page.inner_text("#count") == "1 engine of 1 model"

    shared = open_page(page.url)
    assert rows(shared) == ["sm86 fp16"]
    assert shared.input_value("#gpu") == "rtx-3080"
    by_arch = open_page((site / "index.html").as_uri() + "?gpu=sm86&precision=fp16")
    assert rows(by_arch) == ["sm86 fp16"]

    page.select_option("#gpu", label="B200")
    assert rows(page) == []
    assert "B200 (sm100)" in page.inner_text("#none")
    page.click("#reset")
    assert page.locator(".row").all_inner_texts() == everything
    assert "?" not in page.url


def test_rows_that_the_script_makes_read_like_those_of_the_page(site: Path, open_page: Any) -> None:
    page = open_page(site / "index.html")
    before = page.locator(".row").evaluate_all(WORDS)
    page.fill("#q", "net")  # fits them all
    assert page.locator(".row").evaluate_all(WORDS) == before


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?q=rtx+3080+fp16", ["sm86 fp16"]),
        ("?q=maxinet", ["sm86 fp32"]),
        ("?trt=rtx1.7", ["sm86 fp16", "sm89 fp16"]),
        ("?features=2048", ["sm86 fp32"]),
        ("?family=maxi", ["sm86 fp32"]),
        ("?status=disabled", ["cpu int8"]),
        ("?sort=accuracy&gpu=cpu", ["cpu fp32", "cpu int8"]),
        ("?status=verified&sort=accuracy", ["cpu fp32", "sm86 fp16"]),
        ("?gpu=nonsense&status=withdrawn", []),
        ("?gpu=SM86&precision=FP16", ["sm86 fp16"]),
        ("?gpu=RTX%203080&precision=fp16", ["sm86 fp16"]),
        ("?gpu=sm86&precision=bf16", []),
        ("?q=NVIDIA+GeForce+RTX3080", ["sm86 fp16", "sm86 fp32"]),
        ("?q=sm_89", ["sm89 fp16"]),
        ("?q=A10", ["sm86 fp16", "sm86 fp32"]),
        ("?q=NVIDIA+A10G", ["sm86 fp16", "sm86 fp32"]),
        ("?q=NVIDIA+GeForce+RTX+3080+Ti+Laptop+GPU", ["sm86 fp16", "sm86 fp32"]),
        ("?q=NVIDIA+GeForce+RTX+4070+SUPER+fp16", ["sm89 fp16"]),
        ("?q=NVIDIA+RTX+6000+Ada+Generation", ["sm89 fp16"]),
        ("?q=NVIDIA+H100+80GB+HBM3", ["sm90 fp16"]),
        ("?q=NVIDIA+A100-SXM4-80GB", []),
        ("?q=Tesla+T4", []),
        ("?gpu=NVIDIA+H100+NVL", ["sm90 fp16"]),
        ("?gpu=NVIDIA+RTX+6000+Ada+Generation", ["sm89 fp16"]),
        ("?q=a100", []),
        ("?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E", []),
    ],
)
def test_a_link_says_what_is_shown(
    query: str, expected: list[str], site: Path, open_page: Any
) -> None:
    assert rows(open_page((site / "index.html").as_uri() + query)) == expected


def test_a_hostile_record_is_text_in_rows_that_the_script_makes(
    tmp_path: Path, open_page: Any
) -> None:
    build_site(hostile().repository, tmp_path)
    for address in (tmp_path / "index.html", tmp_path / "models/m.html"):
        page = open_page(address)
        page.on("dialog", lambda asked: pytest.fail(asked.message))
        if address.stem == "index":
            page.fill("#q", "alert(1)")
            assert page.locator(".row:visible").count() == 1
        assert HOSTILE in page.inner_text("main").replace("\xa0", " ")
        assert page.locator("main img, main script:not(#data)").count() == 0
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address


def test_numbers_do_not_run_into_each_other(tmp_path: Path, open_page: Any) -> None:
    zoo = Zoo()
    record = zoo.record("m", "sm86-rtx1.7-fp16", version="1.7.1.116")
    zoo.verify(record, "sm86")
    times = [{"batch": 256, "latency_ms": 2.0, "images_per_second": 123_456.0}]
    zoo.attest(record, "benchmarked", {"batches": times}, "sm86")
    zoo.publish("m", *zoo.entries("m", record))
    build_site(zoo.repository, tmp_path)
    for width in (1280, 1000, 700, 320):
        page = open_page(tmp_path / "index.html", viewport={"width": width, "height": 800})
        assert page.evaluate(OVERLAPS) == [], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def test_what_is_verified_on_a_gpu_comes_first(tmp_path: Path, open_page: Any) -> None:
    zoo = Zoo()
    shared = zoo.record("m", "sm86-rtx1.7-fp16", "sm89-rtx1.7-fp16", version="1.7.1.116")
    alone = zoo.record("m", "sm89-trt11.4-fp16")
    zoo.verify(alone, "sm89")
    zoo.publish("m", *zoo.entries("m", shared, alone))
    build_site(zoo.repository, tmp_path)
    for query in ("gpu=l4", "q=l4", "gpu=l4&precision=fp16"):
        page = open_page((tmp_path / "index.html").as_uri() + f"?{query}")
        assert rows(page) == ["sm89 fp16", "sm86 sm89 fp16"], query


def test_sorting_puts_models_in_order_too(tmp_path: Path, open_page: Any) -> None:
    models = many(models=3, each=8)
    changed = [
        model.model_copy(update={"engines": tuple(_sized(one, 10 - n) for one in model.engines)})
        for n, model in enumerate(models)
    ]
    page_file = index_page(changed, tmp_path)
    page = open_page(page_file.as_uri() + "?sort=size")
    titles = page.locator(".card:visible h2").all_inner_texts()
    assert titles == [f"Backbone number {n}" for n in (2, 1, 0)]


def index_page(models: Sequence[ModelIndex], folder: Path) -> Path:
    """Writes the index page of models that are in no repository."""
    cards = listing.cards(models)
    build_site(every_state().repository, folder)  # for its scripts and style
    page = folder / "index.html"
    page.write_bytes(
        render(
            "index.html", root="", dry_run=False, place=Place(), cards=cards,
            engines=sum(len(model.engines) for model in models),
            data=listing.page_data(cards), data_file="", filters=listing.filters(cards), quick=None,
        )
    )  # fmt: skip
    return page


def _sized(engine: Any, mib: int) -> Any:
    return engine.model_copy(
        update={"engine": engine.engine.model_copy(update={"size": mib * 2**20})}
    )


def test_without_a_script_everything_is_a_link_away(site: Path, open_page: Any) -> None:
    page = open_page(site / "index.html", java_script_enabled=False)
    assert not page.locator("#filters").is_visible()
    assert len(rows(page)) == 6
    page.click("h2 >> text=MiniNet")
    assert not page.locator(".copier").first.is_visible()
    page.locator("table a", has_text="TensorRT-RTX").first.click()
    assert "zoo pull mini_net" in page.inner_text("main")


def test_a_button_copies_the_lines_beside_it(site: Path, open_page: Any) -> None:
    path = engine_file(site, "sm86-rtx1.7-fp16")
    page = open_page(path, permissions=["clipboard-read", "clipboard-write"])
    page.locator(".copier").nth(1).click()
    page.wait_for_selector("text=Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "zoo pull mini_net" in copied
    assert "--target sm86-rtx1.7-fp16" in copied
    page.locator(".copier").nth(4).focus()
    page.keyboard.press("Enter")
    until(page, "navigator.clipboard.readText().then(t => t.startsWith('curl -fL'))")


def test_the_keyboard_reaches_filters_and_shows_where_it_is(site: Path, open_page: Any) -> None:
    page = open_page(site / "index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "q":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("maxi")
    assert rows(page) == ["sm86 fp32"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_pages_are_accessible_and_do_not_shift(
    scheme: str, size: dict[str, int], site: Path, open_page: Any
) -> None:
    engine = engine_file(site, "sm86-rtx1.7-fp16")
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    SHOTS.mkdir(exist_ok=True)
    for path in (site / "index.html", site / "models/mini_net.html", engine, site / "report.html"):
        page = open_page(path, viewport=size, color_scheme=scheme)
        assert page.evaluate(SHIFT) < 0.05  # good is below 0.1; a busy browser paints in parts
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate(CLIPPED) == [], path
        options = {"preload": False, "resultTypes": ["violations"]}  # it would fetch the styles
        found = axe.Axe().run(page, options=options).response["violations"]
        serious = [one for one in found if one["impact"] != "minor"]
        assert not serious, [(one["id"], one["nodes"][0]["html"]) for one in serious]
        name = f"{path.parent.name if path == engine else ''}{path.stem}"
        page.screenshot(path=SHOTS / f"{name}-{size['width']}-{scheme}.png", full_page=True)


def test_rows_that_are_many_are_fetched(
    tmp_path: Path, open_page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.catalog.site.DATA_IN_PAGE", 10)
    build_site(every_state().repository, tmp_path / "some/prefix")
    with server(tmp_path, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        port = running.server_address[1]
        address = f"http://127.0.0.1:{port}/some/prefix/index.html?precision=fp16"
        page = open_page(address)
        until(page, "document.getElementById('count').textContent.startsWith('2 ')")
        assert rows(page) == ["sm86 fp16", "sm89 fp16", "sm90 fp16"]
        running.shutdown()


NAMES = {
    "resnet50": ("ResNet-50", 2048, "mit"), "resnet101": ("ResNet-101", 2048, "mit"),
    "vgg16_bn": ("VGG-16", 25_088, "bsd-3-clause"),
    "efficientnet_b0": ("EfficientNet-B0", 1280, "mit"),
    "efficientnet_b2": ("EfficientNet-B2", 1408, "mit"),
}  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of models that have the names of real ones."""
    zoo, folder = Zoo(), tmp_path_factory.mktemp("named")
    text = records.catalog_text(
        title="t", summary="Compared with 50 others", characteristics=("c",), use_case="u"
    )
    for model, (title, width, licence) in NAMES.items():
        built = zoo.record(model, "sm86-rtx1.7-fp16", "sm120-rtx1.7-fp16", version="1.7.1.116")
        zoo.verify(built, "sm86")
        cpu = zoo.record(model, "cpu-ort1.32-int8")
        zoo.verify(cpu)
        b200 = zoo.record(model, "sm100-trt11.4-fp32")
        zoo.publish(
            model, *zoo.entries(model, built, cpu, b200), feature_dim=width, licence=licence,
            family=model.rstrip("0123456789_bn"), timm_name=f"{model}.a1_in1k",
            catalog=text.model_copy(update={"title": title}),
        )  # fmt: skip
    build_site(zoo.repository, folder, Place(url="https://example.org/zoo"))
    return folder


@pytest.mark.parametrize(
    ("search", "titles"),
    [
        ("ResNet-50", ["ResNet-50"]),
        ("ResNet 50", ["ResNet-50"]),
        ("resnet50", ["ResNet-50"]),
        ("resnet", ["ResNet-101", "ResNet-50"]),
        ("resnet 50 RTX 3080 fp16", ["ResNet-50"]),
        ("1280", ["EfficientNet-B0"]),
        ("25,088", ["VGG-16"]),
        ("25088", ["VGG-16"]),
        ("BSD-3-Clause", ["VGG-16"]),
        ("b0", ["EfficientNet-B0"]),
        ("RTX 3080", ["EfficientNet-B0", "EfficientNet-B2", "ResNet-101", "ResNet-50", "VGG-16"]),
        ("nonsense", []),
        ("timm/resnet50.a1_in1k", ["ResNet-50"]),
        ("EfficientNet b0 on RTX 3080", ["EfficientNet-B0"]),
        ("EfficientNet b2", ["EfficientNet-B2"]),  # a model, not the engines of a B200
        ("net", ["EfficientNet-B0", "EfficientNet-B2", "ResNet-101", "ResNet-50"]),
        ("https://huggingface.co/timm/resnet50.a1_in1k", ["ResNet-50"]),
        ("BSD 3-Clause licence", ["VGG-16"]),
        ("1,280 features", ["EfficientNet-B0"]),
        ("models", ["EfficientNet-B0", "EfficientNet-B2", "ResNet-101", "ResNet-50", "VGG-16"]),
        ("", ["EfficientNet-B0", "EfficientNet-B2", "ResNet-101", "ResNet-50", "VGG-16"]),
    ],
)
def test_a_search_finds_what_it_names(
    search: str, titles: list[str], named: Path, open_page: Any
) -> None:
    page = open_page(named / "index.html")
    page.fill("#q", search)
    assert page.locator(".card:visible h2").all_inner_texts() == titles
    if "RTX" in search:
        assert set(rows(page)) == {"sm86 fp16"}


RTX, TRT = ["sm86 fp16", "sm89 fp16"], ["sm86 fp32", "sm90 fp16"]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("onnxruntime", ["cpu fp32", "cpu int8"]),
        ("ONNX Runtime", ["cpu fp32", "cpu int8"]),
        ("onnx-runtime int8", ["cpu int8"]),
        ("tensorrt", [*TRT, *RTX]),
        ("TensorRT-RTX", RTX),
        ("TensorRT for RTX", RTX),
        ("rtx", [*RTX, "sm86 fp32"]),  # the runtime, then GPUs
        ("rtx1.7", RTX),
        ("TensorRT-RTX 1.7", RTX),
        ("trt11.4", TRT),
        ("TensorRT 11 engines", TRT),
        ("cpu", ["cpu fp32", "cpu int8"]),
        ("int8", ["cpu int8"]),
        ("int 8", ["cpu int8"]),
        ("fp-16", ["sm86 fp16", "sm89 fp16", "sm90 fp16"]),
        ("float16 precision", ["sm86 fp16", "sm89 fp16", "sm90 fp16"]),
        ("fp32 runtime", ["cpu fp32", "sm86 fp32"]),  # verified first
        ("MiniNet on cpu", ["cpu fp32", "cpu int8"]),
        ("RTX 30 series", ["sm86 fp16", "sm86 fp32"]),
        ("rtx 40", ["sm89 fp16"]),
        ("rtx 308", ["sm86 fp16", "sm86 fp32"]),  # while it is being typed
        ("A 10", ["sm86 fp16", "sm86 fp32"]),
        ("RTX PRO 6000", []),
        ("disabled", ["cpu int8"]),
        ("bfloat16", []),
    ],
)
def test_a_search_finds_engines_by_what_they_are(
    search: str, expected: list[str], site: Path, open_page: Any
) -> None:
    page = open_page(site / "index.html")
    page.fill("#q", search)
    assert rows(page) == expected


def test_commands_name_the_repository_where_the_site_is_served(
    tmp_path: Path, open_page: Any
) -> None:
    store, folder = LocalStore(tmp_path / "zoo"), tmp_path / "a site"
    build_site(every_state(store).repository, folder, Place.parse("", store.url))
    engine = engine_file(folder, "sm86-rtx1.7-fp16").relative_to(folder).as_posix()
    with server(tmp_path, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{running.server_address[1]}/a%20site"
        for name in ("index.html", "models/mini_net.html", engine):
            page = open_page(f"{base}/{name}")
            codes = page.locator("code[data-language]").all_text_contents()
            assert sum(f"{base}/repository" in code for code in codes) >= 2, name
            assert store.url not in "".join(codes)
            assert not page.locator("[data-from-folder]").is_visible()
            if name == engine:
                assert any("curl -fL -o" in code and f"{base}/repo" in code for code in codes)
                link = page.locator("a[download]").evaluate("link => link.href")
                assert urlopen(link).read() == store.get(link.partition("/repository/")[2])
            page = open_page(folder / name)
            if name == "index.html":
                page.click("summary >> text=Quick start")
            codes = page.locator("code[data-language]").all_text_contents()
            assert sum(store.url in code for code in codes) >= 2, name
            assert "BASE_URL" in page.locator("[data-from-folder]").inner_text()
        running.shutdown()


def test_a_card_shows_its_first_rows_where_very_many_match(tmp_path: Path, open_page: Any) -> None:
    page = open_page(index_page(many(models=30, each=24), tmp_path))
    page.fill("#q", "fp16")
    cards = page.locator(".card:visible")
    assert page.inner_text("#count") == "240 engines of 30 models"
    assert page.locator(".row:visible").count() == 30 * 6
    button = cards.first.get_by_role("button", name="Show all 8")
    button.click()
    assert cards.first.locator(".row").count() == 8
    assert not button.is_visible()
    # A keyboard goes on where the list ended.
    assert page.evaluate("document.activeElement === document.querySelectorAll('.row .name')[6]")
    page.fill("#q", "fp16 number 7")
    assert page.locator(".row:visible").count() == 8
    page.fill("#q", "")
    assert page.get_by_role("button", name="Show all").count() == 0


def test_the_commands_follow_the_gpu_that_is_kept(named: Path, open_page: Any) -> None:
    page = open_page((named / "models/resnet50.html").as_uri())
    assert "--target cpu-ort1.32-int8" in page.inner_text("#use")
    page.select_option("#use-gpu", label="RTX 3080")
    said = page.inner_text("#use")
    assert "--target sm86-rtx1.7-fp16" in said
    assert "caft-zoo[rtx]" in said
    assert "tensorrt-rtx-cu13==1.7.1.116" in said
    assert 'target="sm86-rtx1.7-fp16"' in said
    assert page.url.endswith("?gpu=rtx-3080")
    page.goto((named / "models/vgg16_bn.html").as_uri())  # of the same browser
    assert page.input_value("#use-gpu") == "rtx-3080"
    assert "--target sm86-rtx1.7-fp16" in page.inner_text("#use")
    page.goto((named / "models/vgg16_bn.html").as_uri() + "?gpu=t4")
    assert "T4" in page.inner_text("#use-none")
    assert "--target cpu-ort1.32-int8" in page.inner_text("#use")


def test_a_phone_shows_int8_without_scrolling_sideways(named: Path, open_page: Any) -> None:
    page = open_page(named / "models/resnet50.html", viewport=PHONE)
    cell = page.locator(".verdicts tr", has_text="int8").locator("a", has_text="ONNX Runtime")
    box = cell.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


def test_a_phone_shows_comparisons_with_pytorch_whole(site: Path, open_page: Any) -> None:
    files = [path for path in site.rglob("*.html") if "Against PyTorch" in path.read_text()]
    assert {path.relative_to(site).parts[0] for path in files} == {"models", "engines"}
    for file in files:
        table = open_page(file, viewport=PHONE).locator(".table", has_text="Against PyTorch")
        assert table.evaluate("one => one.scrollWidth - one.clientWidth") <= 0, file


def test_a_phone_shows_what_was_verified_whole(site: Path, open_page: Any) -> None:
    label = 'aria-label="Verification of'
    files = [path for path in site.rglob("*.html") if label in path.read_text()]
    assert files
    for file in files:
        tables = open_page(file, viewport=PHONE).locator("[aria-label^='Verification of']")
        for table in tables.all():
            assert table.evaluate("one => one.scrollWidth - one.clientWidth") <= 0, file


def test_a_phone_shows_charts_that_can_be_read(site: Path, open_page: Any) -> None:
    page = open_page(site / "models/mini_net.html", viewport=PHONE)
    heights = page.evaluate(
        "[...document.querySelectorAll('svg.plot text')].map(one => one.getBoundingClientRect())"
        ".filter(box => box.width).map(box => box.height)"
    )
    assert heights
    assert min(heights) >= 10
    assert page.evaluate(CLIPPED) == []
