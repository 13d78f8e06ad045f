"""The list of builders whose attestations count.

Checks of candidates read it, so this module loads little.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, TypeAdapter


class PublicKey(BaseModel):
    """A public key in TUF's format. Fields that TUF may add are kept.

    Attributes:
        keytype: Such as ``ed25519``.
        scheme: The signature scheme.
        keyval: The key: ``public`` and its hexadecimal digits or PEM.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    keytype: str
    scheme: str
    keyval: dict[str, str]


class Builder(BaseModel):
    """A builder whose attestations count, because the targets key signs its name and key.

    Attributes:
        name: What people call it.
        keyid: ID of its key.
        public: Its public key.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    keyid: str
    public: PublicKey


Builders = tuple[Builder, ...]
BUILDERS: TypeAdapter[Builders] = TypeAdapter(Builders)
