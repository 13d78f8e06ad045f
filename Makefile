# A thin layer over zoo-farm and pytest. `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# Switches: on if 1, y or yes; off if empty, 0, n or no; anything else is an error.
yes = $(strip $(if $(filter-out 1 y yes 0 n no,$($1)),$(error $1=$($1) is neither 1 nor 0))$(filter 1 y yes,$($1)))

PORT ?= 8000
MANIFESTS ?= manifests

include options.mk

GIVEN := $(foreach v,$(filter-out MAKEFLAGS MFLAGS .%,$(.VARIABLES)),$(if $(filter command,$(origin $(v))),$(v)))
ifneq ($(filter-out $(KNOWN),$(GIVEN)),)
$(error no variable $(filter-out $(KNOWN),$(GIVEN)); there are $(KNOWN))
endif
# Each goal takes every variable that is given: none may look as if it applied to a goal that ignores it.
# Beside others, goals such as clean and lint need not, because nobody expects them to.
TARGETS := help zoo plan nightly lock verify prove demo bench test test-unit test-full test-docker test-ceph lint docs catalog serve publish wheel image audit sbom clean
GOALS   := $(filter $(TARGETS),$(or $(MAKECMDGOALS),help))
unused   = $(filter-out PYTHON $(TAKES_$1),$(GIVEN))
CHECKED := $(or $(strip $(foreach goal,$(GOALS),$(if $(TAKES_$(goal)),$(goal)))),$(GOALS))
REFUSED := $(strip $(foreach goal,$(CHECKED),$(if $(call unused,$(goal)),make $(goal) does not take $(call unused,$(goal));)))
ifneq ($(REFUSED),)
$(error $(if $(word 2,$(GOALS)),$(REFUSED) give each goal a make of its own,$(patsubst %;,%,$(REFUSED))))
endif

FARM = $(BIN)/zoo-farm --manifests "$(MANIFESTS)"

# The catalog offers the client's wheel. It is built from a copy, because setuptools writes beside its
# sources and several runs may build at once.
WHEEL := dist/.built
BUILD_WHEEL = copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -R zoo pyproject.toml README.md LICENSE "$$copy" \
  && $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$$copy/dist" "$$copy" \
  && mkdir -p dist && rm -f dist/*.whl && mv "$$copy"/dist/*.whl dist/ && touch $(WHEEL)

# Tools that look at the environment stay out of it.
AUDIT := _work/audit
TOOLS := cyclonedx-bom==7.5.0 pip-audit==2.10.1 pip-licenses==5.5.5
# A server of the tests, with more dependencies than all of them.
MOTO := _work/moto
# Lists what an empty environment holds after the wheel is installed with the extras that users need.
SBOM = made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(PYTHON) -m venv "$$made/venv" && wheel=$$(ls dist/*.whl) \
  && "$$made/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$wheel[arrow,caft,dask,onnxruntime,s3]" \
  && "$$made/venv/bin/python" -m pip uninstall --quiet --yes pip setuptools \
  && $(AUDIT)/bin/cyclonedx-py environment "$$made/venv" --output-reproducible -o "$${wheel%-py3-none-any.whl}.cdx.json" \
  && echo "SBOM: $${wheel%-py3-none-any.whl}.cdx.json"

.PHONY: $(TARGETS)

help: export VARIABLES_HELP := $(OPTIONS_HELP)
help:  ## List targets and variables
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "Variables; a variable that a target does not use is an error:"
	@printf '%s\n' "$$VARIABLES_HELP"

zoo: $(READY) $(WHEEL)  ## Build, verify and publish engines, then update the catalog
	@$(FARM) zoo $(ARGS_zoo)

plan: $(READY)  ## Show what make zoo would do, why, and what that requires; writes nothing (JSON=1, MATRIX=1)
	@$(FARM) plan $(ARGS_plan)

nightly: $(READY) $(WHEEL)  ## Run make zoo, report failures and regressions, and disable engines that failed in two nights (RETRY=1, ISSUE, REPORT)
	@$(FARM) nightly $(ARGS_nightly)

lock: $(READY)  ## Ask the hub about weights and write manifests.lock (MODELS, UPGRADE; LOCKED=1 only checks it)
	@$(FARM) lock $(ARGS_lock)

verify: $(READY)  ## Verify published engines that are pending for a GPU like this machine's (STORE; TRUST: the repository's root)
	@$(if $(TRUST),$(BIN)/zoo list --store "$(or $(STORE),_repository)" --trust "$(TRUST)" >/dev/null)
	@$(FARM) verify --pending $(ARGS_verify)

prove: verify  ## Deprecated name of make verify
	@echo "warning: make prove is now make verify; the old name will be removed in the next release" >&2

demo: $(READY)  ## Extract features once, train and evaluate a head, show times (DATA=folder for your own photos)
	@$(if $(DATA),$(BIN)/python -m examples.demo --data "$(DATA)" --check)
	@$(FARM) zoo --models efficientnet_lite0 --gpu "$(or $(GPU),cpu)" --precision "$(or $(PRECISION),fp32)" --store "$(or $(STORE),_repository)"
	@$(BIN)/python -m examples.demo --data "$(DATA)" --store "$(or $(STORE),_repository)"

bench: $(READY)  ## Measure this project beside its peers; write docs/results/bench.* and README's figures (BENCH=quick)
	@$(BIN)/python -m benchmarks $(or $(BENCH),full)

catalog: $(READY) $(WHEEL)  ## Write the catalog of a repository (STORE, SITE)
	@$(FARM) catalog $(ARGS_catalog)

serve: $(READY) $(WHEEL)  ## Write the catalog and serve it on http://127.0.0.1:8000 (STORE, SITE, PORT)
	@$(FARM) catalog $(ARGS_catalog) --serve "$(PORT)"

publish: $(READY)  ## Check proposed engines and sign them (STORE, KEYS; REFRESH=1: every night; ISSUE: file for an issue about regressions)
	@$(BIN)/zoo-farm publish --store "$(STORE)" --keys "$(KEYS)" --issue "$(ISSUE)" $(if $(call yes,REFRESH),--refresh)

wheel: $(READY)  ## Build the client's wheel into dist/
	@$(BUILD_WHEEL)

image: $(READY) $(AUDIT)/.ready  ## Build the image of a TensorRT line (TRT=11.4), or the one that exports, and its SBOM in dist/
	@$(BIN)/zoo-farm image --trt "$(TRT)" --cyclonedx $(AUDIT)/bin/cyclonedx-py $(if $(call yes,ALLOW_UNLOCKED),--allow-unlocked)

audit: $(READY) $(AUDIT)/.ready  ## Check the licences of all dependencies, and look for published advisories (needs a network)
	@$(AUDIT)/bin/pip-licenses --python "$(BIN)/python" --format csv >/dev/null
	@$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

sbom: $(WHEEL) $(AUDIT)/.ready  ## Write an SBOM (CycloneDX) of the client's wheel and its extras into dist/
	@$(SBOM)

test: $(READY)  ## Run all tests but those that take minutes or containers
	@$(BIN)/python -m pytest -m "not full and not docker and not ceph" -n 4 --dist loadfile --no-loadscope-reorder --durations 15

test-unit: $(READY)  ## Run the unit tests: no server, browser, export or network
	@$(BIN)/python -m pytest tests/unit -n 2 --dist worksteal

test-docker: $(READY)  ## Test builds in containers, on a separate Docker engine (root; Debian: docker.io, mmdebstrap)
	@$(BIN)/python -m pytest -m docker tests/integration/executors/test_docker.py

test-ceph: $(READY) $(MOTO)/.ready  ## Test how the store judges Ceph's S3 gateway and moto (Debian: radosgw, ceph-mon, ceph-osd)
	@PATH="$$PWD/$(MOTO)/bin:$$PATH" $(BIN)/python -m pytest -m ceph tests/integration/stores/test_other_s3.py

test-full: $(READY)  ## Run the tests that take minutes: models of the mission through a fake hub, int8, kills
	@$(BIN)/python -m pytest -m full -n 2 --dist loadgroup --durations 5

docs: $(READY)  ## Build the documentation's site in _docs; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean && echo "documentation: _docs/index.html"

lint: $(READY)  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:  ## Remove the environment and files of tools; keep repositories and sites
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info builders/*.egg-info _failures _screenshots
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(WHEEL): $(READY) $(shell find zoo -type f ! -name '*.pyc') README.md LICENSE
	@$(BUILD_WHEEL) || echo "warning: no wheel of the client could be built; the catalog's pages will name the package index" >&2

$(AUDIT)/.ready: Makefile
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check $(TOOLS)
	@touch $@

$(MOTO)/.ready: Makefile
	@$(PYTHON) -m venv --clear $(MOTO)
	@$(MOTO)/bin/python -m pip install --quiet --disable-pip-version-check 'moto[s3,server]==5.2.5'
	@touch $@

# torch's default build includes CUDA; the farm needs only the CPU build. pip installs whichever
# build of the pinned version its index offers: see docs/explanation/farm.md.
$(READY): pyproject.toml builders/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: the farm needs Python 3.11 or later; name one with PYTHON="; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[farm,test]' -e builders
	@touch $@
