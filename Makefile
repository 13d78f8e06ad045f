# Thin: the work is in zoo-farm and pytest. `make help` lists what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Switches: on when 1, y or yes; off when empty, 0, n or no; anything else is an error.
yes = $(strip $(if $(filter-out 1 y yes 0 n no,$($1)),$(error $1=$($1) is neither 1 nor 0))$(filter 1 y yes,$($1)))

GPU ?=
TRT ?=
MODELS ?=
PRECISION ?=
CALIBRATION ?=
WEIGHTS ?=
STORE ?=
KEYS ?=
SITE ?=
BASE_URL ?=
PORT ?= 8000
MANIFESTS ?= manifests
BUILDER ?=
TRUST ?=
BUILDER_PYTHON ?=
TIMEOUT ?=
MEMORY ?=
EXECUTOR ?=
SCHEDULER ?=
CERTS ?=
DATA ?=
ALLOW_UNLOCKED ?=

JSON ?=
MATRIX ?=
RETRY ?=
REPORT ?=
ISSUE ?=
REFRESH ?=
LABELLED ?=

KNOWN := PYTHON GPU TRT MODELS PRECISION CALIBRATION WEIGHTS STORE KEYS SITE BASE_URL PORT MANIFESTS BUILDER BUILDER_PYTHON TIMEOUT MEMORY DATA ALLOW_UNLOCKED EXECUTOR SCHEDULER CERTS \
  LABELLED JSON MATRIX RETRY NIGHT REPORT ISSUE REFRESH TRUST
GIVEN := $(foreach v,$(filter-out MAKEFLAGS MFLAGS .%,$(.VARIABLES)),$(if $(filter command,$(origin $(v))),$(v)))
ifneq ($(filter-out $(KNOWN),$(GIVEN)),)
$(error no variable $(filter-out $(KNOWN),$(GIVEN)); there are $(KNOWN))
endif

WISH = --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" --precision "$(PRECISION)" --calibration "$(CALIBRATION)" \
  --weights "$(WEIGHTS)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)"

.PHONY: help zoo plan nightly prove demo test test-full test-docker lint catalog serve publish wheel image clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "make zoo takes, all optional (make catalog: STORE, SITE and BASE_URL):"
	@echo "  GPU        cpu, sm75, sm80, sm86, sm89, sm90, sm100, sm120; several with commas (default: this machine's, else cpu)"
	@echo "  TRT        rtx1.7, 11.4, 10.16, 10.13, 8.6 (default: what serves the GPU); zoo-farm targets has the table"
	@echo "  MODELS     names, globs, families, with commas (default: all)"
	@echo "  PRECISION  fp32, bf16, fp16, int8 (default: all that the manifest and the target take)"
	@echo "  CALIBRATION  folder of 32 photos or more, for fp16 and int8 (default: photos of the packages)"
	@echo "  LABELLED   a folder with a folder of 5 photos or more for each class: what a precision costs a linear probe is a part of the verdict"
	@echo "  WEIGHTS    manifest, or seeded for a dry run (default: manifest)"
	@echo "  STORE      repository (default: _repository, or _repository-seeded for a dry run)"
	@echo "  KEYS       folder of the keys that sign it (default: made beside a local one)"
	@echo "  SITE       catalog (default: _site, or _site-seeded for a dry run)"
	@echo "  BASE_URL   where readers find the repository on the web: the pages then link to it"
	@echo "  ALLOW_UNLOCKED  yes: make image on a base whose digest is not locked yet"
	@echo "  PORT       of make serve (default: 8000)"
	@echo "  MANIFESTS  folder of manifests (default: manifests)"
	@echo "  BUILDER    builder options, NAME=VALUE, several with commas (default: the runtime's own)"
	@echo "  BUILDER_PYTHON  the Python that builds and verifies, where it is not the farm's"
	@echo "  JSON, MATRIX  make plan: for machines, as JSON or as a GitHub matrix; its TRT takes several"
	@echo "  RETRY      1 to try again what is disabled: it missed its floors, or failed in two nights"
	@echo "  REPORT     make nightly: its files, and ISSUE (default: in _nightly); NIGHT: a name that its runs on several machines share"
	@echo "  DATA       make demo: a folder with a folder of photos for each class"
	@echo "  TIMEOUT    seconds that a job may take (default: 3600)"
	@echo "  MEMORY     GiB of memory that a job may have (default: no limit)"
	@echo "  EXECUTOR   local, docker (in the images that make image makes), or dask: jobs run on the cluster of SCHEDULER=tls://host:8786, CERTS=folder (docs/explanation/farm.md)"

zoo: $(READY)  ## Build, prove and publish engines, then make the catalog
	@$(BIN)/zoo-farm --manifests "$(MANIFESTS)" zoo --gpu "$(GPU)" --trt "$(TRT)" --models "$(MODELS)" \
	  --precision "$(PRECISION)" --calibration "$(CALIBRATION)" --labelled "$(LABELLED)" --weights "$(WEIGHTS)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" \
	  --base-url "$(BASE_URL)" --builder "$(BUILDER)" --builder-python "$(BUILDER_PYTHON)" --timeout "$(TIMEOUT)" --memory "$(MEMORY)" \
	  --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" $(if $(call yes,RETRY),--retry)

plan: $(READY)  ## Say what make zoo would do and why, and what that takes; nothing is done (JSON=1, MATRIX=1)
	@$(BIN)/zoo-farm --manifests "$(MANIFESTS)" plan $(WISH) --store "$(STORE)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" $(if $(call yes,JSON),--json) $(if $(call yes,MATRIX),--matrix)

nightly: $(READY)  ## As make zoo; then says what failed or became worse, and disables what failed in two nights (RETRY=1, ISSUE, REPORT)
	@$(BIN)/zoo-farm --manifests "$(MANIFESTS)" nightly $(WISH) --labelled "$(LABELLED)" --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" \
	  --base-url "$(BASE_URL)" --timeout "$(TIMEOUT)" --memory "$(MEMORY)" --executor "$(EXECUTOR)" --scheduler "$(SCHEDULER)" --certs "$(CERTS)" \
	  --night "$(NIGHT)" --report "$(REPORT)" --issue "$(ISSUE)" $(if $(call yes,RETRY),--retry)

prove: $(READY)  ## Run published engines that wait for a GPU such as this machine's (STORE; TRUST: the repository's root)
	@$(if $(TRUST),$(BIN)/zoo list --store "$(STORE)" --trust "$(TRUST)" >/dev/null)
	@$(BIN)/zoo-farm --manifests "$(MANIFESTS)" verify --pending --store "$(STORE)" --keys "$(KEYS)" --site "$(SITE)" --builder-python "$(BUILDER_PYTHON)"

demo: $(READY)  ## Features once, a head on them, accuracy and times (DATA=folder for your own photos)
	@$(MAKE) --no-print-directory zoo MODELS=efficientnet_lite0 GPU="$(or $(GPU),cpu)" PRECISION="$(or $(PRECISION),fp32)" \
	  STORE="$(or $(STORE),_repository)"
	@$(BIN)/python -m builders.demo --data "$(DATA)" --store "$(or $(STORE),_repository)"

catalog: $(READY)  ## Make the catalog from a repository (STORE, SITE)
	@$(BIN)/zoo-farm --manifests "$(MANIFESTS)" catalog --store "$(STORE)" --site "$(SITE)" --base-url "$(BASE_URL)"

serve: $(READY)  ## Make the catalog and show it on http://127.0.0.1:8000 (STORE, SITE, PORT)
	@$(BIN)/zoo-farm --manifests "$(MANIFESTS)" catalog --store "$(STORE)" --site "$(SITE)" --base-url "$(BASE_URL)" --serve "$(PORT)"

publish: $(READY)  ## Check what builders left, and sign it (STORE, KEYS; REFRESH=1: every night; ISSUE: tell what became worse)
	@$(BIN)/zoo-farm publish --store "$(STORE)" --keys "$(KEYS)" --issue "$(ISSUE)" $(if $(call yes,REFRESH),--refresh)

wheel: $(READY)  ## Build the client's wheel into dist/
	@rm -rf build dist
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

image: $(READY)  ## Build the container of a TensorRT line (TRT=11.4), or the export's
	@$(BIN)/zoo-farm image --trt "$(TRT)" $(if $(call yes,ALLOW_UNLOCKED),--allow-unlocked)

test: $(READY)  ## Run the tests, the full zoo aside
	@$(BIN)/python -m pytest -m "not full and not docker" -n 2 --dist loadfile --durations 15

test-docker: $(READY)  ## Run builds in containers, on a Docker engine of its own (root; Debian: docker.io, mmdebstrap)
	@$(BIN)/python -m pytest -m docker tests/test_docker.py

test-full: $(READY)  ## Run the full zoo through a fake hub (long)
	@$(BIN)/python -m pytest -m full --durations 5

lint: $(READY)  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:  ## Remove the environment and what tools leave; repositories and sites stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info builders/*.egg-info _failures _screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch's default build elsewhere brings CUDA; the farm needs only the CPU's. pip takes whichever
# build of the pinned version its index offers: see docs/explanation/farm.md.
$(READY): pyproject.toml builders/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: the farm needs Python 3.11 or later; name one with PYTHON="; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[farm,test]' -e builders
	@touch $@
