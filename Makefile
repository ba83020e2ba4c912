# Everything starts here; `make` alone prints the help, taken from the ## comments.
# Runs with GNU make 3.81 and newer. Paths are relative, so the checkout may lie anywhere.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9
# Not exported: given on the command line or in the environment it reaches Genonaut by itself,
# and left alone it must not overrule env/.env.
FLOWER_ACTIVE ?= true
REPEAT ?= 1
JOBS ?= 3
BENCH ?=
MINUTES ?= 5
SEED ?=
ARGS ?=
FILE ?=
CONFIRM ?=
ONCE ?=

VENV := .venv
PY := $(VENV)/bin/python
GENONAUT := $(PY) -m genonaut
READY := $(VENV)/.ready
is_yes = $(filter 1 yes true on,$(1))

.PHONY: help
help: ## Print this help
	@echo "make TARGET; ENV is dev, test or demo"
	@awk -F ':.*## ' '/^[a-z][a-z-]*(\$$\(1\))?:.*## / { target = $$1; sub(/\$$\(1\)/, "ENV", target); \
		printf "  %-18s %s\n", target, $$2 }' Makefile
	@echo "Set-up happens by itself. FLOWER_ACTIVE=$(FLOWER_ACTIVE) PYTHON=$(PYTHON)"

.PHONY: demo
demo: $(READY) ## Draw three pictures before your eyes, then run on; ONCE=1 ends after them
	@$(GENONAUT) demo $(if $(call is_yes,$(ONCE)),--once)

.PHONY: test
test: $(READY) ## Run all but the slow tests, three at a time; JOBS=1 for one; ARGS="-k name"
	@$(PY) -m pytest -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

.PHONY: test-reliability
test-reliability: $(READY) ## Kill, freeze and flush things and see that nothing is lost; REPEAT=n
	@n=0; while [ $$n -lt $(REPEAT) ]; do n=$$((n + 1)); \
		if [ $(REPEAT) -gt 1 ]; then echo "Run $$n of $(REPEAT)"; fi; \
		$(PY) -m pytest tests/reliability -n $(JOBS) --dist worksteal $(ARGS) || exit 1; \
	done

.PHONY: test-commands
test-commands: $(READY) ## Start, break and end whole platforms as operators do
	@$(PY) -m pytest tests/cli -m slow -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: soak
soak: $(READY) ## Break everything for MINUTES=5 while work comes in; SEED=n does it again
	@$(PY) -m tests.reliability.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: lint
lint: $(READY) ## Check format, style, types, layers and dependencies
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m deptry .

.PHONY: check
check: ## Lint, then test: what must be green before a commit
	@$(MAKE) lint
	@$(MAKE) test

.PHONY: bench
bench: $(READY) ## Measure against a peer or floor and print the table; BENCH=name for one
	@$(PY) benchmarks/run.py $(BENCH)

.PHONY: docs
docs: $(READY) ## Write docs/tasks.md from the tasks
	@$(PY) -m genonaut.worker.handbook

.PHONY: screenshots
screenshots: $(READY) ## Take every page in Chromium, light and dark, into docs/screenshots
	@$(PY) -m pytest -q tests/browser/take_screenshots.py

.PHONY: clean
clean: ## Remove caches and build output; never data, nor .venv
	@rm -rf dist build .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
		.ruff_cache .schemathesis
	@find genonaut tests benchmarks migrations -type d -name __pycache__ -prune \
		-exec rm -rf {} + 2>/dev/null || :

# One function makes the targets of one environment.
define environment
.PHONY: up-$(1) api-$(1) celery-$(1) beat-$(1) flower-$(1) migrate-$(1)
.PHONY: redis-keys-$(1) redis-info-$(1) redis-flush-$(1) backup-$(1) restore-$(1)

up-$(1): $(READY) ## Start servers, API, workers, beat and Flower (not with FLOWER_ACTIVE=false)
	@$(GENONAUT) up --env $(1)

api-$(1): $(READY) ## The same, open to other machines on API_PORT (8001); dev reloads on change
	@$(GENONAUT) up --env $(1) --host 0.0.0.0$(if $(filter dev,$(1)), --reload)

celery-$(1): $(READY) ## Start the workers alone
	@$(GENONAUT) up --env $(1) --only workers

beat-$(1): $(READY) ## Start beat, which rings the schedules, alone
	@$(GENONAUT) up --env $(1) --only beat

flower-$(1): $(READY) ## Start Flower, the queue dashboard, alone
	@$(GENONAUT) up --env $(1) --only flower

migrate-$(1): $(READY) ## Bring the database to the newest version
	@$(GENONAUT) db upgrade --env $(1)

redis-keys-$(1): $(READY) ## List the environment's keys
	@$(GENONAUT) redis keys --env $(1)

redis-info-$(1): $(READY) ## Show memory, policy and counts
	@$(GENONAUT) redis info --env $(1)

redis-flush-$(1): $(READY) ## Empty the environment's own Redis database; CONFIRM=yes unless dev
	@$(GENONAUT) redis flush --env $(1)$$(if $$(call is_yes,$$(CONFIRM)), --yes)

backup-$(1): $(READY) ## Save database and pictures to one file
	@$(GENONAUT) db backup --env $(1)

restore-$(1): $(READY) ## Bring a backup back; FILE=path
	@if [ -z "$$(FILE)" ]; then echo "Say which: make restore-$(1) FILE=path" >&2; exit 2; fi
	@$(GENONAUT) db restore --env $(1) "$$(FILE)"
endef

$(foreach name,dev test demo,$(eval $(call environment,$(name))))

.PHONY: setup
setup: $(READY) ## Install the locked packages into .venv; every target does it when needed
	@:

# A uv that is new enough is used; else a pinned one is installed into .venv first.
$(READY): pyproject.toml uv.lock
	@unset VIRTUAL_ENV; say() { echo "$$1" >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| say "Genonaut needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make setup PYTHON=python3.12"; \
	echo "Setting up $(VENV); the first time this takes a minute or so"; \
	if uv --version 2>/dev/null | awk '{ split($$2, v, "."); ok = v[1] > 0 || v[2] >= 9 } END { exit !ok }'; then \
		uv=uv; \
	else \
		uv=$(VENV)/bin/uv; \
		{ $(PY) -m pip --version || $(PY) -m ensurepip; } >/dev/null 2>&1 \
			|| $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
			|| say "'$(PYTHON) -m venv' fails; install the package python3-venv (or uv) and try again"; \
		"$$uv" --version 2>/dev/null | grep -q "^uv $(UV_VERSION)" \
			|| $(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) \
			|| say "pip could not install uv $(UV_VERSION); is there a network?"; \
	fi; \
	UV_PROJECT_ENVIRONMENT=$(VENV) "$$uv" sync --frozen --inexact --compile-bytecode --quiet \
		$$(test -x $(PY) || echo --python "$(PYTHON)") \
		|| say "uv could not install the packages; the lines above say why"; \
	$(PY) -m compileall -q genonaut; \
	touch $(READY)
