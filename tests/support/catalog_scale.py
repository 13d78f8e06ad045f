"""How long the catalog of 2,000 engines takes.

Run ``.venv/bin/python tests/support/catalog_scale.py``.

Every manifest on every target of the table, in a directory. Nothing in it was measured.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from support.paths import ROOT
from support.published_plan import publish_all
from support.wants_everything import everywhere
from zoo.catalog.site import build_site
from zoo.repository.repository import Repository
from zoo.schema.manifest import load_manifests
from zoo.stores import LocalStore


def main() -> None:
    """Makes the site twice and prints seconds and sizes."""
    with tempfile.TemporaryDirectory() as name:
        repository, site = Repository(LocalStore(Path(name) / "repository")), Path(name) / "site"
        publish_all(repository, load_manifests(ROOT / "manifests"), everywhere())
        for what in ("made", "made again, nothing changed"):
            wall, work = time.perf_counter(), time.process_time()
            build_site(repository, site)
            wall, work = time.perf_counter() - wall, time.process_time() - work
            print(f"{what}: {wall:.1f} s, {work:.1f} s of a core")
        engines = sum(1 for _ in site.glob("engines/*/*.html"))
        sizes = {one: (site / one).stat().st_size for one in ("index.html", "report.html")}
        print(f"{engines} engines; bytes: {sizes}")


if __name__ == "__main__":
    main()
