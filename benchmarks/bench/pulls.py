"""A pull beside ``aws s3 cp`` and huggingface_hub, from one server on loopback."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import version
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.s3_server import S3Server

from benchmarks.bench.ground import MODEL, Engine, Ground
from benchmarks.bench.peers import own_command
from benchmarks.bench.redirecting_hub import RedirectingHub
from benchmarks.bench.results import Ratio, Section, Taken
from benchmarks.bench.turns import Way, command, in_turns
from zoo.stores import LocalStore, open_store

ABOUT = (
    "One engine into an empty cache, whole processes, from SeaweedFS on loopback. Ours is "
    "`zoo pull` over HTTP: it checks the signed index and the SHA-256 of the engine, and stores "
    "its licence beside it. `aws s3 cp` checks a CRC. Hugging Face's is `hf_hub_download`, which a "
    "local hub sends to the same server for the bytes; it checks the size. Client and server share "
    "the cores, so that this compares processor cost, not network throughput."
)
_HUB = """
import sys
from huggingface_hub import hf_hub_download
hf_hub_download("bench/engine", "engine.safetensors", cache_dir=sys.argv[1])
"""
_MODELS, _QUICK = (MODEL, "resnet50"), (MODEL,)


def measure(ground: Ground) -> Section:
    """Measures the downloads."""
    models, skipped = (_QUICK if ground.quick else _MODELS), []
    engines = [ground.engine(model) for model in models]
    aws = own_command("aws")
    if aws is None:
        skipped.append("awscli: not installed (make lint installs it)")
    ratios = []
    with S3Server(ground.folder("pulls") / "server") as server:
        os.environ.update(server.environment)
        url = server.new_url()
        destination = open_store(url)
        for entry in LocalStore(ground.store).list(""):
            destination.put(entry.key, (ground.store / entry.key).read_bytes())
        for engine in engines:
            ratios += _of_engine(ground, engine, server.http_url(url), url, aws)
    return Section(
        name="pull", title="Pulling an engine", about=ABOUT, ratios=tuple(ratios),
        skipped=tuple(skipped),
    )  # fmt: skip


def _of_engine(ground: Ground, engine: Engine, http: str, s3: str, aws: Path | None) -> list[Ratio]:
    key = f"blobs/sha256/{engine.record.engine.sha256[:2]}/{engine.record.engine.sha256}"
    folder, numbers = ground.folder(f"pulls/{engine.model}"), count()
    zoo = own_command("zoo")
    assert zoo is not None

    def ours() -> Taken:
        home = folder / f"ours{next(numbers)}"
        arguments: list[str | Path] = [
            zoo,
            "pull",
            engine.model,
            "--store",
            http,
            "--trust",
            ground.root_of(ground.store),
            "--allow-seeded",
        ]
        taken = command(arguments, environment={**os.environ, "ZOO_HOME": str(home)})
        shutil.rmtree(home)
        return taken

    def with_aws() -> Taken:
        assert aws is not None
        copy = folder / "copy"
        taken = command([aws, "s3", "cp", "--quiet", f"{s3}/{key}", copy])
        assert copy.stat().st_size == engine.record.engine.size
        copy.unlink()
        return taken

    with RedirectingHub(f"{http}/{key}", engine.file) as hub:

        def with_hub() -> Taken:
            home = folder / f"hub{next(numbers)}"
            environment = {**os.environ, **hub.environment(home)}
            taken = command([sys.executable, "-c", _HUB, home], environment=environment)
            shutil.rmtree(home)
            return taken

        ways: dict[str, Way] = {"ours": ours, "huggingface_hub": with_hub}
        if aws is not None:
            ways["aws"] = with_aws
        runs = in_turns(ways, ground.rounds(7))
    names = {
        "aws": f"aws s3 cp, awscli {version('awscli')}",
        "huggingface_hub": f"huggingface_hub {version('huggingface_hub')}",
    }
    what = f"{engine.model}, {engine.record.engine.size / 2**20:.0f} MiB"
    start = "" if engine.model == MODEL else f"{engine.model}."
    return [
        Ratio.of(f"{start}{way}", what, names[way], runs["ours"], runs[way])
        for way in names
        if way in runs
    ]
