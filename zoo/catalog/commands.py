"""Commands that the pages offer: each works as it stands, on a machine that has only Python.

A command may have slots: parts that the page's script replaces when a reader picks a GPU, or by
the site's own address, which no file of the site knows before it is served.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from typing_extensions import assert_never

from zoo.catalog import facts
from zoo.catalog.place import BESIDE, SITE, Place
from zoo.catalog.preprocessing import preprocess_snippet
from zoo.schema.closed import Unknown
from zoo.schema.index import EngineEntry, ModelIndex
from zoo.schema.manifest import sides
from zoo.schema.records import Status
from zoo.schema.runtimes import RUNTIME_FACTS, Runtime
from zoo.stores import extra_of

_OPEN, _NAME, _CLOSE = "\ue000", "\ue001", "\ue002"  # private use: no command has them
_SLOT = re.compile(f"{_OPEN}([a-z]+){_NAME}(.*?)(?:{_NAME}(.*?))?{_CLOSE}", re.DOTALL)
_BREAK = " \\\n  "


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command or snippet to copy.

    Attributes:
        title: What it does.
        text: Its lines, with slots.
        language: ``sh`` or ``python``.
        note: A remark shown below it, or None.
    """

    title: str
    text: str
    language: str = "sh"
    note: str | None = None

    @property
    def plain(self) -> str:
        """Its lines as they are shown without a script."""
        return _SLOT.sub(r"\2", self.text)

    @property
    def parts(self) -> list[tuple[str, str, str]]:
        """Its text as slot, content and what a served page has instead; no slot between slots."""
        found, end = [], 0
        for match in _SLOT.finditer(self.text):
            found += [
                ("", self.text[end : match.start()], ""),
                (match[1], match[2], match[3] or ""),
            ]
            end = match.end()
        return [*found, ("", self.text[end:], "")]


def slot(name: str, text: str) -> str:
    """Marks a part of a command that the page's script may replace."""
    return f"{_OPEN}{name}{_NAME}{text}{_CLOSE}"


def served(text: str, there: str) -> str:
    """Marks a part of a command that differs where a server offers the page.

    Args:
        text: The part where the page is opened from a folder, or without a script.
        there: The part where it is served; ``SITE`` in it stands for the site's address.
    """
    return f"{_OPEN}served{_NAME}{text}{_NAME}{there}{_CLOSE}"


def lines(*parts: str) -> str:
    """Joins the parts of a long shell command, one a line."""
    return _BREAK.join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a command depends on the engine.

    Attributes:
        target: Label of the target.
        extra: The extras of the client that install the runtime, and what the engine's download
            needs.
        packages: Packages to install beside it, as requirements: the engine's exact runtime.
        flags: Options without which the client refuses the engine; empty for a verified one.
        arguments: The same as arguments of ``zoo.load``, each after a comma.
    """

    target: str
    extra: str
    packages: str
    flags: str
    arguments: str


def choice(engine: EngineEntry, label: str) -> Choice:
    """Returns what the commands of an engine need to be told, for one of its targets."""
    needed = [
        name
        for name, is_needed in (
            ("allow_pending", engine.status == Status.PENDING),
            ("allow_seeded", engine.dry_run),
        )
        if is_needed
    ]
    kind = engine.toolchain.kind
    runtime = "" if isinstance(kind, Unknown) else RUNTIME_FACTS[kind].extra
    return Choice(
        target=label,
        extra=",".join(filter(None, (runtime, "chunks" if engine.chunks_only else ""))),
        packages=runtime_requirement(engine),
        flags=" ".join(f"--{name.replace('_', '-')}" for name in needed),
        arguments="".join(f", {name}=True" for name in needed),
    )


def runtime_requirement(engine: EngineEntry) -> str:
    """Returns the requirement of pip that installs an engine's runtime; empty if unknown."""
    toolchain = engine.toolchain
    if isinstance(toolchain.kind, Unknown):
        return ""
    known = RUNTIME_FACTS[toolchain.kind]
    fitting = [name for name, cuda in known.packages if cuda in (None, toolchain.cuda)]
    relation = ">=" if known.reads_older else "=="
    return shlex.quote(f"{fitting[0]}{relation}{toolchain.version}") if fitting else ""


def install(place: Place, chosen: Choice, *more: str) -> Command:
    """Returns the command that installs the client, its runtime and what the store needs.

    Args:
        place: Where the site's readers find the repository and the client's wheel.
        chosen: The engine.
        more: Extras of the client besides those of the runtime and the store.
    """
    fixed = [name for name in (extra_of(place.store), *more) if name]
    runtime = slot("extra", chosen.extra) if chosen.extra else ""
    extras = ",".join(filter(None, (runtime, *fixed)))
    name = f"caft-zoo[{extras}]" if extras else "caft-zoo"
    if place.wheel is None:
        source, note = f"'{name}'", _NO_WHEEL
    else:
        source, note = f"'{name} @ {slot('site', SITE)}/{place.wheel}'", None
    packages = slot("packages", chosen.packages) if chosen.packages else ""
    return Command(
        title="Install the client and its runtime",
        text=lines("pip install", source, packages).replace(f"install{_BREAK}", "install ", 1),
        note=note,
    )


_NO_WHEEL = (
    "This site holds no wheel of the client, so this asks a package index for it; make catalog "
    "builds one and adds it."
)


def options(place: Place, chosen: Choice) -> list[str]:
    """Returns the options of ``zoo`` that name an engine, its repository and its root."""
    target = f"--target {slot('target', shlex.quote(chosen.target))}"
    flags = f" {chosen.flags}" if chosen.flags else ""
    return [f"{target}{slot('flags', flags)}", *repository_options(place)]


def repository_options(place: Place) -> list[str]:
    """Returns the options of ``zoo`` that name a repository and its root."""
    store = f"--store {_store(place, shlex.quote)}"
    return [store, f"--trust {place.root}"] if place.root else [store]


def _store(place: Place, quote: Callable[[str], str]) -> str:
    """Returns the repository's address as a command or program writes it."""
    own = quote(place.store)
    return served(own, quote(f"{SITE}/{BESIDE}")) if place.beside else own


def run(model: str, place: Place, chosen: Choice) -> Command:
    """Returns the command that computes a photo's features."""
    return Command(
        title="Compute a photo’s features",
        text=lines(f"zoo run {model} photo.jpg", *options(place, chosen)),
    )


def cache(model: str, place: Place, chosen: Choice) -> Command:
    """Returns the command that caches the features of a folder."""
    return Command(
        title="Cache the features of a folder of photos",
        text=lines(f"zoo features photos --model {model} -o cache", *options(place, chosen)),
    )


def python(model: ModelIndex, place: Place, chosen: Choice) -> Command:
    """Returns the Python program that computes a photo's features."""
    target = slot("literal", json.dumps(chosen.target))
    arguments = [
        f'"{model.model}"',
        f"target={target}{slot('arguments', chosen.arguments)}",
        f"store={_store(place, json.dumps)}",
        *([f'trust="{place.root}"'] if place.root else []),
    ]
    listed = "".join(f"    {argument},\n" for argument in arguments)
    return Command(
        title="Use it from Python",
        language="python",
        text=f"import zoo\n\nextractor = zoo.load(\n{listed})\n"
        f'features = extractor(["photo.jpg"])  # (1, {model.feature_dim}), float32',
    )


def head(place: Place, chosen: Choice) -> Command:
    """Returns the commands that train a head on cached features and use it."""
    predict = f"zoo predict photo.jpg --head head.safetensors {chosen.flags}".rstrip()
    return Command(
        title="Train a head on them, and use it",
        text="zoo train-head cache -o head.safetensors\n"
        + lines(predict, *repository_options(place)),
        note="photos has one subfolder per class. Training takes milliseconds per epoch, because "
        "the backbone does not run again.",
    )


def commands(model: ModelIndex, engine: EngineEntry, place: Place) -> list[Command]:
    """Returns the commands that download and use an engine; none for a withdrawn engine."""
    if engine.status == Status.WITHDRAWN or not engine.targets:
        return []
    chosen = choice(engine, engine.targets[0])
    name = shlex.quote(file_name(model.model, engine))
    others = ", ".join(engine.targets[1:])
    also = f"The same engine serves {others}: --target accepts any of these. " if others else ""
    return [
        install(place, chosen),
        Command(
            title="Download it, checking the signature",
            text=lines(f"zoo pull {model.model} -o {name}", *options(place, chosen)),
            note=f"{also}{_trust_note(place)}",
        ),
        run(model.model, place, chosen),
        python(model, place, chosen),
        *_without_client(engine, place, name),
        *_native(model, engine, name),
    ]


def _without_client(engine: EngineEntry, place: Place, name: str) -> list[Command]:
    """Returns how to download an engine without this package; nothing if it is not stored whole."""
    if engine.chunks_only:
        return []
    digest = engine.engine.sha256
    return [
        Command(
            title="Download it without the client",
            text=f'{_fetch(place, digest, name)}\necho "{digest}  {name}" | sha256sum -c',
            note="This only compares the file with the hash on this page. The client also checks "
            "the signature.",
        )
    ]


def _fetch(place: Place, digest: str, name: str) -> str:
    own = place.fetch(digest, name)
    return served(own, place.fetch_beside(digest, name)) if place.beside else own


def _trust_note(place: Place) -> str:
    checks = (
        "The client checks the index’s signature and the file’s hash and length before it loads "
        "anything."
    )
    if not place.root:
        return checks
    return (
        f"{checks} --trust names the root that signs this repository, by its SHA-256; without it, "
        "the client shows the SHA-256 on first use and asks. It is as trustworthy as this page: "
        "maintainers can confirm it."
    )


def file_name(model: str, engine: EngineEntry) -> str:
    """Returns the file name of a downloaded engine."""
    kind = engine.toolchain.kind
    suffix = RUNTIME_FACTS[kind].suffix if not isinstance(kind, Unknown) else ".engine"
    label = engine.targets[0] if engine.targets else engine.record[:16]
    return f"{model}-{label}{suffix}"


def _native(model: ModelIndex, engine: EngineEntry, name: str) -> Iterable[Command]:
    """Returns how to load the engine without this package; nothing for an unknown runtime."""
    kind = engine.toolchain.kind
    if isinstance(kind, Unknown):
        return []
    match kind:
        case Runtime.ORT:
            return [_in_onnxruntime(model, name)]
        case Runtime.RTX:
            return [_in_tensorrt(engine, name, "tensorrt_rtx")]
        case Runtime.TRT:
            return [_in_tensorrt(engine, name, "trtexec")]
        case _:
            assert_never(kind)


def _in_onnxruntime(model: ModelIndex, name: str) -> Command:
    return Command(
        title="Use it without the client",
        language="python",
        text="import onnxruntime\n"
        f"{preprocess_snippet(model)}\n\n"
        f"session = onnxruntime.InferenceSession({json.dumps(name)})\n"
        'features, = session.run(["features"], {"images": batch})  '
        f"# (1, {model.feature_dim}), float32",
    )


def _in_tensorrt(engine: EngineEntry, name: str, tool: str) -> Command:
    height, width = sides(engine.preprocess.input_size)
    batch = engine.batch.opt
    return Command(
        title="C++",
        text=f"{tool} --loadEngine={name} --shapes=images:{batch}x3x{height}x{width}",
        note=f"{tool} ships with {facts.runtime_words(engine)} and benchmarks the engine. In your "
        "own program, pass the file's bytes to IRuntime::deserializeCudaEngine; the input tensor "
        "is called images, the output tensor features.",
    )
