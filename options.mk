# Written by `zoo-farm options --makefile`; the table is builders/planning/options.py.
KNOWN := PYTHON GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS LOCKED UPGRADE STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY JOBS EXECUTOR SCHEDULER CERTS JSON MATRIX NIGHT REPORT ISSUE MANIFESTS PORT DATA TRUST REFRESH ALLOW_UNLOCKED BENCH
TAKES_zoo := GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS LOCKED STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY JOBS EXECUTOR SCHEDULER CERTS MANIFESTS
TAKES_plan := GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS LOCKED STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY JOBS EXECUTOR SCHEDULER CERTS JSON MATRIX MANIFESTS
TAKES_nightly := GPU TRT MODELS PRECISION CALIBRATION LABELLED WEIGHTS LOCKED STORE KEYS SITE BASE_URL BUILDER BUILDER_PYTHON RETRY TIMEOUT MEMORY JOBS EXECUTOR SCHEDULER CERTS NIGHT REPORT ISSUE MANIFESTS
TAKES_lock := MODELS LOCKED UPGRADE MANIFESTS
TAKES_verify := MODELS STORE KEYS SITE BASE_URL BUILDER_PYTHON TIMEOUT MEMORY MANIFESTS TRUST
TAKES_catalog := STORE SITE BASE_URL MANIFESTS
TAKES_serve := STORE SITE BASE_URL MANIFESTS PORT
TAKES_prove := MODELS STORE KEYS SITE BASE_URL BUILDER_PYTHON TIMEOUT MEMORY MANIFESTS TRUST
TAKES_publish := STORE KEYS ISSUE REFRESH
TAKES_demo := GPU PRECISION STORE MANIFESTS DATA
TAKES_image := TRT ALLOW_UNLOCKED
TAKES_bench := BENCH
ARGS_zoo = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" $(if $(call yes,LOCKED),--locked) --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" $(if $(call yes,RETRY),--retry) --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --jobs "$(JOBS)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)"
ARGS_plan = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" $(if $(call yes,LOCKED),--locked) --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" $(if $(call yes,RETRY),--retry) --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --jobs "$(JOBS)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" $(if $(call yes,JSON),--json) $(if $(call yes,MATRIX),--matrix)
ARGS_nightly = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" $(if $(call yes,LOCKED),--locked) --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" $(if $(call yes,RETRY),--retry) --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --jobs "$(JOBS)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" --night "$(NIGHT)" --report "$(REPORT)" --issue "$(ISSUE)"
ARGS_lock = --models "$(MODELS)" $(if $(call yes,LOCKED),--locked) --upgrade "$(UPGRADE)"
ARGS_verify = --models "$(MODELS)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --base-url "$(BASE_URL)" --builder-python "$(BUILDER_PYTHON)" --timeout "$(TIMEOUT)" --memory "$(MEMORY)"
ARGS_catalog = --store "$(STORE)" --site "$(SITE)" --base-url "$(BASE_URL)"
define OPTIONS_HELP
  GPU             cpu, sm75, sm80, sm86, sm89, sm90, sm100, sm120, or a product such as rtx3080; separate several with commas (default: this machine's GPU, or cpu)
  TRT             rtx1.7, 11.4, 10.16, 10.13, 8.6; make plan accepts several (default: the installed TensorRT, or the version that supports the GPU)
  MODELS          ids, globs, families; separate several with commas (default: all)
  PRECISION       fp32, bf16, fp16, int8 (default: all that the manifest lists and the target supports)
  CALIBRATION     a folder of at least 32 photos, for bf16, fp16 and int8 (default: photos from the farm's packages)
  LABELLED        a folder of photos with one subfolder per class: adds a linear probe to the verdict (default: none)
  WEIGHTS         manifest, seeded (default: manifest)
  LOCKED          1: refuse weights that neither the manifest nor manifests.lock states; make lock then checks the lock without a network (default: off; always on for make nightly and MATRIX)
  UPGRADE         ids, globs, families whose locked weights make lock replaces with those that the hub has now; without MODELS, it asks about no others (default: none)
  STORE           a directory, s3://bucket/prefix (default: _repository; _repository-seeded for a dry run)
  KEYS            folder of the keys that sign the store (default: beside a local repository, created if missing)
  SITE            a directory (default: _site; _site-seeded for a dry run)
  BASE_URL        public URL of the repository, for the catalog's links and commands (default: repository/ beside the catalog's pages: a link to a local repository)
  BUILDER         builder options, such as optimization_level=5 (default: the runtime's defaults)
  BUILDER_PYTHON  the Python interpreter that builds and verifies (default: the farm's)
  RETRY           1: rebuild engines that are disabled: they missed tolerance or failed twice (default: off)
  TIMEOUT         time limit of a job in seconds (default: 3600)
  MEMORY          memory limit of a job in GiB (default: no limit)
  JOBS            exports at once; nothing else runs while an engine is measured (default: as many as cores and available memory allow, at most 8; 1 with another executor)
  EXECUTOR        docker: jobs run in containers; dask: on many machines (default: local)
  SCHEDULER       tls://host:8786: many machines (default: this machine)
  CERTS           folder of the cluster's certificates (default: $$ZOO_FARM_CERTS)
  JSON            1: print the whole plan as JSON (default: off)
  MATRIX          1: print the work as a GitHub matrix (default: off)
  NIGHT           name shared by the runs of one night (default: a new name)
  REPORT          JSON file for the night's results (default: _nightly/run.json)
  ISSUE           file for the text of an issue: title, blank line, body (default: _nightly/issue.md for make nightly)
  MANIFESTS       a directory (default: manifests)
  PORT            port of make serve (default: 8000)
  DATA            photos for make demo: a folder with one subfolder per class (default: photos from packages)
  TRUST           the repository's trusted root, for make verify (default: the root trusted earlier)
  REFRESH         1: make publish re-signs the timestamp even if nothing changed (default: off)
  ALLOW_UNLOCKED  1: allow make image on a base image without a locked digest (default: off)
  BENCH           full, quick, or sections that make bench measures again, such as pull,plan (default: full)
endef
