"""The provenance file of an engine: its name, and whether it is about that engine.

Apart from :mod:`builders.publish.provenance`, which writes it: the check of candidates reads files
that anybody may have written and loads as little code as possible.
"""

from __future__ import annotations

from zoo.schema.records import BuildRecord
from zoo.util.loading import parse_json

PROVENANCE = "provenance"
"""Name of the file beside every engine."""


def is_about(statement: bytes, record: BuildRecord) -> bool:
    """Whether a statement names an engine and the build key of its record."""
    try:
        content = parse_json(statement)
        digests = [subject["digest"]["sha256"] for subject in content["subject"]]
        key = content["predicate"]["buildDefinition"]["internalParameters"]["buildKey"]
    except (ValueError, KeyError, TypeError):
        return False
    return digests == [record.engine.sha256] and key == record.key
