# One command each: `make run` sets up and runs a server, `make test` sets up and passes the tests.
export UV_PYTHON_DOWNLOADS = never
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
PYTHON ?= python3
DATA ?= ./data

SECONDS ?= 60
SEEDS ?= 10000

.PHONY: run test lint setup clients bench fuzz soak image clean

run: .venv/daemon
	.venv/bin/s4 server $(DATA) --check

test: setup clients
	.venv/bin/pytest

lint: setup
	.venv/bin/ruff check daemon operator tests e2e bench
	.venv/bin/ruff format --check daemon
	.venv/bin/mypy
	.venv/bin/lint-imports

setup: .venv/all

bench: setup
	.venv/bin/python -m bench

# SECONDS for each target; inputs that reach new lines are kept in tests/fuzz/corpus, which the tests run.
fuzz: setup
	$(UV) sync --quiet --frozen --extra daemon --extra operator --group fuzz
	cd tests && ../.venv/bin/python -m fuzz --seconds $(SECONDS)

# Seeds of the simulator of the whole (tests/whole); a failure prints its seed, which `--shorten` makes shorter.
soak: setup
	cd tests && ../.venv/bin/python -m whole.run 1 $(SEEDS) --quiet

# For one machine; PLATFORMS=linux/amd64,linux/arm64 with a registry in IMAGE and PUSH=--push for both.
IMAGE ?= s4:latest
PLATFORMS ?=
image:
	docker buildx build $(if $(PLATFORMS),--platform $(PLATFORMS) $(PUSH),--load) -t $(IMAGE) .

clean:
	rm -rf .venv .tools

# uv comes from its package where the machine has none; Debian keeps venv in a package of its own.
.tools/uv/bin/uv:
	$(PYTHON) -m venv .tools/uv || { apt-get update && apt-get install -y --no-install-recommends python3-venv && $(PYTHON) -m venv .tools/uv; }
	.tools/uv/bin/pip install --quiet "uv>=0.5"

.venv/daemon: uv.lock pyproject.toml | $(filter .tools/%,$(UV))
	$(UV) sync --quiet --frozen --no-default-groups --extra daemon --inexact
	@touch $@

.venv/all: uv.lock pyproject.toml | $(filter .tools/%,$(UV))
	$(UV) sync --quiet --frozen --extra daemon --extra operator
	@touch $@ .venv/daemon

# S3 programs for the client tests, in environments of their own, and receivers of events; what cannot be had is skipped there by name.
clients: .tools/aws/bin/aws .tools/minio-go-client .tools/nats-server .tools/kafka

.tools/aws/bin/aws: | .venv/all
	-$(UV) venv --quiet .tools/aws && $(UV) pip install --quiet --python .tools/aws/bin/python "awscli>=1.38"

.tools/minio-go-client: tests/clients/minio-go/main.go tests/clients/minio-go/go.mod
	@mkdir -p .tools
	-command -v go >/dev/null && cd tests/clients/minio-go && go build -o ../../../.tools/minio-go-client .

.tools/nats-server: tests/events/nats-server/go.mod
	@mkdir -p .tools
	-command -v go >/dev/null && cd tests/events/nats-server && go build -o ../../../.tools/nats-server github.com/nats-io/nats-server/v2

.tools/kafka: tests/events/kafka/pom.xml
	-command -v mvn >/dev/null && mvn -q -B -f tests/events/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.tools/kafka

# A real Kubernetes on this machine, and everything on it. The programs are built once, outside the tree.
E2E_CACHE ?= $(HOME)/.cache/s4-e2e
E2E_PACKAGES = containerd runc containernetworking-plugins iptables conntrack buildah debootstrap gcc libc6-dev iproute2 openssl procps

.PHONY: e2e e2e-programs crds

e2e: setup e2e-programs
	S4_E2E_CACHE=$(E2E_CACHE) .venv/bin/pytest e2e -p no:cacheprovider --timeout 900 -x -rP

e2e-programs:
	@for program in buildah containerd runc debootstrap conntrack iptables gcc ip openssl /usr/lib/cni/bridge; do \
	    command -v $$program >/dev/null || missing=yes; \
	done; \
	[ -z "$$missing" ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(E2E_PACKAGES); }
	e2e/cluster/programs $(E2E_CACHE)/bin

crds: setup
	.venv/bin/python -m s4_operator.crd crds
	cp crds/*.yaml charts/s4/files/crds/
