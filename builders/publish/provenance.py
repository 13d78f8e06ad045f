"""Writes an engine's provenance as an in-toto statement with SLSA's predicate.

https://slsa.dev/spec/v1.0/provenance. It lists every input of the build key, and what the
key leaves out: the checkout, the container, the machine. Unknown values are left out.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

from pydantic import JsonValue
from typing_extensions import NotRequired

from builders.jobs.messages import BuildJob, BuildOutput
from builders.paths import ROOT
from zoo.schema.corrections import ManifestSource
from zoo.schema.keys import ExportInputs
from zoo.schema.records import Blob, ExportRecord
from zoo.util.digest import sha256_file


class Digest(TypedDict):
    """A SHA-256 digest, in hexadecimal."""

    sha256: str


class Subject(TypedDict):
    """An artifact that the statement is about."""

    name: str
    digest: Digest


class Resource(TypedDict):
    """SLSA's ResourceDescriptor: something that went into a build or came out of it."""

    name: str
    digest: NotRequired[Digest]
    uri: NotRequired[str]
    annotations: NotRequired[JsonValue]


class BuilderVersion(TypedDict):
    """The checkout that built: its commit, and ``true`` or ``false`` for local changes."""

    git: str
    changed: str


class Builder(TypedDict):
    """The builder; without git or a container, those fields are left out."""

    id: str
    version: NotRequired[BuilderVersion]
    builderDependencies: NotRequired[list[Resource]]


class InternalParameters(TypedDict):
    """The keys of an engine's build and of its export."""

    buildKey: str
    exportKey: str


class BuildDefinition(TypedDict):
    """The inputs of a build; the external parameters are its :class:`BuildInputs` as JSON."""

    buildType: str
    externalParameters: JsonValue
    internalParameters: InternalParameters
    resolvedDependencies: list[Resource]


class Metadata(TypedDict):
    """When a build finished, ISO 8601 in UTC."""

    finishedOn: str


class RunDetails(TypedDict):
    """The circumstances of a build."""

    builder: Builder
    metadata: Metadata
    byproducts: list[Resource]


class Provenance(TypedDict):
    """SLSA's predicate."""

    buildDefinition: BuildDefinition
    runDetails: RunDetails


class Statement(TypedDict):
    """An in-toto statement."""

    _type: str
    subject: list[Subject]
    predicateType: str
    predicate: Provenance


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A git checkout.

    Attributes:
        commit: Its commit.
        changed: Whether tracked files differ from the commit.
    """

    commit: str
    changed: bool


@cache
def checkout() -> Checkout | None:
    """Returns the commit of this checkout and whether files differ from it; None without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return Checkout(commit=commit, changed=bool(changed))


def manifest_source(folder: Path, model: str) -> ManifestSource | None:
    """Returns which manifest a model is built from; None if its file is gone.

    Args:
        folder: Folder of the manifests, in any checkout or none.
        model: The model's id.
    """
    path = folder / f"{model}.toml"
    try:
        digest = sha256_file(path)
    except OSError:
        return None
    try:
        commit = _git("rev-parse", "HEAD", folder=folder)
        changed = _git("status", "--porcelain", "--", path.name, folder=folder)
    except (OSError, subprocess.SubprocessError):
        return ManifestSource(sha256=digest)
    return ManifestSource(sha256=digest, commit=commit, changed=bool(changed))


def this_commit() -> str | None:
    """Returns the commit of this checkout, None without git."""
    known = checkout()
    return known.commit if known else None


def _git(*arguments: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    return done.stdout.strip()


def statement(
    job: BuildJob, export: ExportRecord, output: BuildOutput, engine: Blob, created: str
) -> Statement:
    """Returns the in-toto statement of where an engine comes from.

    Args:
        job: What was built.
        export: What it was built from.
        output: The worker's result.
        engine: The engine.
        created: When, ISO 8601 in UTC.
    """
    inputs = job.inputs
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{inputs.model}.engine", "digest": {"sha256": engine.sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "caft-zoo/build/v1",
                "externalParameters": inputs.model_dump(mode="json"),
                "internalParameters": {"buildKey": inputs.key, "exportKey": export.inputs.key},
                "resolvedDependencies": [
                    {"name": "onnx", "digest": {"sha256": export.onnx.sha256}},
                    {"name": "golden", "digest": {"sha256": export.golden.sha256}},
                    _weights(export.inputs),
                ],
            },
            "runDetails": {
                "builder": _builder(output),
                "metadata": {"finishedOn": created},
                "byproducts": [
                    {"name": "machine", "annotations": output.machine.model_dump(mode="json")}
                ],
            },
        },
    }


def _builder(output: BuildOutput) -> Builder:
    builder: Builder = {"id": "caft-zoo/zoo-farm"}
    if known := checkout():
        builder["version"] = {"git": known.commit, "changed": str(known.changed).lower()}
    if image := output.machine.image:
        builder["builderDependencies"] = [{"name": "container", "uri": image}]
    return builder


def _weights(inputs: ExportInputs) -> Resource:
    return {
        "name": "weights",
        "digest": {"sha256": inputs.weights.digest},
        "annotations": {
            "kind": inputs.weights.kind,
            "source": inputs.weights.source,
            "exporters": dict(inputs.versions),
        },
    }
