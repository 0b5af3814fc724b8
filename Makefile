# The one door. Every target does its own set-up in .venv; none needs root, but to start a Docker engine.
#
#   make demo    a rolling deploy over a local cluster, under load: the naive way, then drainctl's
#   make test    lint, types, and every test that this machine can carry
#   make compose-demo    the same over containers, by SSH and by the Docker engine
#   make lint types bench docs record soak base-image compose-images clean

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin
WORKERS ?= 4
# Debian keeps servers where a normal user's PATH does not look.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: compose-demo compose-images base-image demo test lint types bench docs record soak clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.lab: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; make PYTHON=python3.x"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) has no venv (Debian: apt install python3-venv)"; exit 2; }
	@echo "setting up $(VENV)"
	@$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@touch $@

$(VENV)/.dev: $(VENV)/.lab
	@$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[lab,dev]'
	@touch $@

$(VENV)/.docker: $(VENV)/.lab
	@$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[lab,docker]'
	@touch $@

demo: $(VENV)/.lab
	@$(RUN)/python -m drainctl.lab.demo

# These three start a Docker engine where none answers, as root; what is built stays in ~/.cache/drainctl.
compose-demo: $(VENV)/.docker
	@$(RUN)/python -m drainctl.lab.compose_demo

compose-images: $(VENV)/.docker
	@$(RUN)/python -m drainctl.lab.compose images

base-image: $(VENV)/.docker
	@$(RUN)/python -m drainctl.lab.compose base

test: lint types
	$(RUN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST)

lint: $(VENV)/.dev
	$(RUN)/ruff format --check --quiet .
	$(RUN)/ruff check --quiet .

types: $(VENV)/.dev
	$(RUN)/mypy

bench: $(VENV)/.dev
	@for bench in bench/*.py; do $(RUN)/python $$bench || exit 1; done

docs: $(VENV)/.dev
	$(RUN)/python -m drainctl.config.reference > docs/configuration.md
	$(RUN)/python -m drainctl.cli.reference > docs/commands.md
	$(RUN)/python -m drainctl.cli.man > docs/drainctl.1
	$(RUN)/python docs/record.py

# The demo's recording anew, and what README.md shows of it.
record: $(VENV)/.lab
	$(RUN)/python -m drainctl.lab.demo --dir /tmp/demo > docs/demo.new
	mv docs/demo.new docs/demo.txt
	$(RUN)/python docs/record.py

soak: $(VENV)/.dev
	DRAINCTL_SOAK=1 $(RUN)/python -m pytest -s tests/unit/test_roll.py tests/unit/test_schedules.py \
		tests/unit/test_schedules_at_once.py tests/faults tests/real tests/docker --timeout 3600

clean:
	rm -rf $(VENV) .lab dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
