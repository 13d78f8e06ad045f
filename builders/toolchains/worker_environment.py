"""The environment of a worker: listed variables only, and no secret that it does not need."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from zoo.stores import SCHEMES, credentials_of

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
    *stores: str, weights: bool, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Returns the environment variables for a worker.

    Kept are paths of programs, libraries, home, caches and temporary files; the locale; settings
    of CUDA, TensorRT, ONNX Runtime, torch and thread pools; proxies, certificate authorities and
    package indexes, for exports that download weights; this project's settings; and the address
    of the Docker engine, for the ``docker`` program, which passes none of this on to a container.

    Dropped is everything else, such as ``ZOO_KEYS_PASSPHRASE``, CI tokens and cloud credentials,
    and every variable that is named like a secret.

    Args:
        stores: Addresses of the stores that the worker uses; keeps their credentials.
        weights: Whether it downloads weights; keeps the hub's token, which gated weights need.
        environment: The variables to choose from.
    """
    credentials = tuple(start for store in stores if (start := credentials_of(store)))
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(credentials)
        or (name in _HUB_TOKENS and weights)
        or (_KEPT.fullmatch(name) and not _SECRET.search(name))
    }


def drop_secrets() -> None:
    """Removes the variables from this process that its workers must not inherit.

    For a machine of a cluster, whose jobs may use any store and any weights.
    """
    kept = worker_environment(*(f"{scheme}://" for scheme in SCHEMES), weights=True)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
