"""Layout: where things lie in a repository. This module alone knows.

::

    repository.json                            which kind this is: release, or dry-run
    blobs/sha256/ab/abcd…                      immutable bytes
    states/<model>/<recipe>.json               seeded weights, by their recipe
    exports/<model>/<export-key>.json          ONNX and golden, by what went in
    failures/<model>/<export-key>/export.json  why there is no such ONNX
    failures/<model>/<build-key>/<time>-….json a run in which an engine failed
    records/<model>/<build-key>.json           engines, by what went in
    runs/<night>/<time>-….json                 what a run of the farm says of itself; unsigned
    attestations/<engine>/<time>-<kind>-….json what was found out about an engine
    timing-caches/<device>-<toolchain>.json    the newest timing cache of a GPU and a TensorRT
    candidates/<model>/<time>-….json           what builders propose for the index; unsigned
    refused/<model>/<time>-….json              what a publisher did not sign, and why
    metadata/                                  TUF: root, targets, bins, snapshot, timestamp
    index/<sha256>.<model>.json                a model's index, signed through TUF
    <sha256>.index.json                        all models, signed through TUF
    index/<model>.json, index.json             the same, for eyes and curl: what is not signed
    gc/condemned.json                          what nothing needs any more, and since when

"""

from __future__ import annotations

import re

from zoo.schema.targets import Toolchain

METADATA = "metadata/"
FIRST_ROOT = f"{METADATA}1.root.json"
TIMESTAMP = f"{METADATA}timestamp.json"
CONDEMNED = "gc/condemned.json"
RUNS = "runs/"
FAILURES = "failures/"


def blob_key(sha256: str) -> str:
    """Returns where a blob lies."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def record_key(model: str, key: str) -> str:
    """Returns where a build record lies."""
    return f"records/{model}/{key}.json"


def failures_prefix(model: str, key: str) -> str:
    """Returns the key prefix of the failure records of an engine or export."""
    return f"{FAILURES}{model}/{key}/"


def failed_export_key(model: str, key: str) -> str:
    """Returns the key of the failure record of an export."""
    return f"{failures_prefix(model, key)}export.json"


def run_key(night: str, time: str, sha256: str) -> str:
    """Returns where it lies what a run says of itself."""
    return f"{RUNS}{night}/{time}-{sha256[:16]}.json"


def export_key(model: str, key: str) -> str:
    """Returns where an export record lies."""
    return f"exports/{model}/{key}.json"


def state_key(model: str, recipe: str) -> str:
    """Returns where the record of seeded weights lies."""
    return f"states/{model}/{recipe}.json"


def timing_cache_key(device: str, toolchain: Toolchain) -> str:
    """Returns where the record of the newest timing cache of a GPU and a TensorRT lies."""
    name = f"{device}-cuda{toolchain.cuda}-{toolchain.kind}{toolchain.version}"
    return f"timing-caches/{re.sub(r'[^A-Za-z0-9.]+', '-', name).lower()}.json"


def hashed_key(path: str, digest: str) -> str:
    """Returns where the bytes of a signed file lie: ``index/<digest>.<model>.json``."""
    head, slash, name = path.rpartition("/")
    return f"{head}{slash}{digest}.{name}"
