# The commands of the project. `make demo` and `make test` install what is missing and need nothing before them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Continuous integration keeps compiled dependencies in the user's cache. Checkouts that are worked on do not share:
# cargo tells what is stale by time, and an older change of one checkout would pass for built by another.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/geoworker
ifeq ($(CI),true)
export CARGO_TARGET_DIR := $(CACHE)/target
else
export CARGO_TARGET_DIR ?= $(CURDIR)/target
endif
VENV := $(CURDIR)/.venv

.PHONY: help setup plugins build demo test test-rust test-referee check lint docs bench bench-queue bench-reload bench-cloud soak \
	soak-cloud simulate hostile emulator clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## Install what is missing (Debian; elsewhere it names the packages)
	@tools/install-needs

plugins: setup ## Build the WebAssembly guests into plugins/dist
	@tools/build-plugins

build: plugins ## Build the optimised binary into bin/geoworker
	@# All members at once: one set of features for binary and tests, so that no dependency is compiled twice.
	cargo build --release --locked --workspace --bins
	@mkdir -p bin && for name in geoworker geoworker-servicebus-emulator; do \
	    cp $(CARGO_TARGET_DIR)/release/$$name bin/$$name.new && mv bin/$$name.new bin/$$name; done

demo: build ## The main job on a real raster, embedded default
	@tools/demo

test: test-rust test-referee ## All tests

test-rust: plugins
	@tools/install-azurite
	GEOWORKER_AZURITE=$(CURDIR)/.node/azurite-blob cargo test --release --locked --workspace
	@tools/test-plugins

test-referee: build $(VENV)/ready
	@tools/install-azurite
	$(VENV)/bin/python -m pytest -q -c tests/referee/pytest.ini -rs tests/referee

$(VENV)/ready: tests/referee/requirements.txt
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

check: lint docs test ## What continuous integration runs

lint: setup
	cargo fmt --check
	cd plugins && cargo fmt --check
	cd wit && sha256sum --check --quiet released/1.0.0.sha256
	tools/wit-reference --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

docs: setup
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items

bench: build ## Plugins, throughput, and the encoder beside gdal_translate
	bin/geoworker bench
	@python3 tests/bench/cog.py

bench-queue: build $(VENV)/ready ## Empty tasks through PostgreSQL beside procrastinate
	$(VENV)/bin/pip install -q --disable-pip-version-check -r tests/bench/requirements.txt
	$(VENV)/bin/python tests/bench/workers.py

bench-reload: build ## Plugins replaced under load: what a reload takes, and that nothing is lost
	@python3 tests/bench/reload.py

bench-cloud: build $(VENV)/ready ## Tasks through Service Bus, and a large COG to a blob server beside GDAL; SIZE=megabytes
	@tools/install-azurite
	$(VENV)/bin/python tests/bench/cloud.py --size $(or $(SIZE),500)

hostile: plugins ## What hostile plugins try, and what becomes of it
	cargo test --release --locked --workspace --test hostile -- --nocapture every_behaviour

emulator: build ## A Service Bus on this machine, for developers; PORT=n
	bin/geoworker-servicebus-emulator --port $(or $(PORT),5672)

soak: build $(VENV)/ready ## 300 jobs, 4 workers and a saboteur on a private PostgreSQL; SEED=n
	$(VENV)/bin/python tests/soak/soak.py --seed $(or $(SEED),1)

soak-cloud: build $(VENV)/ready ## The soak over Service Bus and blob storage with faults; SEED=n
	@tools/install-azurite
	$(VENV)/bin/python tests/soak/cloud_soak.py --seed $(or $(SEED),1)

simulate: build ## Many seeds of the simulation, then every rule broken once; SEEDS=n
	$(CARGO_TARGET_DIR)/release/geoworker-simulation --seeds $(or $(SEEDS),20000)
	$(CARGO_TARGET_DIR)/release/geoworker-simulation --mutations --seeds 400

clean: ## Remove what was built
	rm -rf bin plugins/dist plugins/dist-example plugins/dist-hostile plugins/dist-planted plugins/dist-simulation plugins/target $(VENV) .node .geoworker
