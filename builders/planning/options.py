"""The one table of options: for argparse, the Makefile's variables, its help and README."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from zoo.util.errors import UsageError

RUN = ("zoo", "plan", "nightly")
LISTS = ("verify", "catalog", "serve")
COMMANDS = (*RUN, "verify", "catalog")
"""Commands of ``zoo-farm`` whose options come from the table."""

TARGETS = (*RUN, *LISTS, "prove", "publish", "demo", "image")
"""Targets of make that take variables beside PYTHON."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        variable: Of make; the option of ``zoo-farm`` is named alike.
        values: What it takes, for README and help; Markdown.
        default: Said in README.
        takes: Targets of make that take it; those of :data:`COMMANDS` have the option.
        switch: Whether it is on or off.
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


_STORE_TAKES = (*RUN, *LISTS, "prove", "publish", "demo")
_SITE_TAKES = (*RUN, *LISTS, "prove")

OPTIONS: tuple[Option, ...] = (
    Option(
        variable="GPU",
        values="`cpu`, `sm75`, `sm80`, `sm86`, `sm89`, `sm90`, `sm100`, `sm120`; several with "
        "commas",
        default="this machine's GPU, else `cpu`",
        takes=(*RUN, "demo"),
    ),
    Option(
        variable="TRT",
        values="`rtx1.7`, `11.4`, `10.16`, `10.13`, `8.6`; `make plan` takes several",
        default="the TensorRT installed beside the GPU, else what serves it",
        takes=(*RUN, "image"),
    ),
    Option(
        variable="MODELS",
        values="ids, globs, families; several with commas",
        default="all",
        takes=(*RUN, "verify", "prove"),
    ),
    Option(
        variable="PRECISION",
        values="`fp32`, `bf16`, `fp16`, `int8`",
        default="all of the manifest that the target takes",
        takes=(*RUN, "demo"),
    ),
    Option(
        variable="CALIBRATION",
        values="a folder of 32 photos or more, for fp16 and int8",
        default="photos of the farm's packages",
    ),
    Option(
        variable="LABELLED",
        values="a folder with a folder for each class: "
        "[a linear probe](docs/explanation/precision.md#floors) joins the verdict",
        default="none",
    ),
    Option(variable="WEIGHTS", values="`manifest`, `seeded`", default="`manifest`"),
    Option(
        variable="STORE",
        values="a directory, `s3://bucket/prefix`",
        default="`_repository`; `_repository-seeded` for a dry run",
        takes=_STORE_TAKES,
    ),
    Option(
        variable="KEYS",
        values="folder of the keys that sign it",
        default="beside a local repository, made when missing",
        takes=(*RUN, "verify", "prove", "publish"),
    ),
    Option(
        variable="SITE",
        values="a directory",
        default="`_site`; `_site-seeded` for a dry run",
        takes=_SITE_TAKES,
    ),
    Option(
        variable="BASE_URL",
        values="where readers find the repository: the catalog links to its files",
        default="not known",
        takes=_SITE_TAKES,
    ),
    Option(
        variable="BUILDER",
        values="builder options, `optimization_level=5`",
        default="the runtime's own",
    ),
    Option(
        variable="BUILDER_PYTHON",
        values="the Python that builds and verifies",
        default="the farm's",
        takes=(*RUN, "verify", "prove"),
    ),
    Option(
        variable="RETRY",
        values="`1`: try again what is disabled, having missed its tolerance or failed twice",
        default="off",
        switch=True,
    ),
    Option(
        variable="TIMEOUT",
        values="seconds that a job may take",
        default="3600",
        takes=(*RUN, "verify", "prove"),
    ),
    Option(
        variable="MEMORY",
        values="GiB of memory that a job may have",
        default="no limit",
        takes=(*RUN, "verify", "prove"),
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
    ),
    Option(variable="CERTS", values="folder of the cluster's certificates"),
    Option(
        variable="JSON",
        values="`1`: the whole plan, for machines",
        default="off",
        takes=("plan",),
        switch=True,
    ),
    Option(
        variable="MATRIX",
        values="`1`: the work, as a GitHub matrix",
        default="off",
        takes=("plan",),
        switch=True,
    ),
    Option(
        variable="NIGHT",
        values="name that the runs of a night share",
        default="one of its own",
        takes=("nightly",),
    ),
    Option(
        variable="REPORT",
        values="file for what the night did, JSON",
        default="`_nightly/run.json`",
        takes=("nightly",),
    ),
    Option(
        variable="ISSUE",
        values="file for an issue: title, blank line, body",
        default="`_nightly/issue.md` of a night",
        takes=("nightly", "publish"),
    ),
)  # fmt: skip

OF_MAKE: tuple[Option, ...] = (
    Option(
        variable="MANIFESTS", values="a directory", default="`manifests`",
        takes=(*RUN, *LISTS, "prove", "demo"),
    ),
    Option(variable="PORT", values="of `make serve`", default="8000", takes=("serve",)),
    Option(
        variable="DATA",
        values="of `make demo`: a folder with a folder of photos for each class",
        default="photos of packages", takes=("demo",),
    ),
    Option(
        variable="TRUST", values="of `make verify`: the repository's root",
        default="trusted already", takes=("verify", "prove"),
    ),
    Option(
        variable="REFRESH", values="`1`: `make publish` signs every file anew", default="off",
        takes=("publish",), switch=True,
    ),
    Option(
        variable="ALLOW_UNLOCKED",
        values="`1`: `make image` on a base whose digest is not locked yet", default="off",
        takes=("image",), switch=True,
    ),
)  # fmt: skip
"""Variables of make that are no option of :data:`COMMANDS`."""


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
        text = option.values.replace("`", "")
        default = f" (default: {option.default.replace('`', '')})" if option.default else ""
        yield f"  {option.variable:<15} {text}{default}"
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
    """Reads ``NAME=VALUE`` words."""
    pairs = {}
    for word in words(text):
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(
                f"'{word}' is no builder option", hint='BUILDER="optimization_level=5" is one'
            )
        pairs[name] = value
    return pairs


def words(text: str) -> list[str]:
    """Splits at commas and blanks."""
    return text.replace(",", " ").split()
