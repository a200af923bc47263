# MixLoc from the command line. Needs git, make and Python 3.11 or later; everything else goes into .venv on first use.
#
#   make demo     the default experiment, ends with the path of its report       make lint     formatting and style checks
#   make test     the tests                                                      make format   apply the formatting
#   make docs     the documentation as a site, in site/; a dead link is an error
#   make config-docs   the JSON schema and the tables of settings, from the models of the config
#   make pictures the pictures of README.md and docs/ from results/demo (needs Chromium or Chrome)
#   make new FOLDER=yeast/images   a first config for your own images, guessed and asked
#   make licences the table of dependencies and their licences, docs/licences.md
#   make sbom     software bill of materials (CycloneDX) of what is installed, in sbom.json
#   make audit    known vulnerabilities of what constraints.txt pins; asks an advisory service
#   make clean    remove caches (results and .venv stay)                         make help     this list
#   make test-slurm   the tests on a SLURM cluster of three nodes (root; Debian: slurmctld slurmd slurm-client munge)
#
# All paths are relative, so that the folder may have any name. To choose the interpreter: make PYTHON=/path/to/python3.12

SHELL := /bin/sh
CORES ?= all
PYTHON ?=
PYTEST_ARGS ?=
FOLDER ?= .
ARGS ?=

# uv installs several times faster than pip, where it is there. To do without: make UV=
UV := $(shell command -v uv 2>/dev/null)
INSTALL = $(if $(UV),"$(UV)" pip install --python .venv/bin/python,.venv/bin/python -m pip install --disable-pip-version-check)

# Jobs call `python`: the one in .venv must come first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Settings of another environment must not reach into this one.
unexport PYTHONHOME PYTHONPATH

SNAKEFILES = Snakefile workflow rules

.DEFAULT_GOAL := help
.PHONY: help demo new test test-slurm lint format docs config-docs pictures licences sbom audit clean

help:
	@sed -n '3,13s/^# *//p' Makefile

demo: .venv/installed
	.venv/bin/snakemake --cores $(CORES)
	@echo "The report: $$(.venv/bin/python -c 'import yaml; print("results/" + yaml.safe_load(open("config.yaml"))["run"] + "/report.html")')"

# Answers by flags: make new FOLDER=yeast/images ARGS='--protein gfp --yes'
new: .venv/installed
	@.venv/bin/python -m workflow_scripts.start "$(FOLDER)" $(ARGS)

test: .venv/installed-dev
	.venv/bin/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

test-slurm: .venv/installed-dev
	.venv/bin/python -m pytest $(addprefix tests/slurm/test_,slurm.py nodes.py engines.py) $(PYTEST_ARGS)

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check $(SNAKEFILES)
	.venv/bin/snakemake --lint

format: .venv/installed-dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/snakefmt $(SNAKEFILES)

docs: .venv/installed-docs
	@# With --quiet warnings would not count. The variable silences a notice of the theme.
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict
	@echo "The documentation: site/index.html"

config-docs: .venv/installed
	.venv/bin/python -m workflow_scripts.lib.config.document

pictures: .venv/installed
	.venv/bin/python -m docs.pictures.make

licences: .venv/installed
	.venv/bin/python -m docs.licences

# From an environment of their own, so that .venv holds nothing but what it must.
sbom: .venv/installed .venv-audit/installed
	.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json .venv/bin/python
	@echo "The bill of materials: sbom.json"

# Strict: a package that the service does not know is a failure, not a package without vulnerabilities.
audit: .venv-audit/installed
	@.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt || \
	    { echo "MixLoc: the audit found something, or could not ask the advisory service (see above)" >&2; exit 1; }

clean:
	rm -rf .pytest_cache .ruff_cache site
	find . -path ./.venv -prune -o -path ./results -prune -o -type d -name __pycache__ -exec rm -rf {} +

# The first interpreter that is new enough and can make environments. At first those below 3.14 are looked at, for which
# every requirement has a built wheel or needs no compiler.
.venv/bin/python:
	@for below in 14 99; do without=; \
	    for candidate in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.14 python); do \
	        "$$candidate" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, $$below))" >/dev/null 2>&1 || continue; \
	        if ! "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then without="$$without $$candidate"; continue; fi; \
	        echo "Making .venv with $$("$$candidate" --version) ($$candidate)"; \
	        rm -rf .venv; "$$candidate" -m venv .venv && exit 0; \
	    done; \
	done; \
	if [ -n "$$without" ]; then \
	    echo "MixLoc: no venv module in$$without. On Debian and Ubuntu: apt install python3-venv" >&2; \
	else \
	    echo "MixLoc needs Python 3.11 or later; found: $$("$(or $(PYTHON),python3)" --version 2>/dev/null || echo none)." \
	        "Give another one by make PYTHON=/path/to/python3.12" >&2; \
	fi; exit 1

# Stamps: an edited requirements file installs again. The interpreter is order-only, as its date says nothing.
.venv/installed: requirements.txt constraints.txt | .venv/bin/python
	@echo "Installing the pinned requirements into .venv (once; about 1.5 GB with the CPU build of torch)"
	@# An environment whose making was interrupted may lack pip.
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip
	$(INSTALL) -r requirements.txt -c constraints.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(INSTALL) -r requirements-dev.txt -c constraints.txt
	@touch $@

.venv/installed-docs: requirements-docs.txt .venv/installed
	$(INSTALL) -r requirements-docs.txt -c constraints.txt
	@touch $@

.venv-audit/installed: requirements-audit.txt | .venv/bin/python
	.venv/bin/python -m venv .venv-audit
	.venv-audit/bin/python -m pip install --disable-pip-version-check -r requirements-audit.txt
	@touch $@
