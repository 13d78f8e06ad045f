"""Layout: where things lie in a repository. This module alone knows.

::

    repository.json                            which kind this is: release, or dry-run
    blobs/sha256/ab/abcd…                      immutable bytes
    states/<model>/<recipe>.json               seeded weights, by their recipe
    exports/<model>/<export-key>.json          ONNX and golden, by what went in
    disabled/<model>/<export-key>.json         why there is no such ONNX
    records/<model>/<build-key>.json           engines, by what went in
    strikes/<model>/<build-key>/<time>.json    a night in which an engine failed
    missed/<model>/<key>.json                  an engine that missed its floors
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

from zoo.target import Toolchain

METADATA = "metadata/"
FIRST_ROOT = f"{METADATA}1.root.json"
TIMESTAMP = f"{METADATA}timestamp.json"
CONDEMNED = "gc/condemned.json"
RUNS = "runs/"
MISSED = "missed/"


def blob_key(sha256: str) -> str:
    """Returns where a blob lies."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def record_key(model: str, key: str) -> str:
    """Returns where a build record lies."""
    return f"records/{model}/{key}.json"


def strikes_prefix(model: str, key: str) -> str:
    """Returns where it lies that an engine of a key failed."""
    return f"strikes/{model}/{key}/"


def missed_key(model: str, key: str) -> str:
    """Returns where it lies that an engine missed its floors.

    Args:
        model: Whose engine it was.
        key: Of what it was made from, and of the floors.
    """
    return f"{MISSED}{model}/{key}.json"


def run_key(night: str, time: str, sha256: str) -> str:
    """Returns where it lies what a run says of itself."""
    return f"{RUNS}{night}/{time}-{sha256[:16]}.json"


def export_key(model: str, key: str) -> str:
    """Returns where an export record lies."""
    return f"exports/{model}/{key}.json"


def disabled_key(model: str, key: str) -> str:
    """Returns where it lies why there is no export of a key."""
    return f"disabled/{model}/{key}.json"


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
