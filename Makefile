# Targets with a ## comment are listed by "make help". Every target but help and clean first runs
# hack/setup.sh, which does nothing on a machine that is set up.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# libvirt is loaded at run time: one provostd for all its versions, built without its headers.
TAGS := libvirt_dlopen
GOBUILD = $(GO) build -trimpath
TESTFLAGS ?=

ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
include .cache/env.mk
endif

# Made at each run; make starts again only if its content has changed.
.cache/env.mk: FORCE
	@hack/setup.sh

FORCE:

## --- build -------------------------------------------------------------------------------------

.PHONY: setup
setup: .cache/env.mk ## install what is missing (as root, Debian 12) and find Go
	@:

.PHONY: build
build: bin/provostd bin/provost bin/provost-agent ## build the three programs into bin/

bin/provostd: FORCE
	@mkdir -p bin
	CGO_ENABLED=1 $(GOBUILD) -tags $(TAGS) -o $@ ./cmd/provostd

bin/provost: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./cmd/provost

bin/provost-agent: FORCE
	@mkdir -p bin
	CGO_ENABLED=0 $(GOBUILD) -o $@ ./cmd/provost-agent

.PHONY: guest
guest: bin/provost-agent ## build the test guest's image and boot it once
	$(GO) run ./integration/cmd/guestrun -agent bin/provost-agent -exec 'uname -srm; ls /dev/virtio-ports'

## --- test --------------------------------------------------------------------------------------

# Packages run two at a time: several start guests, and a guest takes a processor.
.PHONY: test
test: build ## vet, and test everything on real parts (as root)
	$(GO) vet -tags $(TAGS) ./...
	$(GO) test -tags $(TAGS) -p 2 -timeout 20m $(TESTFLAGS) ./...

.PHONY: test-race
test-race: build ## the tests with the race detector
	$(GO) test -race -tags $(TAGS) -p 1 -timeout 40m $(TESTFLAGS) ./...

# --- long tests: target test-long -----------------------------------------------------------------

# --- demo: target demo ----------------------------------------------------------------------------

# --- benchmarks: targets bench and bench-AREA -----------------------------------------------------

# --- generated code and lint: targets generate, check-generated, lint -----------------------------

## --- other -------------------------------------------------------------------------------------

.PHONY: clean
clean: ## remove bin/ and the caches (kernels, images, a Go that setup has fetched)
	rm -rf bin .cache

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-zA-Z0-9_-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
