"""The commands that download a blob without the client, by the repository's address."""

from __future__ import annotations

import pytest
from support.records import sha256

from zoo.catalog.place import UNKNOWN, Place
from zoo.schema.layout import blob_key

BLOB = blob_key(sha256("1"))


def test_maintainers_commands_name_the_repository_that_they_are_about() -> None:
    given = {"STORE": "a zoo", "WEIGHTS": "seeded", "MANIFESTS": "mine"}
    place = Place(url="https://x.org", own="/srv/a zoo", checkout=given)
    assert place.make("plan") == "make plan STORE='a zoo' WEIGHTS=seeded MANIFESTS=mine"
    assert place.make("zoo", "GPU=sm86").startswith("make zoo GPU=sm86 STORE='a zoo' ")
    farm = ".venv/bin/zoo-farm --manifests mine"
    assert place.farm(["compare"]) == f"{farm} compare --store 'a zoo'"
    assert place.farm(["zoo", "--store", "s"]) == f"{farm} zoo --store s"
    assert Place(own="s3://b/zoo").make("plan") == "make plan STORE=s3://b/zoo"


def test_a_place_knows_what_its_readers_need() -> None:
    bucket, folder = Place(own="s3://b/zoo"), Place(own="/srv/zoo")
    assert bucket.needs_credentials
    assert not bucket.is_folder
    assert folder.is_folder
    assert not folder.needs_credentials
    assert not Place(url="https://x.org", own="/srv/zoo").is_folder
    assert not Place().is_known


def test_a_served_site_has_its_repository_beside_it() -> None:
    place = Place(own="/srv/zoo", beside=True)
    assert place.link(sha256("1"), "../") == f"../repository/{BLOB}"
    assert place.fetch_beside(sha256("1"), "e") == f"curl -fL -o e SITE/repository/{BLOB}"
    assert Place(url="https://x.org").link(sha256("1"), "../") == f"https://x.org/{BLOB}"
    assert Place(own="/srv/zoo").link(sha256("1"), "../") is None


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
