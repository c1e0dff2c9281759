# Everything a person or CI does here. `make help` lists it.
# Needs Python >= 3.11 and make; all else is installed below .venv and .cache, or said to be missing.

.DEFAULT_GOAL := help
# Only what has nothing to do with each other is made side by side: what the tests need.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
.DELETE_ON_ERROR:
SHELL := /bin/bash -eu -o pipefail

# The newest Python we test with; `make PYTHON=/path/to/python3.12 …` overrides.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
# Tests and the fleet start hundreds of processes of ours: each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
ARGS ?=
UV := .cache/uv/bin/uv
# What the demo, the local fleet and the tests start is found on the PATH.
WITH_SERVERS := PATH="$(CURDIR)/$(BIN):$(CURDIR)/.cache/servers/bin:$(CURDIR)/.cache/node/node_modules/.bin:$$PATH"
# Make knows where it put `mcpfleet`; the shell that a person types in does not.
SHELL_FIRST := 'Once per shell, so that it finds mcpfleet: export PATH=$(CURDIR)/$(BIN):$(CURDIR)/.cache/servers/bin:$$PATH'
PIP := .cache/uv/bin/python -m pip
PIP_INSTALL := install --quiet --disable-pip-version-check --no-input --no-deps

.PHONY: help setup servers node postgres machines prometheus browser screenshots agents model-server vps-image vps-demo test test-live test-model chaos check lint types imports
.PHONY: demo agents-demo alerts-demo up bench agents-bench heartbeats sim conformance wheelhouse ansible-tools ansible-check lock docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- environments

# uv installs a lock in a twentieth of pip's time. Where it cannot reach its index, pip is asked,
# which knows the mirrors of pip.conf (uv's are in UV_DEFAULT_INDEX).
$(UV): requirements/uv.txt | .python-is-there
	@$(PYTHON) -m venv --clear .cache/uv
	@$(PIP) $(PIP_INSTALL) --require-hashes -r requirements/uv.txt
	@touch $@

# The SDK's wheel brings a whole Claude Code of its own, 365 MB; from its source, which the locks demand, it does
# not. llama.cpp has no wheel. What builds them is in their locks: uv installs it before what is built with it.
FROM_SOURCE := --no-build-isolation-package claude-agent-sdk --no-build-isolation-package llama-cpp-python

# $(call environment,FOLDER,LOCK): a new virtual environment with what the lock says.
define environment
	@$(PYTHON) -m venv --clear --without-pip $(1)
	@$(UV) pip install --quiet --compile-bytecode --python $(1)/bin/python --no-deps --require-hashes \
		$(FROM_SOURCE) -r $(2) \
		|| { echo "uv could not install $(2); asking pip" >&2; $(PIP) --python $(1)/bin/python $(PIP_INSTALL) --require-hashes -r $(2); }
endef

setup: .venv/.setup ## make .venv from the locked requirements; quick the second time

.venv/.setup: requirements/dev.txt pyproject.toml | $(UV)
	@echo "setup: .venv with $$($(PYTHON) --version), from requirements/dev.txt"
	$(call environment,.venv,requirements/dev.txt)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: .python-is-there
.python-is-there:
	@if [ -z "$(PYTHON)" ]; then \
		echo "mcpfleet needs Python 3.11 or newer with its venv module." >&2; \
		echo "Here: $$(python3 --version 2>&1 || true)." >&2; \
		echo "Debian and Ubuntu: apt-get install python3 python3-venv. Else: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi

servers: .cache/servers/.setup ## MCP servers from PyPI that we did not write, in an environment of their own

.cache/servers/.setup: requirements/demo-servers.txt | $(UV)
	@echo "servers: mcp-server-time, -git, -fetch into .cache/servers"
	$(call environment,.cache/servers,requirements/demo-servers.txt)
	@touch $@

node: ## MCP servers from npm, where Node.js is there
	@if command -v npm >/dev/null && command -v node >/dev/null; then \
		$(MAKE) --no-print-directory .cache/node/.setup \
			|| echo "node: npm could not install its servers; going on without filesystem and everything" >&2; \
		$(MAKE) --no-print-directory .cache/oidc/.setup \
			|| echo "node: npm could not install oidc-provider; its tests will be skipped" >&2; \
	else \
		echo "node: no Node.js here; going on without filesystem and everything" >&2; \
	fi

.cache/node/.setup: deploy/demo/package.json deploy/demo/package-lock.json
	@echo "node: server-filesystem and server-everything into .cache/node"
	@mkdir -p .cache/node
	@cp deploy/demo/package.json deploy/demo/package-lock.json .cache/node/
	@cd .cache/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.cache/oidc/.setup: tests/oidc/package.json tests/oidc/package-lock.json
	@echo "node: oidc-provider, an OpenID server for tests, into .cache/oidc"
	@mkdir -p .cache/oidc
	@cp tests/oidc/package.json tests/oidc/package-lock.json .cache/oidc/
	@cd .cache/oidc && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# 370 MB, and opencode 177 MB (60 MB to fetch). Claude Code's licence lets nobody pass it on, so whoever runs it gets
# it from npm.
agents: | machines ## Claude Code, opencode and their sandbox (bubblewrap), for nodes and tests that run agents
	@command -v bwrap >/dev/null || $(MAKE) --no-print-directory .install-bubblewrap
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory .cache/agents/.setup \
			|| echo "agents: npm could not install Claude Code and opencode; their tests will be skipped" >&2; \
	else \
		echo "agents: no Node.js here; the tests of Claude Code and opencode will be skipped" >&2; \
	fi

.PHONY: .install-bubblewrap
.install-bubblewrap:
	$(call apt,agents,bubblewrap,no agent can be run)

.cache/agents/.setup: deploy/agents/package.json deploy/agents/package-lock.json
	@echo "agents: Claude Code and opencode into .cache/agents"
	@mkdir -p .cache/agents
	@cp deploy/agents/package.json deploy/agents/package-lock.json .cache/agents/
	@cd .cache/agents && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# From source, minutes of CPU, so it is no part of what `make test` sets up. Only what a model of half a megabyte needs:
# without vision, without code for large matrices, hardly optimised; and for any processor of this kind, as caches move.
model-server: .cache/model-server/.setup ## llama.cpp's server, built from source (minutes), for `make test-model`

.cache/model-server/.setup: export CMAKE_ARGS := -DGGML_NATIVE=OFF -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF \
	-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/deploy/model-server/lean.cmake
.cache/model-server/.setup: requirements/model-server.txt deploy/model-server/lean.cmake | $(UV)
	@command -v c++ >/dev/null || { echo "model-server: no C++ compiler (apt-get install g++)" >&2; exit 1; }
	@echo "model-server: llama.cpp's server into .cache/model-server; some minutes"
	$(call environment,.cache/model-server,requirements/model-server.txt)
	@touch $@

# Only what apt can give to root: without it the PostgreSQL half of the ledger's suite is skipped, loudly.
# No cluster is made or started: the tests make their own and throw it away.
postgres: ## PostgreSQL for the tests, where we are root and apt is there
	@if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "postgres: apt-get install postgresql"; \
		( export DEBIAN_FRONTEND=noninteractive; apt-get update -qq \
			&& apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null \
			&& sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
			&& apt-get install -y -qq --no-install-recommends postgresql >/dev/null ) \
			|| echo "postgres: apt-get failed; its tests will be skipped" >&2; \
	else \
		echo "postgres: not installed, and this is not root with apt; its tests will be skipped" >&2; \
	fi

# $(call apt,WHAT,PACKAGES,WITHOUT): as root with apt, or says what is done without.
define apt
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "$(1): apt-get install $(2)"; \
		( export DEBIAN_FRONTEND=noninteractive; apt-get update -qq \
			&& apt-get install -y -qq --no-install-recommends $(2) >/dev/null ) || echo "$(1): apt-get failed; $(3)" >&2; \
	else \
		echo "$(1): not root with apt; $(3)" >&2; \
	fi
endef

# For the tests of rules and dashboards, in which a real one scrapes a fleet; nothing of it is started here.
prometheus: .cache/.prometheus ## Prometheus, its tools and a node exporter for the tests, where we are root and apt is there

.cache/.prometheus: | machines
	@mkdir -p .cache
	@if command -v prometheus >/dev/null && command -v promtool >/dev/null && command -v amtool >/dev/null \
		&& command -v prometheus-node-exporter >/dev/null; then :; \
	else $(MAKE) --no-print-directory .install-prometheus; fi
	@! command -v promtool >/dev/null || touch $@

.PHONY: .install-prometheus
.install-prometheus: export RUNLEVEL := 1
.install-prometheus:
	@if [ "$$(id -u)" = 0 ] && [ ! -e /usr/sbin/policy-rc.d ]; then \
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; touch .cache/.policy-is-ours; fi
	$(call apt,prometheus,prometheus prometheus-alertmanager prometheus-node-exporter,tests of rules and dashboards will be skipped)
	@if [ -e .cache/.policy-is-ours ]; then rm -f /usr/sbin/policy-rc.d .cache/.policy-is-ours; fi

# After the other ones that ask apt.
browser: | .cache/.prometheus ## Chromium for the tests of the console, where we are root and apt is there
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then :; \
	else $(MAKE) --no-print-directory .install-browser; fi

.PHONY: .install-browser
.install-browser:
	$(call apt,browser,chromium fonts-dejavu-core,the tests of the console in a browser will be skipped)

screenshots: setup browser ## the console's pictures in docs/console, taken by its tests
	@rm -rf .cache/screenshots
	@$(WITH_SERVERS) MCPFLEET_SHOTS_DIR=.cache/screenshots $(BIN)/python -m pytest -p no:xdist --live-required tests/browser $(ARGS)
	@$(BIN)/python -m tests.browser.shrink .cache/screenshots docs/console

# A machine here is a container with an init; nothing of it starts by itself.
machines: .cache/.machines ## what booting machines on this host needs, where we are root and apt is there

# After the other one that asks apt: two at once refuse each other.
.cache/.machines: | postgres
	@mkdir -p .cache
	@if command -v systemd-nspawn >/dev/null && command -v busybox >/dev/null && command -v ip >/dev/null; then :; \
	else $(MAKE) --no-print-directory .install-machines; fi
	@! command -v systemd-nspawn >/dev/null || touch $@

.PHONY: .install-machines .install-mmdebstrap .install-debootstrap
.install-machines:
	$(call apt,machines,systemd-container busybox-static iproute2 openssh-client,tests that boot machines will be skipped)

.install-mmdebstrap:
	$(call apt,vps-image,mmdebstrap,no image can be made)

.install-debootstrap:
	$(call apt,ansible-check,debootstrap,no role can be run on a machine)

vps-image: setup wheelhouse ansible-tools .vps-golden ## Debian images for machines on this host, plain and golden, into .cache/vps (root; some minutes once)

.PHONY: .vps-golden
.vps-golden: machines
	@command -v mmdebstrap >/dev/null || $(MAKE) --no-print-directory .install-mmdebstrap
	@deploy/vps/build-image golden

# ---------------------------------------------------------------- checks

# Half a dozen installers that do not know each other.
.PHONY: .what-tests-need
.what-tests-need: $(UV)
	@$(MAKE) --no-print-directory -j SIDE_BY_SIDE=1 setup servers node postgres machines prometheus browser agents .conformance-is-there .ansible-is-there

# Most tests wait for processes, leases and sockets. A file's tests stay together: some tell a story.
SIDE_BY_SIDE_TESTS := -n 3 --dist loadfile --no-loadscope-reorder

test: .what-tests-need ## all set-up, then the tests; says at the end what could not be tested here
	@$(WITH_SERVERS) $(BIN)/python -m pytest $(SIDE_BY_SIDE_TESTS) $(ARGS)

test-live: .what-tests-need ## only what needs more than a plain machine; missing things fail
	@$(WITH_SERVERS) $(BIN)/python -m pytest -m live --live-required $(ARGS)

test-model: setup model-server ## our chat sidecar against a real small model behind a real server; missing things fail
	@$(WITH_SERVERS) $(BIN)/python -m pytest -m model --live-required $(ARGS)

alerts-demo: setup servers prometheus postgres ## alerts fire for real faults of a fleet that a real Prometheus scrapes, and resolve; minutes
	@MCPFLEET_ALERTS_DEMO=1 $(WITH_SERVERS) $(BIN)/python -m pytest -p no:xdist -v tests/flow/test_alerts_demo.py --live-required $(ARGS)

check: .what-tests-need lint types imports ## what CI does and more: ruff, mypy, import contracts, tests, coverage
	@$(WITH_SERVERS) $(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: setup ## ruff, its rules and its formatter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup ## mypy, strict
	@$(BIN)/mypy

imports: setup ## the import contracts of pyproject.toml
	@$(BIN)/lint-imports --no-cache

chaos: setup ## hurt a real fleet, check the books (ARGS='--seed 7 --seconds 300')
	@$(WITH_SERVERS) $(BIN)/python -m tests.chaos $(ARGS)

conformance: setup .cache/conformance/.setup ## the official MCP conformance suite against our front
	@PATH="$(CURDIR)/.cache/conformance/venv/bin:$(CURDIR)/.cache/conformance/node_modules/.bin:$$PATH" \
		$(BIN)/python -m pytest tests/conformance $(ARGS)

# Where its packages cannot be reached the tests go on: the gate is skipped, and named at the end.
.PHONY: .conformance-is-there
.conformance-is-there:
	@$(MAKE) --no-print-directory .cache/conformance/.setup \
		|| echo "conformance: the official MCP suite could not be set up; its gate will be skipped" >&2

.cache/conformance/.setup: requirements/conformance.txt tests/conformance/package.json tests/conformance/package-lock.json | $(UV)
	@echo "conformance: Node.js from its wheel and the suite into .cache/conformance"
	$(call environment,.cache/conformance/venv,requirements/conformance.txt)
	@cp tests/conformance/package.json tests/conformance/package-lock.json .cache/conformance/
	@cd .cache/conformance && PATH="$$PWD/venv/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Its own target: minutes, root, and a Docker engine. `make test` has what the file says without one.
compose-test: wheelhouse .compose-tools ## docker-compose.yml on a real Docker engine in namespaces of its own: calls, scaling, kills (root)
	@$(WITH_SERVERS) $(BIN)/python -m tests.compose || { status=$$?; [ $$status = 3 ]; }

.PHONY: compose-test .compose-tools
.compose-tools:
	@for program in dockerd docker-compose mmdebstrap iptables openssl; do command -v $$program >/dev/null \
		|| { $(MAKE) --no-print-directory .install-compose-tools; break; }; done

# Nothing of it may start here: the test starts its own.
.PHONY: .install-compose-tools
.install-compose-tools: export RUNLEVEL = 1
.install-compose-tools:
	$(call apt,compose-test,docker.io docker-compose iptables mmdebstrap openssl,docker-compose.yml will not be started)

# ---------------------------------------------------------------- machines

wheelhouse: setup ## our wheel and the locked ones into dist/wheelhouse, for machines (WHEELHOUSE_PYTHONS="3.11 3.13")
	@ansible/wheelhouse.sh

ansible-tools: .cache/ansible/.setup ## ansible-core, ansible-lint and molecule into .cache/ansible

.cache/ansible/.setup: requirements/ansible.txt | $(UV)
	@echo "ansible-tools: ansible-core, ansible-lint and molecule into .cache/ansible"
	$(call environment,.cache/ansible,requirements/ansible.txt)
	@touch $@

# Where its packages cannot be reached the tests go on: those with Ansible are skipped, and named at the end.
.PHONY: .ansible-is-there .ansible-machines
.ansible-is-there:
	@$(MAKE) --no-print-directory .cache/ansible/.setup \
		|| echo "ansible-tools: Ansible could not be set up; its tests will be skipped" >&2

# `make test` has the lint, the syntax and what needs no machine. Molecule boots two machines of its own, and
# tests/playbooks two more, one of them from the golden image: minutes, root, and what their first lines look for.
ansible-check: wheelhouse ansible-tools agents ## the roles: lint, syntax, and every playbook on machines that boot (root, nspawn)
	@cd ansible && PATH="$(CURDIR)/.cache/ansible/bin:$$PATH" ANSIBLE_HOST_PATTERN_MISMATCH=warning \
		ansible-lint --offline --profile production
	@$(MAKE) --no-print-directory .ansible-machines

.ansible-machines: machines
	@command -v debootstrap >/dev/null || $(MAKE) --no-print-directory .install-debootstrap
	@lacks=$$(ansible/molecule/machines.sh lacks); if [ -n "$$lacks" ]; then \
		echo "!!! NOT TESTED HERE: no role was run on a machine: $$lacks" >&2; \
	else \
		$(MAKE) --no-print-directory .vps-golden; \
		( cd ansible && PATH="$(CURDIR)/.cache/ansible/bin:$$PATH" molecule test ); \
		$(BIN)/python -m tests.playbooks $(ARGS); \
	fi

# ---------------------------------------------------------------- running it

demo: setup servers node ## the whole fleet on this machine and a story on real MCP servers (ARGS=--keep leaves it up)
	@$(WITH_SERVERS) $(BIN)/mcpfleet demo $(ARGS)
	@echo $(SHELL_FIRST)

up: setup servers node ## the local fleet in the foreground; Ctrl-C stops all of it
	@echo $(SHELL_FIRST)
	@$(WITH_SERVERS) $(BIN)/mcpfleet up $(ARGS)

vps-demo: vps-image ## the fleet sizes itself with machines that really boot on this host (root; ARGS='--only golden')
	@$(WITH_SERVERS) $(BIN)/python -m tests.vps $(ARGS)

agents-demo: setup servers agents ## a coding agent mends a failing test through the fleet; no key needed (ANTHROPIC_API_KEY: a real model)
	@$(WITH_SERVERS) $(BIN)/python -m tests.agents_demo $(ARGS)

bench: setup servers .cache/bench/.setup ## our cost per call beside bare Celery, FastMCP + Docket and the raw floor (ARGS=--full)
	@$(WITH_SERVERS) $(BIN)/python -m benchmarks $(ARGS)

agents-bench: setup agents ## a run of Claude Code beside the bare CLI: start-up, memory, what 200 runs leave (ARGS='--runs 20')
	@$(BIN)/python -m benchmarks.agents $(ARGS)

heartbeats: setup ## what 200 nodes at rest cost the orchestrator, the autoscaler's loop with it (ARGS='--nodes 500')
	@$(BIN)/python -m benchmarks.heartbeats $(ARGS)

.cache/bench/.setup: requirements/bench.txt | setup
	@echo "bench: FastMCP and Docket into .cache/bench"
	$(call environment,.cache/bench,requirements/bench.txt)
	@touch $@

sim: setup ## rules of scaling over traces of load; fails if one beats slo in waiting and hours (ARGS='--seeds 5 --write')
	@$(BIN)/python -m benchmarks.sim $(ARGS)

# ---------------------------------------------------------------- upkeep

LOCK := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --quiet $(ARGS)

lock: $(UV) ## make requirements/*.txt and the npm locks again (ARGS=--upgrade takes the newest)
	@$(LOCK) pyproject.toml --extra postgres -o requirements/runtime.txt
	@$(LOCK) pyproject.toml --extra postgres --extra agents -c requirements/runtime.txt \
		--no-binary claude-agent-sdk --emit-build-options -o requirements/machines.txt
	@$(LOCK) pyproject.toml --extra postgres --extra hetzner --extra ec2 --extra libcloud --extra agents --group dev \
		--no-binary claude-agent-sdk --emit-build-options -o requirements/dev.txt
	@for group in uv build demo-servers bench conformance ansible model-server; do $(LOCK) --group $$group -o requirements/$$group.txt; done
	@if command -v npm >/dev/null; then for folder in deploy/demo deploy/agents tests/conformance tests/oidc; do ( cd $$folder \
		&& npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --loglevel=error ); done; fi

docs: setup ## write what is made from code: settings, metrics, rules of objectives, dashboards
	@$(BIN)/python tests/house/settings_page.py
	@$(BIN)/python -m tests.house.metrics_page
	@$(BIN)/python deploy/prometheus/slo.py
	@$(BIN)/python deploy/prometheus/operator_rules.py
	@$(BIN)/python deploy/grafana/dashboards.py

clean: ## remove what the other targets made
	@rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
