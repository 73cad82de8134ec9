# `make demo` and `make test` set everything up by themselves on a fresh Debian 12 or Ubuntu machine.
# Stamp files inside .venv remember what is installed, so a second call costs nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
PYTEST := $(VENV)/bin/python -m pytest
BASE := $(VENV)/.installed-base
DEVELOP := $(VENV)/.installed-develop
TOOLS := $(VENV)/.installed-tools
# The package index may not be asked for anything that the lock does not name with its hash.
INSTALL := $(PIP) install --require-hashes --only-binary=:all:
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links

# Importing and proving need PyTorch, and other versions than the box has: an environment of their own.
IMPORT_VENV := .venv-import
IMPORT := $(IMPORT_VENV)/.installed
IMPORT_LOCK := requirements-import.txt
# PyTorch's own index has the build for processors without a graphics card, unless a folder of wheels is named.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
UV := $(VENV)/bin/uv pip
CPU_TORCH := $(if $(UV_FIND_LINKS),,--torch-backend cpu)

.PHONY: help demo demo-hospital pictures test test-all test-fast accuracy bench lint generate lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BASE)  ## set up, send the built-in test patient through the DICOM port, print the findings
	$(VENV)/bin/appliance demo

# make demo-hospital SCANS="study.zip other/" sends these; KEEP=folder leaves database, logs and pictures there.
demo-hospital: $(TOOLS)  ## the box among its neighbours: Orthanc, mosquitto, a browser that acknowledges the alert
	$(VENV)/bin/python -m tests.hospital.demo $(if $(KEEP),--keep $(KEEP)) $(SCANS)

test: lint $(TOOLS)  ## set up, check the style and the types, run every test
	$(VENV)/bin/python tests/folders.py

# The importing and quantising tests skip in `make test` what needs PyTorch, nnU-Net or MONAI; here nothing is missing.
test-all: $(IMPORT)  ## run every test, and the proofs of importing and quantising (half an hour to an hour; Debian 12, x86-64)
	failed=; $(MAKE) test || failed=" test"; \
	for suite in tests/importing/ tests/quantising/; do \
	APPLIANCE_TEST_ALL=1 $(IMPORT_VENV)/bin/python -m pytest $$suite || failed="$$failed $$suite"; done; \
	if [[ -n $$failed ]]; then echo "failed:$$failed"; exit 1; fi

test-fast: $(DEVELOP)  ## run the tests that take no more than a few seconds each
	$(PYTEST) -x -q -m "not slow"

accuracy: $(DEVELOP)  ## measure the screenings on digital patients and on the real scans, write docs/accuracy.md
	$(VENV)/bin/python -m tests.accuracy

pictures: $(TOOLS)  ## make the manual's pictures of the alert board again, of the test patient
	$(VENV)/bin/python -m tests.board.pictures

# Where `make test-all` has made the environment of imports, networks are measured beside nnU-Net and PyTorch too.
bench: $(TOOLS)  ## measure ingest, screening and inference on this machine, print the tables
	for file in tests/benchmarks/bench_*.py; do \
	python=$(VENV)/bin/python; if [[ -f $(IMPORT) && $$file == *bench_@(import|quantised).py ]]; then python=$(IMPORT_VENV)/bin/python; fi; \
	$$python $$file; done

lint: $(DEVELOP)  ## ruff check, ruff format --check, mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

generate: $(DEVELOP)  ## write the files that are made from the code: configuration, its manual page, the schemas
	$(VENV)/bin/appliance config reference --format toml > provisioning/appliance.toml
	$(VENV)/bin/appliance config reference --format schema > provisioning/appliance.schema.json
	$(VENV)/bin/appliance config reference --format markdown > docs/configuration.md
	$(VENV)/bin/python -c "from appliance.health.schemas import write; write()"
	$(VENV)/bin/python -c "from appliance.packs.schema import write; write()"

lock: $(DEVELOP)  ## solve the dependencies again and write the hashed requirements files
	$(COMPILE) --upgrade --output-file requirements.txt pyproject.toml
	$(COMPILE) --upgrade --constraint requirements.txt --extra dev --output-file requirements-dev.txt pyproject.toml
	printf 'hatchling\neditables\nsetuptools\n' | $(COMPILE) --upgrade --constraint requirements-dev.txt --output-file requirements-build.txt -
	printf 'torchvision\n' > $(VENV)/unwanted.txt
	printf 'torch==2.13.0+cpu\n' > $(VENV)/cpu.txt
	$(filter-out --universal,$(COMPILE)) $(CPU_TORCH) --python-platform x86_64-manylinux_2_28 --upgrade \
	--excludes $(VENV)/unwanted.txt --constraint $(VENV)/cpu.txt --extra dev --extra import --extra proof \
	--output-file $(IMPORT_LOCK) pyproject.toml

clean:  ## remove everything that the other targets made
	rm -rf $(VENV) $(IMPORT_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	image-build/prepare-machine.sh venv $(VENV)

$(BASE): requirements.txt requirements-build.txt pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -r requirements-build.txt -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(DEVELOP): requirements-dev.txt $(BASE)
	$(INSTALL) -r requirements-dev.txt
	touch $@

# Some of nnU-Net's packages exist as source only; they are built with what requirements-build.txt names, nothing else.
$(IMPORT): $(IMPORT_LOCK) requirements-build.txt pyproject.toml $(DEVELOP)
	$(VENV)/bin/uv venv --quiet --clear --python 3.11 $(IMPORT_VENV)
	$(UV) install --quiet --python $(IMPORT_VENV) --no-deps --require-hashes -r requirements-build.txt
	$(UV) install --quiet --python $(IMPORT_VENV) --no-deps --require-hashes --no-build-isolation $(CPU_TORCH) \
	-r $(IMPORT_LOCK)
	$(UV) install --quiet --python $(IMPORT_VENV) --no-deps --no-build-isolation --editable .
	touch $@

$(TOOLS): image-build/prepare-machine.sh $(DEVELOP)
	image-build/prepare-machine.sh tools
	touch $@
