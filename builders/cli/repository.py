"""Commands on a repository: ``publish``, ``withdraw``, ``gc``, ``check``, ``explain``."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from builders.cli.keys import keys_folder
from builders.cli.nightly import report_regressions
from builders.cli.options import STORE_HELP, chosen_manifests, published, reader, store_of
from builders.publish import by_hand, corrections
from builders.publish.chunk_lists import Stated, stated_pieces
from builders.publish.records import withdrawal
from builders.publish.signer import KEYS_HELP, key_ring, open_desk, sign_with
from zoo.cli.command import add_arguments
from zoo.repository.blobs import REPAIR
from zoo.repository.repair import forget, named_blobs
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, EngineEntry, ModelIndex
from zoo.schema.layout import blob_key, pieces_key
from zoo.schema.records import Blob, Status
from zoo.stores import open_store
from zoo.util.errors import RepositoryError, UsageError
from zoo.util.names import counted, perhaps
from zoo.util.terminal import harmless

_MIN_DIGITS = 8
"""Fewest digits of its SHA-256 that name an engine."""


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser's subcommands."""
    of_publish = add_arguments(commands, "publish", publish)
    of_publish.add_argument(
        "--issue",
        default="",
        help="write an issue about engines that became worse to this file (default: none)",
    )
    of_publish.add_argument(
        "--refresh", action="store_true", help="sign the timestamp even if nothing changed"
    )
    of_withdraw = add_arguments(commands, "withdraw", withdraw)
    of_withdraw.add_argument("model", help="the model's id")
    of_withdraw.add_argument(
        "target", help="label of a target of the engine, or first digits of the engine's SHA-256"
    )
    of_withdraw.add_argument("--reason", required=True, help="shown on the model's page")
    of_gc = add_arguments(commands, "gc", gc)
    of_gc.add_argument(
        "--delete", action="store_true", help="mark and delete files; without it, only list them"
    )
    of_gc.add_argument(
        "--grace", type=float, default=7, metavar="DAYS",
        help="days between marking and deleting a file (default: 7)",
    )  # fmt: skip
    of_check = add_arguments(commands, "check", check)
    of_check.add_argument(
        "--repair", action="store_true", help="remove records of damaged or missing blobs"
    )
    of_explain = add_arguments(commands, "explain", explain)
    of_explain.add_argument("model", help="the model's id")
    of_explain.add_argument("target", help="label of a target")
    of_explain.add_argument(
        "--calibration", default="", help="folder of photos, as for zoo (default: as for zoo)"
    )
    of_explain.add_argument(
        "--builder", default="", help="builder options, as for zoo (default: none)"
    )
    for signing in (of_publish, of_withdraw):
        signing.add_argument("--keys", default="", help=KEYS_HELP)
    for parser in (of_publish, of_withdraw, of_gc, of_check, of_explain):
        parser.add_argument("--store", default="", help=STORE_HELP)


def publish(options: argparse.Namespace) -> int:
    """Signs the engines that builders propose, which makes them visible to readers."""
    repository = Repository(open_store(store_of(options)))
    ring = key_ring(keys_folder(options))
    before = list(repository.model_indexes()) if options.issue else []
    signed = sign_with(repository, ring, refresh=options.refresh)
    for model in dict.fromkeys(signed.models):
        print(f"{model}: signed")
    for sentence in signed.changes:
        print(sentence)
    for key, reason in signed.refused.items():
        print(harmless(f"REFUSED {key}: {reason}"), file=sys.stderr)
    print(f"{len(signed.models)} signed, {len(signed.refused)} refused")
    for role, until in signed.ending.items():
        print(
            f"WARNING: the signature of {role} expires on {until:%Y-%m-%d}; readers then reject "
            f"the repository. Where its key is stored, run: zoo-farm keys renew {role}",
            file=sys.stderr,
        )
    if signed.trusts_everybody:
        print(
            "WARNING: this repository registers no builders, so whoever can write to it can call "
            "an engine verified. Where its keys are, run: zoo-farm builders add NAME",
            file=sys.stderr,
        )
    if options.issue:
        worse, lost = report_regressions(repository, before, Path(options.issue))
        print(f"{counted(worse, 'measurement')} worse than those of the previous engine")
        if lost:
            losses = counted(lost, "target")
            print(f"{losses} without a verified engine now: {options.issue}", file=sys.stderr)
            return 1
    return 1 if signed.refused else 0


def withdraw(options: argparse.Namespace) -> int:
    """Withdraws an engine: readers no longer get it; its record stays, with the reason."""
    if not options.reason.strip():
        raise UsageError("the reason is empty", hint="--reason is shown on the model's page")
    repository = published(options)
    index = published_model(repository, options.model)
    entry = engine_entry(options.model, options.target, index.engines)
    if entry.status == Status.WITHDRAWN:
        print(f"{options.model} {options.target}: withdrawn before: {entry.reason}")
        return 0
    desk = open_desk(store_of(options), options.keys, print)  # before anything is stored
    repository.sign = desk.sign
    decision = withdrawal(entry.engine.sha256, options.reason)
    by_hand.check_decision(repository, decision)
    others = by_hand.have_signed(repository, desk, Candidate(card=index.card), [decision])
    print(f"{options.model} {options.target}: withdrawn" + desk.still_unsigned)
    for other in others:
        print(f"{other}: its engine has the same bytes and is withdrawn too")
    return 0


def published_model(repository: Repository, model: str) -> ModelIndex:
    """Returns the index of a model.

    Raises:
        UsageError: Nothing of it is published.
    """
    index = repository.index()
    names = [row.model for row in index.models] if index else []
    found = repository.model_index(model) if model in names else None
    if found is None:
        url = repository.store.url
        raise UsageError(
            f"{url}: nothing is published of a model '{model}'.{perhaps(model, names)}",
            hint=f".venv/bin/zoo list --store {shlex.quote(url)} names the published models",
        )
    return found


def engine_entry(model: str, target: str, engines: Sequence[EngineEntry]) -> EngineEntry:
    """Returns the current engine of a target's label, or any engine by digits of its SHA-256.

    Raises:
        UsageError: No engine or several engines match.
    """
    labels = {label: entry for entry in engines if not entry.superseded for label in entry.targets}
    if target in labels:
        return labels[target]
    digests = {entry.engine.sha256: entry for entry in engines}
    matching = [entry for digest, entry in digests.items() if digest.startswith(target.lower())]
    if len(matching) == 1 and len(target) >= _MIN_DIGITS:
        return matching[0]
    raise UsageError(
        f"{model}: nothing is published for {target}.{perhaps(target, list(labels))}",
        hint=f"targets are {', '.join(labels) or 'none'}; to name a superseded engine, give at "
        f"least {_MIN_DIGITS} digits of its SHA-256, which zoo show prints",
    )


def gc(options: argparse.Namespace) -> int:
    """Lists files that a repository does not need; --delete removes them after a grace period."""
    from builders.publish.garbage import collect

    if not 0 <= options.grace < 100_000:
        raise UsageError(f"--grace {options.grace}: must be at least 0 and below 100,000 days")
    grace = timedelta(days=options.grace)
    garbage = collect(reader(options), grace, datetime.now(timezone.utc), delete=options.delete)
    for key, size in garbage.deleted.items():
        print(f"{key}  {size:,} bytes")
    for key in garbage.condemned.keys() - garbage.deleted.keys() if not options.delete else ():
        print(f"{key}  would be marked")
    for key in garbage.later:
        print(f"{key}  kept with its files: a later version of caft-zoo wrote it")
    mib = sum(garbage.deleted.values()) / 2**20
    verb = "deleted" if options.delete else "would be deleted"
    waiting = len(garbage.condemned) - len(garbage.deleted)
    counts = [f"{len(garbage.deleted)} {verb}, {mib:.1f} MiB", f"{waiting} marked"]
    counts += [f"{len(garbage.abandoned)} left by killed writers", f"{garbage.kept} needed"]
    print("; ".join(counts))
    if not options.delete:
        print(
            "a dry run: nothing was changed; --delete marks files, and deletes them after the "
            "grace period"
        )
    return 0


def check(options: argparse.Namespace) -> int:
    """Hashes every blob of a repository; --repair removes records of damaged ones."""
    repository = Repository(open_store(store_of(options)))
    damages: dict[str, str | None] = {}  # several records may name one blob: hash it once
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        stated, named = stated_pieces(repository), list(named_blobs(repository))
        needed = {blob.sha256 for _, blob in named} & stated.keys()
        of_needed = (stated[sha256] for sha256 in sorted(needed))
        bad += _check_pieces(repository, of_needed, repair=options.repair)
        for key, blob in named:
            if blob.sha256 not in damages:
                pieces = stated[blob.sha256].pieces if blob.sha256 in stated else None
                damages[blob.sha256] = repository.blobs.damage(blob, Path(scratch), pieces)
                (Path(scratch) / blob.sha256).unlink(missing_ok=True)
            if damage := damages[blob.sha256]:
                bad += 1
                print(f"{key}: blob {blob.sha256} is {damage}")
                if options.repair:
                    forget(repository, key, blob)
        bad += _check_documents(repository, Path(scratch), repair=options.repair)
        bad += _check_chunks(repository, stated.values(), Path(scratch), repair=options.repair)
    if bad == 0:
        print(f"{counted(len(damages), 'blob')}, no damage")
        return 0
    if options.repair:
        print("removed; the next make zoo builds them again")
        return 0
    raise RepositoryError(
        f"{repository.store.url}: damaged or missing blobs, named in {counted(bad, 'place')}",
        hint=REPAIR,
    )


def _check_documents(repository: Repository, scratch: Path, *, repair: bool) -> int:
    """Hashes the documents that the index names, and stores damaged ones again if asked to.

    Returns:
        How many are damaged or missing.
    """
    bad = 0
    for index in repository.model_indexes():
        for name, blob in corrections.stated_documents(index):
            if damage := repository.blobs.damage(blob, scratch):
                bad += 1
                print(f"index/{index.model}.json: its {name}, blob {blob.sha256}, is {damage}")
        if bad and repair:
            corrections.store_documents(repository, index)
    return bad


def _check_pieces(repository: Repository, stated: Iterable[Stated], *, repair: bool) -> int:
    """Compares the unsigned objects that say what blobs are assembled from with the signed lists.

    Returns:
        How many are missing or say something else; they are written again if asked to.
    """
    bad = 0
    for one in stated:
        if one.pieces is None or repository.blobs.is_whole(one.pieces.whole):
            continue
        try:
            known = repository.chunks.pieces.read(one.sha256)
        except RepositoryError:
            known = None
        if known != one.pieces:
            bad += 1
            print(f"{pieces_key(one.sha256)} is {'damaged' if known else 'missing or damaged'}")
            if repair:
                repository.chunks.pieces.add(one.pieces)
    return bad


def _check_chunks(
    repository: Repository, stated: Iterable[Stated], scratch: Path, *, repair: bool
) -> int:
    """Hashes the lists and packs of chunks of what is also stored whole.

    Those of other blobs were read when these were assembled; whatever of a damaged pack is whole
    is still needed. A damaged one that only whole blobs need is removed if asked to.

    Returns:
        How many are damaged or missing.
    """
    damages: dict[str, str | None] = {}
    parts: dict[str, Blob] = {}
    needed: set[str] = set()  # to assemble what is not stored whole
    for one in stated:
        blobs = one.pieces.blobs if one.pieces else (one.listed,)
        if repository.store.size(blob_key(one.sha256)) is None:
            needed |= {blob.sha256 for blob in blobs}
            continue
        for blob in blobs:
            parts[blob.sha256] = blob
            if blob.sha256 not in damages:
                damages[blob.sha256] = repository.blobs.damage(blob, scratch)
            if damage := damages[blob.sha256]:
                print(f"chunks of blob {one.sha256}: blob {blob.sha256} is {damage}")
    bad = [sha256 for sha256, damage in damages.items() if damage]
    if bad and repair:
        for sha256 in set(bad) - needed:
            repository.blobs.discard(parts[sha256])
        index = repository.index()
        print(f"zoo-farm chunks {index.chunks if index else 'on'} makes the chunks again")
    return len(bad)


def explain(options: argparse.Namespace) -> int:
    """Shows which inputs of an engine differ from those of the published one."""
    from builders.planning.explain import differences

    options.models = options.model
    manifest = next(iter(chosen_manifests(options)[0].values()))
    repository = published(options)
    print("\n".join(differences(repository, manifest, options.target, options)))
    return 0
