"""Signatures of attestations and candidates, and which of them count.

Whoever can write to the store can write both. So a builder signs each with a key of its own, and
the repository's targets key signs the list of builders, in the metadata of the targets role:
clients that know nothing of builders keep the field and ignore it.

The signature of an attestation covers the bytes of the engine's build record too. What is signed
stays signed, so a candidate counts only if its builder proposed nothing later: the index names when
each proposed what was signed last. A repository from before there were builders has no list, until
one is added: then every attestation and candidate counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import JsonValue

from builders.publish.builder_list import Builder, Builders
from builders.publish.entries import stated_of
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate, EngineEntry, ModelIndex
from zoo.schema.layout import ATTESTATIONS
from zoo.schema.records import (
    Attestation,
    BuildRecord,
    CandidateSignature,
    Record,
    Signature,
    Status,
)
from zoo.schema.status import concerning
from zoo.schema.targets import arch_of
from zoo.stores import ObjectStore
from zoo.util.errors import RepositoryError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

_ATTESTATION = b"caft-zoo attestation 1\n"
_CANDIDATE = b"caft-zoo candidate 1\n"


def sign(attestation: Attestation, signer: CryptoSigner, record: str | None) -> Attestation:
    """Returns an attestation with a builder's signature.

    Args:
        attestation: The attestation.
        signer: The builder's key.
        record: Digest of the build record of the engine; None if it is about the bytes alone.
    """
    key = signer.public_key.keyid
    blank = Signature(builder=key, record=record, value="")
    made = attestation.model_copy(update={"signature": blank})
    made = Attestation.model_validate_json(made.to_json())  # as everybody will read it
    value = signer.sign(_stated(_ATTESTATION, made)).signature
    return made.model_copy(update={"signature": blank.model_copy(update={"value": value})})


def is_signed(attestation: Attestation, builders: Builders) -> bool:
    """Whether a registered builder signed an attestation as it is."""
    signature = attestation.signature
    if signature is None:
        return False
    unsigned = signature.model_copy(update={"value": ""})
    data = _stated(_ATTESTATION, attestation.model_copy(update={"signature": unsigned}))
    return _signer_of(signature, data, builders) is not None


def sign_candidate(candidate: Candidate, signer: CryptoSigner) -> Candidate:
    """Returns a candidate with a builder's signature."""
    blank = CandidateSignature(builder=signer.public_key.keyid, value="")
    made = candidate.model_copy(update={"signature": blank})
    made = Candidate.model_validate_json(made.to_json())  # as everybody will read it
    value = signer.sign(_stated(_CANDIDATE, made)).signature
    return made.model_copy(update={"signature": blank.model_copy(update={"value": value})})


def with_candidate(
    proposals: Mapping[str, str], candidate: Candidate, builders: Builders
) -> dict[str, str]:
    """Returns when each builder proposed what was signed last, once a candidate is signed.

    Args:
        proposals: The same before it.
        candidate: The candidate.
        builders: The registered builders.

    Raises:
        RepositoryError: No registered builder signed it, or its builder proposed something later.
    """
    signature = candidate.signature
    builder = None
    if signature is not None:
        unsigned = signature.model_copy(update={"value": ""})
        data = _stated(_CANDIDATE, candidate.model_copy(update={"signature": unsigned}))
        builder = _signer_of(signature, data, builders)
    if builder is None:
        names = ", ".join(one.name for one in builders) or "none"
        raise RepositoryError(
            f"no registered builder signed it (builders: {names})",
            hint="builders need a version of this package that signs candidates: upgrade it there, "
            "and the next make zoo proposes it again",
        )
    newest = proposals.get(builder.keyid, "")
    if candidate.proposed <= newest:
        raise RepositoryError(
            f"it is of {candidate.proposed}; {builder.name} proposed something else at {newest}, "
            "which is signed",
            hint="make zoo proposes what the manifests ask for now",
        )
    return {**proposals, builder.keyid: candidate.proposed}


def _signer_of(
    signature: Signature | CandidateSignature, data: bytes, builders: Builders
) -> Builder | None:
    """Returns the registered builder that signed bytes; None if none did."""
    builder = next((one for one in builders if one.keyid == signature.builder), None)
    if builder is None:
        return None
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(builder.public.keyval["public"]))
        key.verify(bytes.fromhex(signature.value), data)
    except (InvalidSignature, KeyError, ValueError):
        return None
    return builder


def _stated(purpose: bytes, record: Record) -> bytes:
    """Returns the bytes that a signature covers."""
    stated = record.model_dump(mode="json")
    return purpose + json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()


class TrustedRepository(Repository):
    """A repository of which only attestations count that somebody trusted made.

    Those are attestations that a registered builder signed, those that the signed index names, and
    those from before there were builders, while they say exactly what the signed index says.

    Args:
        store: The store.
        builders: The registered builders.
        previous: The index of the model as signed now.
    """

    def __init__(self, store: ObjectStore, builders: Builders, previous: ModelIndex | None) -> None:
        super().__init__(store)
        self._builders = builders
        self._engines = previous.engines if previous else ()

    def attestations(self, engine: str) -> list[Attestation]:
        """Returns the attestations of an engine that count, oldest first.

        Raises:
            RepositoryError: One that withdrew a published engine is gone or was replaced.
        """
        stored = [one for one in super().attestations(engine) if one.engine == engine]
        before = [entry for entry in self._engines if entry.engine.sha256 == engine]
        named = {name for entry in before for name in entry.attested}
        if before and not named:
            named = self._named_before(stored, before)
        lost = not named or bool(named - {one.short for one in stored})
        if lost and any(entry.status is Status.WITHDRAWN for entry in before):
            raise RepositoryError(
                f"{self.store.url}: {ATTESTATIONS}{engine}/ is not what the signed index was made "
                "from, and the engine is withdrawn",
                hint="restore these attestations from a copy of the repository",
            )
        return [one for one in stored if one.short in named or is_signed(one, self._builders)]

    def _named_before(self, stored: list[Attestation], before: list[EngineEntry]) -> set[str]:
        """Returns the attestations from before there were builders that the signed index states."""
        old = [one for one in stored if one.signature is None]
        agree = all(_agrees(entry, old) for entry in before)
        return {one.short for one in old} if agree else set()

    def check_introduced(self, record: BuildRecord, file: str) -> None:
        """Checks that a registered builder attested an engine as that of a new build record.

        Args:
            record: The record.
            file: Digest of its file.

        Raises:
            RepositoryError: None did.
        """
        names = ", ".join(one.name for one in self._builders) or "none"
        for attestation in super().attestations(record.engine.sha256):
            signature = attestation.signature
            is_about = signature is not None and signature.record == file
            if is_about and is_signed(attestation, self._builders):
                return
        raise RepositoryError(
            f"record {record.key}: no registered builder signed an attestation of its engine with "
            f"this record (builders: {names})",
            hint=f"if its builder is to be trusted, register it with zoo-farm builders add; else "
            f"delete the record and {ATTESTATIONS}{record.engine.sha256}/, and make zoo builds it "
            "again",
        )


def _agrees(entry: EngineEntry, attestations: list[Attestation]) -> bool:
    """Whether attestations say what an index entry says, on each of its architectures.

    An entry that an earlier version made may say less.
    """
    for label in entry.targets:
        stated = stated_of(concerning(attestations, arch_of(label)))
        made = entry.model_copy(update=dict(stated))
        ours, theirs = made.model_dump(mode="json"), entry.model_dump(mode="json")
        if ours["status"] != theirs["status"] or ours["reason"] != theirs["reason"]:
            return False
        for part in ("verification", "benchmark", "comparison"):
            if not _covers(ours[part], theirs[part]):
                return False
    return True


def _covers(ours: JsonValue, theirs: JsonValue) -> bool:
    """Whether a value says all that another says."""
    if theirs is None:
        return True
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_covers(ours.get(name), value) for name, value in theirs.items())
    return ours == theirs
