"""The environment of a worker: what is on a list, and no secret that it has no use for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|XDG_.*"
    r"|PYTHON.*|VIRTUAL_ENV|COVERAGE_.*|LD_.*|DYLD_.*|MALLOC_.*"
    r"|CUDA.*|CUDNN_.*|NVIDIA_.*|NV_.*|TRT.*|TENSORRT.*|POLYGRAPHY_.*"
    r"|ORT_.*|OMP_.*|OPENBLAS_.*|MKL_.*|KMP_.*|GOMP_.*|TORCH.*|PYTORCH.*"
    r"|ZOO_.*|HF_.*|HUGGINGFACE_.*|PIP_.*|(HTTPS?|ALL|NO|FTP)_PROXY"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|DOCKER_.*",
    re.IGNORECASE,
)
_SECRET = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|_KEYS?(_|$)|AUTH", re.IGNORECASE)
_HUB_TOKENS = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN")


def worker_environment(
    *, bucket: bool, weights: bool, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Returns the variables that a worker is given.

    What stays, and why: where programs, libraries, home, caches and temporary files are; the
    language; CUDA's, TensorRT's, ONNX Runtime's, torch's and the thread pools' settings; proxies,
    authorities and indexes, for exports that fetch weights; this project's own settings; the
    address of Docker's engine, for the ``docker`` program, which gives a container none of this.

    What does not: everything else, such as ``ZOO_KEYS_PASSPHRASE``, a CI's tokens or cloud
    credentials, and whatever is named like a secret.

    Args:
        bucket: Whether the worker reads a store in a bucket: then ``AWS_*`` stay.
        weights: Whether it fetches weights: then the hub's token stays, which gated weights need.
        environment: What there is.
    """
    return {
        name: value
        for name, value in environment.items()
        if (name.startswith("AWS_") and bucket)
        or (name in _HUB_TOKENS and weights)
        or (_KEPT.fullmatch(name) and not _SECRET.search(name))
    }


def drop_secrets() -> None:
    """Removes from this process what its workers, which inherit its environment, must not have.

    For a machine of a cluster: any store and any weights may be asked of it.
    """
    kept = worker_environment(bucket=True, weights=True)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
