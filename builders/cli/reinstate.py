"""``zoo-farm reinstate``: gives a withdrawn engine out again, after it has been verified again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from builders.cli.executor import local_executor
from builders.cli.options import chosen_manifests, published, store_of
from builders.cli.repository import engine_entry, published_model
from builders.cli.request import failures_beside
from builders.jobs.progress import Display
from builders.planning.options import add_options
from builders.publish import by_hand
from builders.publish.candidates import Proposals
from builders.publish.records import reinstatement
from builders.publish.signer import open_desk
from zoo.cli.command import add_arguments
from zoo.client.host import this_machine
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, EngineEntry
from zoo.schema.records import (
    Status,
)
from zoo.schema.status import concerning, is_verdict, status_of, taken_back
from zoo.schema.targets import arch_of
from zoo.util.errors import UsageError, VerificationError, ZooError

if TYPE_CHECKING:
    from builders.run.reverify import Reverifier


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = add_arguments(commands, "reinstate", reinstate)
    parser.add_argument("model", help="the model's id")
    parser.add_argument(
        "target", help="label of a target of the engine, or first digits of the engine's SHA-256"
    )
    parser.add_argument("--reason", required=True, help="kept in the engine's history")
    add_options(parser, "reinstate")


def reinstate(options: argparse.Namespace) -> int:
    """Offers a withdrawn engine again: verifies it here, or accepts a later verification."""
    if not options.reason.strip():
        raise UsageError("the reason is empty", hint="--reason is kept in the engine's history")
    repository, display = published(options), Display()
    index = published_model(repository, options.model)
    entry = engine_entry(options.model, options.target, index.engines)
    name = f"{options.model} {options.target}"
    if entry.status is not Status.WITHDRAWN:
        raise UsageError(
            f"{name}: not withdrawn but {entry.status}", hint="there is nothing to reinstate"
        )
    engine = entry.engine.sha256
    by_hand.check_licences(repository, engine)
    by_hand.check_decision(repository, reinstatement(engine, options.reason))
    desk = open_desk(store_of(options), options.keys, display.say)
    repository.sign = desk.sign
    try:
        _verify(options, repository, entry, desk, display)
    except ZooError:
        desk.send_again(options.model)  # a verification that failed is listed as well
        desk.send_sharing([engine], options.model)
        raise
    decision = reinstatement(engine, options.reason)  # later than the verification
    by_hand.check_decision(repository, decision)
    others = by_hand.have_signed(repository, desk, Candidate(card=index.card), [decision])
    print(f"{name}: reinstated{desk.still_unsigned}")
    for other in others:
        print(f"{other}: its engine has the same bytes and is reinstated too")
    return 0


def _verify(
    options: argparse.Namespace,
    repository: Repository,
    entry: EngineEntry,
    desk: Proposals,
    display: Display,
) -> None:
    """Verifies a withdrawn engine here, or finds a verification made since its withdrawal.

    Raises:
        VerificationError: It misses its tolerance, or there is no such verification.
    """
    from builders.run.reverify import Reverifier

    reverifier = Reverifier(
        repository, local_executor(options), display, failures_beside(store_of(options)),
        this_machine(), desk,
    )  # fmt: skip
    if reverifier.can_run(entry):
        options.models = options.model
        manifests, broken = chosen_manifests(options)
        if options.model in broken:
            raise broken[options.model]
        reverifier.verify(options.model, entry, manifests.get(options.model))
    _check_verified(repository, f"{options.model} {options.target}", entry, reverifier)


def _check_verified(
    repository: Repository, name: str, entry: EngineEntry, reverifier: Reverifier
) -> None:
    """Checks that an engine was verified after it was withdrawn.

    Raises:
        VerificationError: It was not, on none of its architectures.
    """
    attestations = repository.attestations(entry.engine.sha256)
    for arch in dict.fromkeys(map(arch_of, entry.targets)):
        known = concerning(attestations, arch)
        withdrawal = taken_back(known)
        if withdrawal is None and status_of(known)[0] is Status.VERIFIED:
            return
        since = known[known.index(withdrawal) :] if withdrawal else []
        verdicts = [attestation for attestation in since[1:] if is_verdict(attestation)]
        if verdicts and status_of(verdicts)[0] is Status.VERIFIED:
            return
    raise VerificationError(
        f"{name}: not verified since it was withdrawn, and this machine can't run it "
        f"({reverifier.why_not(entry)})",
        hint=f"on a machine that can: .venv/bin/zoo-farm verify --models {name.split()[0]}; then "
        "reinstate it",
    )
