"""The single table of options, for argparse, the Makefile's variables and help, and README."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builders.weights.mode import WeightsMode
from zoo.schema.precisions import Precision, is_lowered
from zoo.schema.targets import gpu_lines, known_archs
from zoo.util.errors import UsageError

RUN = ("zoo", "plan", "nightly")
LISTS = ("verify", "catalog", "serve")
COMMANDS = (*RUN, "lock", "verify", "catalog")
"""Commands of ``zoo-farm`` whose options come from the table."""

_VERIFY = (*RUN, "verify", "prove", "reinstate")
"""What verifies engines, in a process of its own."""

TARGETS = (*RUN, "lock", *LISTS, "prove", "publish", "demo", "image", "bench")
"""Targets of make that accept variables other than PYTHON."""

LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
"""A link in Markdown, of which ``make help`` shows the text."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option.

    Attributes:
        variable: Name of the variable of make; the option of ``zoo-farm`` has the same name.
        values: Description of its values, for README and help; Markdown.
        default: Description of its default, for README and help.
        takes: Targets of make that accept it; those in :data:`COMMANDS` have the option too.
        switch: Whether it is a switch, without a value.
    """

    variable: str
    values: str
    default: str = ""
    takes: tuple[str, ...] = RUN
    switch: bool = False

    @property
    def flag(self) -> str:
        """The option of ``zoo-farm``."""
        return "--" + self.variable.lower().replace("_", "-")


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _lowered() -> str:
    """Returns the precisions whose export needs photos, as text."""
    *first, last = (precision for precision in Precision if is_lowered(precision))
    return f"{', '.join(first)} and {last}" if first else last


_STORE_TAKES = (*RUN, *LISTS, "prove", "publish", "demo", "reinstate")
_SITE_TAKES = (*RUN, *LISTS, "prove")

OPTIONS: tuple[Option, ...] = (
    Option(
        variable="GPU",
        values=f"{_names(known_archs())}, or a product such as `rtx3080`; separate several with "
        "commas",
        default="this machine's GPU, or `cpu`",
        takes=(*RUN, "demo"),
    ),
    Option(
        variable="TRT",
        values=f"{_names(line.asked for line in gpu_lines())}; `make plan` accepts several",
        default="the installed TensorRT, or the version that supports the GPU",
        takes=(*RUN, "image"),
    ),
    Option(
        variable="MODELS",
        values="ids, globs, families; separate several with commas",
        default="all",
        takes=(*RUN, "lock", "verify", "prove"),
    ),
    Option(
        variable="PRECISION",
        values=_names(Precision),
        default="all that the manifest lists and the target supports",
        takes=(*RUN, "demo"),
    ),
    Option(
        variable="CALIBRATION",
        values=f"a folder of at least 32 photos, for {_lowered()}",
        default="photos from the farm's packages",
    ),
    Option(
        variable="LABELLED",
        values="a folder of photos with one subfolder per class: "
        "adds [a linear probe](docs/explanation/precision.md#floors) to the verdict",
        default="none",
    ),
    Option(variable="WEIGHTS", values=_names(WeightsMode), default="`manifest`"),
    Option(
        variable="LOCKED",
        values="`1`: refuse weights that neither the manifest nor `manifests.lock` states; `make "
        "lock` then checks the lock without a network",
        default="off; always on for `make nightly` and `MATRIX`",
        takes=(*RUN, "lock"),
        switch=True,
    ),
    Option(
        variable="UPGRADE",
        values="ids, globs, families whose locked weights `make lock` replaces with those that "
        "the hub has now; without `MODELS`, it asks about no others",
        default="none",
        takes=("lock",),
    ),
    Option(
        variable="STORE",
        values="a directory, `s3://bucket/prefix`",
        default="`_repository`; `_repository-seeded` for a dry run",
        takes=_STORE_TAKES,
    ),
    Option(
        variable="KEYS",
        values="folder of the keys that sign the store",
        default="beside a local repository, created if missing",
        takes=(*_VERIFY, "publish"),
    ),
    Option(
        variable="SITE",
        values="a directory",
        default="`_site`; `_site-seeded` for a dry run",
        takes=_SITE_TAKES,
    ),
    Option(
        variable="BASE_URL",
        values="public URL of the repository, for the catalog's links and commands",
        default="`repository/` beside the catalog's pages: a link to a local repository",
        takes=_SITE_TAKES,
    ),
    Option(
        variable="BUILDER",
        values="builder options, such as `optimization_level=5`",
        default="the runtime's defaults",
    ),
    Option(
        variable="BUILDER_PYTHON",
        values="the Python interpreter that builds and verifies",
        default="the farm's",
        takes=_VERIFY,
    ),
    Option(
        variable="RETRY",
        values="`1`: rebuild engines that are disabled: they missed tolerance or failed twice",
        default="off",
        switch=True,
    ),
    Option(
        variable="TIMEOUT",
        values="time limit of a job in seconds",
        default="3600",
        takes=_VERIFY,
    ),
    Option(
        variable="MEMORY",
        values="memory limit of a job in GiB",
        default="no limit",
        takes=_VERIFY,
    ),
    Option(
        variable="JOBS",
        values="exports at once; [nothing else runs while an engine is measured]"
        "(docs/explanation/farm.md#several-exports-at-once)",
        default="as many as cores and available memory allow, at most 8; `1` with another executor",
    ),
    Option(
        variable="EXECUTOR",
        values="`docker`: jobs run in [containers](docs/how-to/containers.md#jobs-in-containers); "
        "`dask`: on many machines",
        default="`local`",
    ),
    Option(
        variable="SCHEDULER",
        values="`tls://host:8786`: [many machines](docs/explanation/farm.md#many-machines)",
        default="this machine",
    ),
    Option(
        variable="CERTS", values="folder of the cluster's certificates", default="`$ZOO_FARM_CERTS`"
    ),
    Option(
        variable="JSON",
        values="`1`: print the whole plan as JSON",
        default="off",
        takes=("plan",),
        switch=True,
    ),
    Option(
        variable="MATRIX",
        values="`1`: print the work as a GitHub matrix",
        default="off",
        takes=("plan",),
        switch=True,
    ),
    Option(
        variable="NIGHT",
        values="name shared by the runs of one night",
        default="a new name",
        takes=("nightly",),
    ),
    Option(
        variable="REPORT",
        values="JSON file for the night's results",
        default="`_nightly/run.json`",
        takes=("nightly",),
    ),
    Option(
        variable="ISSUE",
        values="file for the text of an issue: title, blank line, body",
        default="`_nightly/issue.md` for `make nightly`",
        takes=("nightly", "publish"),
    ),
)  # fmt: skip

OF_MAKE: tuple[Option, ...] = (
    Option(
        variable="MANIFESTS", values="a directory", default="`manifests`",
        takes=(*RUN, "lock", *LISTS, "prove", "demo"),
    ),
    Option(variable="PORT", values="port of `make serve`", default="8000", takes=("serve",)),
    Option(
        variable="DATA",
        values="photos for `make demo`: a folder with one subfolder per class",
        default="photos from packages", takes=("demo",),
    ),
    Option(
        variable="TRUST", values="the repository's trusted root, for `make verify`",
        default="the root trusted earlier", takes=("verify", "prove"),
    ),
    Option(
        variable="REFRESH",
        values="`1`: `make publish` re-signs the timestamp even if nothing changed", default="off",
        takes=("publish",), switch=True,
    ),
    Option(
        variable="ALLOW_UNLOCKED",
        values="`1`: allow `make image` on a base image without a locked digest", default="off",
        takes=("image",), switch=True,
    ),
    Option(
        variable="BENCH",
        values="`full`, `quick`, or sections that `make bench` measures again, such as `pull,plan`",
        default="`full`", takes=("bench",),
    ),
)  # fmt: skip
"""Variables of make without an option in :data:`COMMANDS`."""


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Adds the options of a command of ``zoo-farm``."""
    for option in OPTIONS:
        if command not in option.takes:
            continue
        text = option.values.replace("`", "") + (
            f" (default: {option.default.replace('`', '')})" if option.default else ""
        )
        if option.switch:
            parser.add_argument(option.flag, action="store_true", help=text)
        else:
            parser.add_argument(option.flag, default="", help=text)


def makefile() -> Iterator[str]:
    """Yields the lines of ``options.mk``."""
    yield "# Written by `zoo-farm options --makefile`; the table is builders/planning/options.py."
    everything = [*OPTIONS, *OF_MAKE]
    yield f"KNOWN := PYTHON {' '.join(option.variable for option in everything)}"
    for target in TARGETS:
        names = [option.variable for option in everything if target in option.takes]
        yield f"TAKES_{target} := {' '.join(names)}"
    for command in COMMANDS:
        args = [_argument(option) for option in OPTIONS if command in option.takes]
        yield f"ARGS_{command} = {' '.join(args)}"
    yield "define OPTIONS_HELP"
    for option in everything:
        default = f" (default: {option.default})" if option.default else ""
        text = LINK.sub(r"\1", option.values + default).replace("`", "")
        yield f"  {option.variable:<15} {text.replace('$', '$$')}"  # make halves it
    yield "endef"


def _argument(option: Option) -> str:
    if option.switch:
        return f"$(if $(call yes,{option.variable}),{option.flag})"
    return f'{option.flag} "$({option.variable})"'


def table() -> Iterator[str]:
    """Yields the lines of README's table."""
    yield "| variable | values | default |"
    yield "| --- | --- | --- |"
    for option in (*OPTIONS, *OF_MAKE):
        yield f"| `{option.variable}` | {option.values} | {option.default} |"


def pairs(text: str) -> dict[str, str]:
    """Parses ``NAME=VALUE`` words."""
    pairs = {}
    for word in words(text):
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(
                f"'{word}' is not NAME=VALUE", hint='for example BUILDER="optimization_level=5"'
            )
        pairs[name] = value
    return pairs


def words(text: str) -> list[str]:
    """Splits a text at commas and spaces."""
    return text.replace(",", " ").split()
