# A builder: the worker, the runtime of one TensorRT line, and no torch. Build, verification and
# benchmark run in it; exports run in export.Dockerfile. `make image TRT=11.4` builds it; the
# arguments of each line are in bake.json, the digests of the bases in images.toml.
ARG BASE
FROM ${BASE}

# Requirement of the runtime for pip; empty if the base has it.
ARG RUNTIME=""
# More options for pip, such as a folder of wheels in the context instead of an index.
ARG PIP=""

ENV PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

COPY pyproject.toml README.md LICENSE constraints.txt /opt/farm/
COPY zoo /opt/farm/zoo
COPY builders /opt/farm/builders

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/farm
# hadolint ignore=DL3013,SC2086
RUN python3 -m pip install ${PIP} -c constraints.txt ".[cuda,dask,s3,worker]" ${RUNTIME:+"${RUNTIME}"} \
 && python3 -m pip install ${PIP} --no-deps ./builders

# Fails the build unless the worker's modules import, the runtime is found and torch is absent.
WORKDIR /tmp
RUN python3 -c 'import builders.backends, builders.verify.benchmark, builders.verify.compare, builders.worker.execute' \
 && python3 -m zoo.client.host | grep -Eq '"(trt|rtx)"' \
 && if python3 -c 'import torch' 2>/dev/null; then echo 'a builder image must not contain torch' >&2; exit 1; fi

# A number, not a name: Kubernetes can then verify that it is not root.
USER 1000:1000
ENV HOME=/tmp
HEALTHCHECK --interval=60s --timeout=30s --start-period=30s \
  CMD ["python3", "-c", "import builders.worker.execute"]
CMD ["zoo-farm", "--help"]
