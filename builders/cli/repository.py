"""Commands of ``zoo-farm`` that look after a repository: publish, withdraw, gc, explain."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from builders.cli.keys import keys_folder
from builders.cli.nightly import tell_worse
from builders.cli.options import STORE_HELP, chosen_manifests, published, reader
from builders.publish.signer import KEYS_HELP, key_ring, open_desk, sign_with
from zoo.cli.main import add_arguments
from zoo.repository.repository import Repository
from zoo.schema.index import EngineEntry
from zoo.schema.records import Attestation, AttestationKind, Status
from zoo.stores import open_store
from zoo.util.digest import sha256_json
from zoo.util.errors import UsageError
from zoo.util.names import perhaps

_DIGITS = 8
"""Of a digest, that name an engine."""


def add_commands(commands: Any) -> None:
    """Adds them to a parser's subcommands."""
    told = add_arguments(commands, "publish", publish)
    told.add_argument("--issue", default="", help="file for an issue on engines that became worse")
    told.add_argument("--refresh", action="store_true", help="sign the timestamp anew in any case")
    out = add_arguments(commands, "withdraw", withdraw)
    out.add_argument("model", help="its id")
    out.add_argument(
        "target", help="label of a target that the engine serves, or the beginning of its SHA-256"
    )
    out.add_argument("--reason", required=True, help="why; the page shows it")
    waste = add_arguments(commands, "gc", gc)
    waste.add_argument("--delete", action="store_true", help="condemn and delete, not only say so")
    waste.add_argument("--grace", type=float, default=7, metavar="DAYS", help="(default 7)")
    why = add_arguments(commands, "explain", explain)
    why.add_argument("model", help="its id")
    why.add_argument("target", help="label of a target")
    why.add_argument("--calibration", default="", help="folder of photos, as for zoo")
    why.add_argument("--builder", default="", help="builder options, as for zoo")
    for one in (told, out):
        one.add_argument("--keys", default="", help=KEYS_HELP)
    for one in (told, out, waste, why):
        one.add_argument("--store", default="", help=STORE_HELP)


def publish(options: argparse.Namespace) -> int:
    """Signs what builders propose: from then on people see it."""
    repository = Repository(open_store(options.store or "_repository"))
    ring = key_ring(keys_folder(options))
    before = list(repository.model_indexes()) if options.issue else []
    done = sign_with(repository, ring, refresh=options.refresh)
    for model in dict.fromkeys(done.models):
        print(f"{model}: signed")
    for key, reason in done.refused.items():
        print(f"REFUSED {key}: {reason}", file=sys.stderr)
    print(f"{len(done.models)} signed, {len(done.refused)} refused")
    for role, until in done.ending.items():
        print(
            f"WARNING: the signature of {role} ends on {until:%Y-%m-%d}, and readers refuse all "
            f"then: zoo-farm keys renew {role}, where its key is",
            file=sys.stderr,
        )
    if options.issue:
        worse = tell_worse(repository, before, Path(options.issue))
        print(f"{worse} measurements are worse than those of the engine before")
    return 1 if done.refused else 0


def withdraw(options: argparse.Namespace) -> int:
    """Withdraws an engine: its record stays, with the reason, and nobody is given it."""
    if not options.reason.strip():
        raise UsageError("no reason is given", hint="--reason says why; the page shows it")
    repository = published(options)
    index = repository.model_index(options.model)
    entry = _listed(options.model, options.target, index.engines if index else ())
    if entry.status == Status.WITHDRAWN:
        print(f"{options.model} {options.target}: withdrawn before: {entry.reason}")
        return 0
    engine = entry.engine.sha256
    body = {"reason": options.reason, "by": "a maintainer"}
    repository.attest(
        Attestation(
            kind=AttestationKind.WITHDRAWN,
            engine=engine,
            time=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            key=sha256_json({"engine": engine, **body}),
            machine={},
            body=body,
        )
    )
    desk = open_desk(options.store or "_repository", options.keys, print)
    desk.send_again(options.model)
    print(f"{options.model} {options.target}: withdrawn" + desk.still_unsigned)
    return 0


def _listed(model: str, asked: str, engines: Sequence[EngineEntry]) -> EngineEntry:
    """Returns the current engine of a target, or any, superseded ones too, by its digest."""
    labels = {label: one for one in engines if not one.superseded for label in one.targets}
    if asked in labels:
        return labels[asked]
    digests = {one.engine.sha256: one for one in engines}
    found = [one for digest, one in digests.items() if digest.startswith(asked.lower())]
    if len(found) == 1 and len(asked) >= _DIGITS:
        return found[0]
    raise UsageError(
        f"{model}: nothing is published for {asked}.{perhaps(asked, list(labels))}",
        hint=f"there is {', '.join(labels) or 'nothing'}; one that was superseded is named by "
        f"{_DIGITS} digits of its SHA-256 or more, as zoo show tells",
    )


def gc(options: argparse.Namespace) -> int:
    """Finds what nothing in a repository needs any more; --delete removes it after a grace time."""
    from builders.publish.garbage import collect

    if not 0 <= options.grace < 100_000:
        raise UsageError(f"{options.grace} days are no grace time", hint="(default 7)")
    grace = timedelta(days=options.grace)
    found = collect(reader(options), grace, datetime.now(timezone.utc), delete=options.delete)
    for key, size in found.deleted.items():
        print(f"{key}  {size:,} bytes")
    for key in found.condemned.keys() - found.deleted.keys() if not options.delete else ():
        print(f"{key}  would be condemned")
    mib = sum(found.deleted.values()) / 2**20
    said = "deleted" if options.delete else "would be deleted"
    waiting = len(found.condemned) - len(found.deleted)
    counts = [f"{len(found.deleted)} {said}, {mib:.1f} MiB", f"{waiting} condemned"]
    counts += [f"{len(found.abandoned)} left by killed writers", f"{found.kept} needed"]
    print("; ".join(counts))
    if not options.delete:
        print("a dry run: nothing was changed; --delete condemns, and deletes after the grace time")
    return 0


def explain(options: argparse.Namespace) -> int:
    """Says which input of an engine differs from what is published."""
    from builders.planning.explain import differences

    options.models = options.model
    manifest = next(iter(chosen_manifests(options)[0].values()))
    repository = published(options)
    print("\n".join(differences(repository, manifest, options.target, options)))
    return 0
