"""Layout: the keys of a repository's objects. No other module builds keys.

::

    repository.json                            the repository's kind: release or dry-run
    blobs/sha256/ab/abcd…                      immutable bytes
    chunked/ab/abcd….json                      where the chunks of a blob are; unsigned
    states/<model>/<recipe>.json               random weights, by their recipe
    exports/<model>/<export-key>.json          ONNX and golden features, by their inputs
    failures/<model>/<export-key>/export.json  a failed export
    failures/<model>/<build-key>/<time>-….json a run in which an engine failed
    records/<model>/<build-key>.json           engines, by their inputs
    runs/<night>/<time>-….json                 summary of a run of the farm; unsigned
    attestations/<engine>/<time>-…-<kind>-….json results of verifying or benchmarking an engine
    timing-caches/<device>-<toolchain>.json    the latest timing cache of a GPU and a TensorRT
    candidates/<model>/<time>-….json           builders' proposals for the index, signed by them
    refused/<model>/<time>-….json              proposals that a publisher rejected, and why
    metadata/                                  TUF: root, targets, bins, snapshot, timestamp
    index/<sha256>.<model>.json                a model's index, signed through TUF
    <sha256>.index.json                        the list of models, signed through TUF
    index/<model>.json, index.json             unsigned copies, for people and curl
    gc/condemned.json                          blobs that are no longer needed, and since when

"""

from __future__ import annotations

import re

from zoo.schema.targets import Toolchain

METADATA = "metadata/"
FIRST_ROOT = f"{METADATA}1.root.json"
TIMESTAMP = f"{METADATA}timestamp.json"
CONDEMNED = "gc/condemned.json"
RUNS = "runs/"
ATTESTATIONS = "attestations/"
FAILURES = "failures/"
CHUNKED = "chunked/"


def blob_key(sha256: str) -> str:
    """Returns the key of a blob."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def pieces_key(sha256: str) -> str:
    """Returns the key of what a blob is assembled from."""
    return f"{CHUNKED}{sha256[:2]}/{sha256}.json"


def record_key(model: str, key: str) -> str:
    """Returns the key of a build record."""
    return f"records/{model}/{key}.json"


def failures_prefix(model: str, key: str) -> str:
    """Returns the key prefix of the failure records of an engine or export."""
    return f"{FAILURES}{model}/{key}/"


def failed_export_key(model: str, key: str) -> str:
    """Returns the key of the failure record of an export."""
    return f"{failures_prefix(model, key)}export.json"


def run_key(night: str, time: str, sha256: str) -> str:
    """Returns the key of a run's summary."""
    return f"{RUNS}{night}/{time}-{sha256[:16]}.json"


def export_key(model: str, key: str) -> str:
    """Returns the key of an export record."""
    return f"exports/{model}/{key}.json"


def state_key(model: str, recipe: str) -> str:
    """Returns the key of the record of random weights."""
    return f"states/{model}/{recipe}.json"


def timing_cache_key(device: str, toolchain: Toolchain) -> str:
    """Returns the key of the record of the latest timing cache of a GPU and a toolchain."""
    name = f"{device}-cuda{toolchain.cuda}-{toolchain.kind}{toolchain.version}"
    return f"timing-caches/{re.sub(r'[^A-Za-z0-9.]+', '-', name).lower()}.json"


def hashed_key(path: str, digest: str) -> str:
    """Returns the key of a signed file: ``index/<digest>.<model>.json``."""
    head, slash, name = path.rpartition("/")
    return f"{head}{slash}{digest}.{name}"
