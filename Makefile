# Modelkeep: what can be done here. `make` alone prints it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
PORT ?= 8080
GRPC_PORT ?= 8001
DATA ?= .modelkeep
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## Install everything into .venv

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: apt-get install -y python3.11-venv, or make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "On Debian: apt-get install -y python3.11-venv"; exit 2; }
	@echo "Installing into $(VENV) ..."
# torch by pip, whose own configuration may name a folder with the build for processors alone; uv does not read it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv torch
	@$(BIN)/uv pip install --quiet --system-certs --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[server,sklearn,xgboost,lightgbm,catboost,torch,openvino,s3,s3-role,grpc,redis,demo]' --group test --group lint --group bench
	@touch $(READY)

demo: $(READY) ## Set up and serve two real models on PORT (8080), with keys in DATA/demo.env
	@exec $(BIN)/python examples/demo/run.py --port $(PORT) --grpc-port $(GRPC_PORT) --data $(DATA)

web: $(READY) ## Build the web console, with the Node.js of .venv; what is current is not built again
	@$(BIN)/python web/build.py build

# a directory for the tests, where Debian's packages can be had; nothing is installed on the machine
directory: $(READY)
	@mkdir -p .cache/foreign
	@timeout 300 bash tests/foreign/slapd/unpack $(BIN) >.cache/foreign/slapd.log 2>&1 || echo "No directory to test with, so tests of directories are left out: $$(tail -n 1 .cache/foreign/slapd.log)"

# a browser for the tests, likewise
browser: $(READY)
	@mkdir -p .cache/foreign
	@timeout 300 bash tests/foreign/chromium/unpack >.cache/foreign/chromium.log 2>&1 || echo "No browser to test with, so tests of the console are left out: $$(tail -n 1 .cache/foreign/chromium.log)"

test: $(READY) directory browser web ## Set up and run all tests against real servers
	@$(BIN)/python web/build.py test
# once for all processes that the tests start, also where PYTHONDONTWRITEBYTECODE has each compile for itself
	@$(BIN)/python -m compileall -q src
# nothing leaves a core idle, but for whole installations whose times count: those have the machine to themselves
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder tests/unit tests/contracts tests/architecture tests/integration
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not alone" tests/e2e
	@$(BIN)/python -m pytest -m alone tests/e2e

# not with every test run: Python 3.11 goes round for ever where, while it is traced, a thread that knew greenlets ends at a bad moment
coverage: $(READY) directory ## Run all tests but those of whole installations once more, and say which lines none of them reaches
	@$(BIN)/python -m pytest --cov --cov-report=term -n $(JOBS) --dist loadfile tests/unit tests/contracts tests/architecture tests/integration

soak: $(READY) ## Run the long campaigns: 500 loads and unloads, 100 seeded kills, 200 models on 4 GB, 300 node tests, all estimators
	@LOADS=500 KILL_ROUNDS=100 $(BIN)/python -m pytest -s tests/e2e/test_loads.py tests/e2e/test_kill.py
	@MODELS=200 BUDGET_MB=4096 EACH_MB=60 SECONDS=90 $(BIN)/python -m pytest -s tests/e2e/test_memory_budget.py -k more_models
	@PAIRS=300 $(BIN)/python -m pytest -s tests/e2e/test_onnx_pairs.py
	@ESTIMATORS=1000 TABLE=.cache/estimators.md $(BIN)/python -m pytest -s tests/e2e/test_every_estimator_served.py

soak-audit: $(READY) ## Verify an audit trail of a million entries on both databases, and name what was changed in it
	@ROWS=$${ROWS:-1000000} $(BIN)/python -m pytest -s tests/campaigns/test_long_audit_trail.py

soak-releases: $(READY) ## Releases, upgrades, 40 canaries, 20 killed rollouts under load on both databases, 10,000 histories of two processes
	@CHANGES=$${CHANGES:-50} UPGRADES=$${UPGRADES:-20} $(BIN)/python -m pytest -s tests/campaigns/test_releases.py
	@CANARIES=$${CANARIES:-40} $(BIN)/python -m pytest -s tests/campaigns/test_canaries.py
	@KILLS=$${KILLS:-20} $(BIN)/python -m pytest -s tests/campaigns/test_killed_rollouts.py
	@HISTORIES=$${HISTORIES:-10000} $(BIN)/python -m pytest -s tests/integration/control/test_concurrent_histories.py

fuzz: $(READY) ## Ask every address of the OpenAPI document at random, as every kind of key, for EXAMPLES (200) each
	@EXAMPLES=$${EXAMPLES:-200} $(BIN)/python -m pytest -s --timeout 7200 tests/e2e/test_description.py -k fuzz

attack: $(READY) ## Have sslyze, wapiti and sqlmap attack a real server with TLS, and then fuzz it as every kind of key
	@$(BIN)/python -m pytest -s tests/campaigns/test_attack.py
	@EXAMPLES=$${EXAMPLES:-20} $(MAKE) --no-print-directory fuzz

check: $(READY) ## Lint, types, import contracts (under a minute)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 25
	@$(BIN)/python web/build.py check

fix: $(READY) ## Format, and mend what can be mended by itself
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: $(READY) ## Write the reference pages, and the types of the console, anew from the code
	@$(BIN)/python docs/generate.py
	@$(BIN)/python web/build.py schema

protos: $(READY) ## Make the messages of gRPC anew from their description
	@$(MAKE) --no-print-directory messages PROTOC="$(BIN)/python -m grpc_tools.protoc" OUT=$(PROTOS)

PROTOS := src/modelkeep/serving/protos
messages:
	@$(PROTOC) --proto_path=$(PROTOS) --python_out=$(OUT) --pyi_out=$(OUT) $(PROTOS)/open_inference.proto
# a pool of their own: see the package's docstring
	@sed -i 's/_descriptor_pool.Default()/_descriptor_pool.DescriptorPool()/' $(OUT)/open_inference_pb2.py

bench: $(READY) ## Measure the predict path on this machine
	@$(BIN)/python bench/predict.py

PEERS ?= mosec torchserve pytriton mlserver fastapi
bench-peers: $(READY) ## Measure side by side with PEERS (the first time installs them, and takes an hour)
	@command -v wrk >/dev/null || { test "$$(id -u)" = 0 && apt-get install -y -q wrk; } || { echo "Needed once: apt-get install -y wrk"; exit 2; }
	@$(BIN)/python bench/side_by_side.py --peers $(PEERS) $(BENCH)

clean: ## Remove what setup made; data in DATA stays
	rm -rf $(VENV) .cache dist build web/node_modules src/modelkeep/console

.PHONY: help setup demo web directory browser test coverage soak soak-audit soak-releases fuzz attack check fix docs protos messages bench bench-peers clean
