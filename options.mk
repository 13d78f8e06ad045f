# Written by `zoo-farm options --makefile`; the table is builders/planning/options.py.
KNOWN := PYTHON GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY EXECUTOR SCHEDULER CERTS JSON MATRIX NIGHT REPORT ISSUE MANIFESTS PORT DATA TRUST REFRESH ALLOW_UNLOCKED
TAKES_zoo := GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY EXECUTOR SCHEDULER CERTS MANIFESTS
TAKES_plan := GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY EXECUTOR SCHEDULER CERTS JSON MATRIX MANIFESTS
TAKES_nightly := GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY EXECUTOR SCHEDULER CERTS NIGHT REPORT ISSUE MANIFESTS
TAKES_verify := MODELS STORE KEYS SITE BASE_URL BUILDER_PYTHON TIMEOUT MEMORY MANIFESTS TRUST
TAKES_catalog := STORE SITE BASE_URL MANIFESTS
TAKES_serve := STORE SITE BASE_URL MANIFESTS PORT
TAKES_prove := MODELS STORE KEYS SITE BASE_URL BUILDER_PYTHON TIMEOUT MEMORY MANIFESTS TRUST
TAKES_publish := STORE KEYS ISSUE REFRESH
TAKES_demo := GPU PRECISION STORE MANIFESTS DATA
TAKES_image := TRT ALLOW_UNLOCKED
ARGS_zoo = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" $(if $(call yes,RETRY),--retry) --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)"
ARGS_plan = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" $(if $(call yes,RETRY),--retry) --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" $(if $(call yes,JSON),--json) $(if $(call yes,MATRIX),--matrix)
ARGS_nightly = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" $(if $(call yes,RETRY),--retry) --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" --night "$(NIGHT)" --report "$(REPORT)" --issue "$(ISSUE)"
ARGS_verify = --models "$(MODELS)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder-python "$(BUILDER_PYTHON)" --timeout "$(TIMEOUT)" --memory "$(MEMORY)"
ARGS_catalog = --store "$(STORE)" --site "$(SITE)" --base-url "$(BASE_URL)"
define OPTIONS_HELP
  GPU             cpu, sm75, sm80, sm86, sm89, sm90, sm100, sm120; several with commas (default: this machine's GPU, else cpu)
  TRT             rtx1.7, 11.4, 10.16, 10.13, 8.6; make plan takes several (default: the TensorRT installed beside the GPU, else what serves it)
  MODELS          ids, globs, families; several with commas (default: all)
  PRECISION       fp32, bf16, fp16, int8 (default: all of the manifest that the target takes)
  CALIBRATION     a folder of 32 photos or more, for fp16 and int8 (default: photos of the farm's packages)
  LABELLED        a folder with a folder for each class: [a linear probe](docs/explanation/precision.md#floors) joins the verdict (default: none)
  WEIGHTS         manifest, seeded (default: manifest)
  STORE           a directory, s3://bucket/prefix (default: _repository; _repository-seeded for a dry run)
  KEYS            folder of the keys that sign it (default: beside a local repository, made when missing)
  SITE            a directory (default: _site; _site-seeded for a dry run)
  BASE_URL        where readers find the repository: the catalog links to its files (default: not known)
  BUILDER         builder options, optimization_level=5 (default: the runtime's own)
  BUILDER_PYTHON  the Python that builds and verifies (default: the farm's)
  RETRY           1: try again what is disabled, having missed its tolerance or failed twice (default: off)
  TIMEOUT         seconds that a job may take (default: 3600)
  MEMORY          GiB of memory that a job may have (default: no limit)
  EXECUTOR        docker: jobs run in [containers](docs/how-to/containers.md#jobs-in-containers); dask: on many machines (default: local)
  SCHEDULER       tls://host:8786: [many machines](docs/explanation/farm.md#many-machines)
  CERTS           folder of the cluster's certificates
  JSON            1: the whole plan, for machines (default: off)
  MATRIX          1: the work, as a GitHub matrix (default: off)
  NIGHT           name that the runs of a night share (default: one of its own)
  REPORT          file for what the night did, JSON (default: _nightly/run.json)
  ISSUE           file for an issue: title, blank line, body (default: _nightly/issue.md of a night)
  MANIFESTS       a directory (default: manifests)
  PORT            of make serve (default: 8000)
  DATA            of make demo: a folder with a folder of photos for each class (default: photos of packages)
  TRUST           of make verify: the repository's root (default: trusted already)
  REFRESH         1: make publish signs every file anew (default: off)
  ALLOW_UNLOCKED  1: make image on a base whose digest is not locked yet (default: off)
endef
