"""The commands that download a blob without the client, by the repository's address."""

from __future__ import annotations

import pytest
from support.records import sha256

from zoo.catalog.place import UNKNOWN, Place
from zoo.schema.layout import blob_key

BLOB = blob_key(sha256("1"))


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (Place(own="/srv/zoo"), f"cp /srv/zoo/{BLOB} e"),
        (Place(own="/srv/my zoo"), f"cp '/srv/my zoo/{BLOB}' e"),
        (Place(own="s3://engines/zoo"), f"aws s3 cp s3://engines/zoo/{BLOB} e"),
        (Place(own="https://example.org/zoo"), f"curl -fL -o e https://example.org/zoo/{BLOB}"),
        (Place(url="https://x.org", own="s3://b"), f"curl -fL -o e https://x.org/{BLOB}"),
        (Place(own="gs://bucket"), f"curl -fL -o e {UNKNOWN}/{BLOB}"),
        (Place(own="memory://"), f"curl -fL -o e {UNKNOWN}/{BLOB}"),
        (Place(), f"curl -fL -o e {UNKNOWN}/{BLOB}"),
    ],
)
def test_a_blob_is_downloaded_as_its_store_needs(place: Place, command: str) -> None:
    assert place.fetch(sha256("1"), "e") == command
