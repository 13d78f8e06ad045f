# The farm on a CPU: exports (torch), CPU engines, TensorRT-RTX engines for GPUs of other machines,
# the scheduler of a cluster. `make image` builds it; the digest of its base is in images.toml.
ARG BASE
FROM ${BASE}

ARG PIP=""

# torch's default build includes CUDA; an export needs only the CPU build.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

COPY pyproject.toml README.md LICENSE constraints.txt /opt/farm/
COPY zoo /opt/farm/zoo
COPY builders /opt/farm/builders
COPY manifests /opt/farm/manifests

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/farm
# hadolint ignore=DL3013,SC2086
RUN python3 -m pip install ${PIP} -c constraints.txt ".[dask,farm,s3]" \
 && python3 -m pip install ${PIP} --no-deps ./builders

WORKDIR /tmp
RUN python3 -c 'import builders.export.run'

USER 1000:1000
ENV HOME=/tmp
HEALTHCHECK --interval=60s --timeout=30s --start-period=30s \
  CMD ["python3", "-c", "import builders.worker.execute"]
CMD ["zoo-farm", "--help"]
