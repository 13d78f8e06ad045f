"""Commands of ``zoo-farm`` on manifests: ``unlocked``, ``schema``, ``facts``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from builders.cli.images import unlocked_bases
from builders.cli.options import pick_manifests
from builders.weights.locks import read_locks, with_lock
from builders.weights.standing import digest_words
from zoo.cli.command import add_arguments
from zoo.schema.manifest import HubWeights, load_manifests, manifest_schema, read_manifests
from zoo.util.errors import ManifestError
from zoo.util.names import counted


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser's subcommands."""
    add_arguments(commands, "unlocked", unlocked)
    add_arguments(commands, "schema", schema)
    add_arguments(commands, "facts", facts).add_argument(
        "models", nargs="*", help="ids, globs, families (default: all)"
    )


def unlocked(options: argparse.Namespace) -> int:
    """Lists models whose weights, and images whose bases, are not locked yet."""
    folder = Path(options.manifests)
    locks = read_locks(folder)
    manifests = [with_lock(manifest, locks) for manifest in load_manifests(folder).values()]
    of_hub = {one.id: one.weights for one in manifests if isinstance(one.weights, HubWeights)}
    names = [name for name, weights in of_hub.items() if not weights.pinned]
    print("\n".join(names) if names else "all weights are locked")
    if names:
        print(
            f"{len(names)} unlocked; make zoo locks them when it needs them, make lock now",
            file=sys.stderr,
        )
    for name, weights in of_hub.items():
        if weights.pinned and not weights.locked:
            print(f"{name}: the hash that {digest_words(weights)}, no revision", file=sys.stderr)
    if bases := unlocked_bases():
        print("\n".join(bases))
        hint = "with network and docker: zoo-farm images --lock"
        print(f"{counted(len(bases), 'image base')} unlocked; {hint}", file=sys.stderr)
    return 0


def facts(options: argparse.Namespace) -> int:
    """Compares manifests with the facts of the installed timm.

    Raises:
        ManifestError: Some differ without a reason, or can't be read; names every field of each.
    """
    from builders.export import timm_facts

    chosen, broken = pick_manifests(options.models, *read_manifests(Path(options.manifests)))
    errors = list(broken.values())
    for manifest in chosen.values():
        try:
            timm_facts.check_manifest(manifest)
        except ManifestError as error:
            errors.append(error)
            continue
        reasons = [f"{fact} differs: {text}" for fact, text in manifest.deviations.items()]
        if not manifest.tag:
            reasons.append("it names no tag: timm states nothing to compare it with")
        print(f"{manifest.id}: {'; '.join(reasons) or 'as timm states'}")
    timm_facts.remember()
    if errors:
        hints = list(dict.fromkeys(error.hint for error in errors if error.hint))
        raise ManifestError(
            "\n".join(error.message for error in errors), hint="\n  ".join(hints) or None
        )
    return 0


def schema(options: argparse.Namespace) -> int:
    """Writes manifests/schema.json, the JSON Schema of a manifest."""
    path = Path(options.manifests) / "schema.json"
    path.write_text(json.dumps(manifest_schema(), indent=1) + "\n", encoding="utf-8")
    print(path)
    return 0
