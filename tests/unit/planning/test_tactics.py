"""Builds with the recorded tactics of the published engine."""

from __future__ import annotations

from typing import Any

import pytest
from support.goldens import assert_golden
from support.models import SMALL
from support.published_plan import publish_all
from support.records import blob
from support.wants_everything import everywhere, request

from builders.history.failures import Failures
from builders.planning.decide import decide
from builders.planning.decision import Action, Decision
from builders.planning.known import RepositoryKnown
from builders.toolchains.elsewhere import Places
from zoo.repository.repository import Repository
from zoo.schema.layout import record_key
from zoo.schema.manifest import Manifest
from zoo.stores import MemoryStore

LINE = "trt11.4"
LOCK = blob(b"tactics")


def places() -> Places:
    """One TensorRT on one GPU."""
    found = everywhere()
    (line,) = [one for one in found.lines if str(next(iter(one.values())).line) == LINE]
    arch = next(arch for arch in line if arch.name == "sm86")
    return Places(lines=({arch: line[arch]},), elsewhere=frozenset({arch}), here=frozenset())


@pytest.fixture
def repository(manifests: dict[str, Manifest]) -> Repository:
    """Its engines were built without recording tactics."""
    made = Repository(MemoryStore())
    publish_all(made, {SMALL: manifests[SMALL]}, places())
    return made


def decided(
    repository: Repository, manifests: dict[str, Manifest], **builder: str
) -> list[Decision]:
    asked = request(manifests, places=places(), builder=builder)
    index = repository.model_index(SMALL)
    known = RepositoryKnown(repository, SMALL, index, Failures(repository))
    return decide(manifests[SMALL], asked, known)


def record_tactics(repository: Repository) -> None:
    """Puts a lock beside every engine."""
    for record in repository.records(SMALL):
        key = record_key(SMALL, record.key)
        repository.store.put(key, record.model_copy(update={"files": {"tactics": LOCK}}).to_json())


def options_of(decision: Decision) -> dict[str, Any]:
    assert decision.inputs is not None
    return decision.inputs.options


def test_locked_builds_have_the_digest_of_the_published_tactics_in_their_key(
    repository: Repository, manifests: dict[str, Manifest]
) -> None:
    free = decided(repository, manifests)
    assert {one.action for one in free} == {Action.NOTHING}
    record_tactics(repository)
    locked = decided(repository, manifests, tactics="locked")
    assert locked
    assert {one.action for one in locked} == {Action.BUILD}
    assert [options_of(one)["tactics"] for one in locked] == [LOCK.sha256] * len(locked)
    named = decided(repository, manifests, tactics=LOCK.sha256)
    assert [one.inputs for one in named] == [one.inputs for one in locked]
    keys = [one.inputs.key for one in (*free, *locked) if one.inputs]
    assert len(set(keys)) == len(keys) == 2 * len(free)


def test_without_recorded_tactics_nothing_is_locked(
    repository: Repository, manifests: dict[str, Manifest]
) -> None:
    blocked = decided(repository, manifests, tactics="locked")
    assert {one.action for one in blocked} == {Action.BLOCKED}
    assert_golden("planning/tactics-none-recorded", blocked[0].error)
    recorded = decided(repository, manifests, tactics="recorded")
    assert {one.action for one in recorded} == {Action.BUILD}
    assert {options_of(one)["tactics"] for one in recorded} == {"recorded"}
