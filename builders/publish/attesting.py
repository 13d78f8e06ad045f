"""Signs what this machine attests and proposes, with the key of its builder.

The farm's own process signs; its workers never get the key. Which key: that beside the repository's
keys if they are here, else the one of this user, which ``zoo-farm builders key`` creates.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from builders.publish.keys import BUILDER, AskPassphrase, load_builder, new_builder
from builders.publish.registered import stated_builders
from builders.publish.signatures import sign, sign_candidate
from zoo.client.client import trust_home
from zoo.repository.repository import Repository
from zoo.schema.index import Candidate
from zoo.schema.layout import TIMESTAMP
from zoo.schema.records import Attestation
from zoo.util.errors import TrustError

PLACE = "ZOO_BUILDER_KEY"
"""Environment variable with the path of this machine's builder key; no worker gets it."""


def own_key() -> Path:
    """Returns where this user's builder key is stored."""
    if place := os.environ.get(PLACE):
        return Path(place)
    return trust_home().roots.parent / BUILDER


class Attestor:
    """Signs attestations and candidates, and finds out before hours of work that they will count.

    Args:
        repository: The repository.
        folder: Folder of its keys, if they are or will be on this machine.
        make: Makes the keys of a new repository; None if they are made elsewhere.
        ask: Asks for the passphrase of an encrypted key.
        say: Called with messages for the user.

    Raises:
        TrustError: The repository registers builders, and this machine has the key of none.
    """

    def __init__(
        self,
        repository: Repository,
        folder: Path | None,
        *,
        make: Callable[[], None] | None,
        ask: AskPassphrase,
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._make, self._ask = folder, make, ask
        self._signer: CryptoSigner | None = None
        self._signs = True
        if repository.store.size(TIMESTAMP) is not None:
            self._signer = self._registered(repository)
            self._signs = self._signer is not None
        elif folder is None:
            self._signer = self._new(say)

    def sign(self, attestation: Attestation, record: str | None) -> Attestation:
        """Returns an attestation, signed unless the repository is from before there were builders.

        Args:
            attestation: The attestation.
            record: Digest of the engine's build record; None if it is about the bytes alone.
        """
        signer = self._own()
        return attestation if signer is None else sign(attestation, signer, record)

    def sign_candidate(self, candidate: Candidate) -> Candidate:
        """Returns a candidate, signed unless the repository is from before there were builders."""
        signer = self._own()
        return candidate if signer is None else sign_candidate(candidate, signer)

    def _own(self) -> CryptoSigner | None:
        """Returns this machine's key; None if the repository is from before there were builders."""
        if self._signs and self._signer is None:
            if self._make is not None:
                self._make()
            assert self._folder is not None
            path = self._folder / BUILDER
            self._signs = path.exists()  # keys of an earlier version register no builder
            self._signer = load_builder(path, self._ask) if self._signs else None
        return self._signer

    def _registered(self, repository: Repository) -> CryptoSigner | None:
        """Returns this machine's key that a repository registers; None if it registers none."""
        url = repository.store.url
        builders = stated_builders(repository.store)
        if builders is None:
            return None
        places = [self._folder / BUILDER] if self._folder is not None else []
        for path in (*places, own_key()):
            if path.exists():
                signer = load_builder(path, self._ask)
                if signer.public_key.keyid in {one.keyid for one in builders}:
                    return signer
        names = ", ".join(one.name for one in builders) or "none"
        raise TrustError(
            f"{url}: this machine is none of its builders ({names}): nothing that it attests would "
            "be signed",
            hint="zoo-farm builders key shows this machine's public key; whoever has the keys of "
            "the repository registers it with zoo-farm builders add NAME FILE",
        )

    def _new(self, say: Callable[[str], None]) -> CryptoSigner:
        """Returns this user's key, for a repository that somebody else will sign first."""
        path = own_key()
        if not path.exists():
            new_builder(path, "", None)
            say(
                f"this machine's builder key: {path} (new); the repository must register it: "
                "zoo-farm builders key"
            )
        return load_builder(path, self._ask)
