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
	CGO_ENABLED=0 $(GOBUILD) -ldflags '-s -w' -o $@ ./cmd/provost-agent

.PHONY: guest
guest: bin/provost-agent ## build the test guest's image and boot it once
	$(GO) run ./integration/cmd/guestrun -agent bin/provost-agent -exec 'uname -srm; ls /dev/virtio-ports'

## --- test --------------------------------------------------------------------------------------

TESTED = bpf chain cmd guestagent integration introspect rules

# Packages run two at a time: several start guests, and a guest takes a processor.
.PHONY: test
test: build ## vet, and test everything on real parts (as root)
	$(GO) vet -tags $(TAGS) ./...
	$(GO) test -tags $(TAGS) -p 2 -timeout 20m $(TESTFLAGS) ./...
	@echo "Left out by the short loops, and done by make test-long:"
	@grep -roE --include='*_test.go' 'short run: [^"]*' $(TESTED) | sed 's|^|  |; s|/[^/]*:short run: |: |; s/%[a-z]/N/g' | sort -u

.PHONY: test-race
test-race: build ## the tests with the race detector
	$(GO) test -race -tags $(TAGS) -p 1 -timeout 40m $(TESTFLAGS) ./...

# --- long tests -----------------------------------------------------------------------------------

# What a short run leaves out: the packages with long loops (each says what that is), the race detector
# where no guest is involved, demo and tests on a bare Debian 12, and the Vagrantfile.
LONG = $(sort $(dir $(shell grep -rl --include='*_test.go' 'flag[.]Bool."long"' $(TESTED))))
# Conditions are fuzzed for minutes: compiled against HCL's evaluation, guards and indexes against what is true.
FUZZ = FuzzDifferential FuzzGuards FuzzIndex
RACE = ./chain/... ./cmd/... ./guestagent/wire ./guestagent ./introspect/... ./rules/...

.PHONY: test-long
test-long: test ## everything, with long loops and a bare Debian 12 in a chroot (as root)
	hack/setup.sh mmdebstrap vagrant vagrant-libvirt neovim
	$(GO) test -race -tags $(TAGS) -timeout 30m $(TESTFLAGS) $(RACE)
	$(GO) test -tags $(TAGS) -p 2 -timeout 75m $(TESTFLAGS) $(addprefix ./,$(LONG)) -args -long
	for f in $(FUZZ); do $(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$$f$$" -fuzztime 3m ./rules/policy || exit 1; done
	vagrant validate
	hack/chroot-test.sh demo test

## --- demo --------------------------------------------------------------------------------------

.PHONY: demo
demo: build ## show the main job end to end (as root); KEEP=1 leaves everything running
	$(GO) run ./integration/cmd/demo $(if $(KEEP),-keep)

.PHONY: demo-end
demo-end: .cache/env.mk ## end what make demo KEEP=1 has left running
	$(GO) run ./integration/cmd/demo -end

# --- benchmarks -----------------------------------------------------------------------------------

# Each prints lines "RESULT name value unit target>=value" (or <=); docs/benchmarks.md explains them.
# Run one at a time on a machine that does nothing else.
BENCH = $(GO) test -tags $(TAGS) -count=1 -timeout 75m

.PHONY: bench bench-wire bench-chain bench-index bench-rules bench-probe bench-host
bench: bench-wire bench-chain bench-index bench-rules bench-probe bench-host ## all benchmarks, one after the other

bench-wire: build ## frames: encode, decode, sign, verify
	$(BENCH) -run '^$$' -bench . ./guestagent/wire

bench-chain: build ## the ledger, beside Tessera and raw Pebble: sealing, proofs, opening
	$(BENCH) -v -run '^TestResults$$' ./chain -args -results
	$(BENCH) -run '^$$' -bench '^BenchmarkVerifyMillion$$' -benchtime 5x ./chain/mirror

bench-index: build ## queries over ten million entries
	$(BENCH) -run '^$$' -bench . ./chain/index -args -entries 10000000

bench-rules: build ## policies, beside cel-go, OPA, expr and HCL: conditions, evaluation, loading
	$(BENCH) -v -run '^TestResults$$' ./rules -args -results
	$(BENCH) -run '^$$' -bench '^BenchmarkNeighbour$$' -benchtime 3x ./introspect

# SCAP_OPEN=PATH of Falco's scap-open puts it beside the agent; its lines are left out without.
bench-probe: build ## the agent in a guest: overhead, programs, loss (as root)
	hack/setup.sh postmark
	$(BENCH) -v -run '^TestResults$$' ./integration/bench -args -results

bench-host: build ## the host: whole path, neighbours of a flood, a pause by libvirt (as root)
	$(BENCH) -v -run '^TestResults$$' ./integration/hostbench -args -results

# --- generated code and lint ----------------------------------------------------------------------

GOLANGCI = v2.15.0

# protoc finds its plugins on the PATH; they are of the versions in go.mod.
.PHONY: generate
generate: .cache/env.mk ## make the protobuf and BPF code again (it is committed)
	@mkdir -p .cache/bin
	$(GO) build -o .cache/bin/ google.golang.org/protobuf/cmd/protoc-gen-go github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto
	PATH="$(CURDIR)/.cache/bin:$$PATH" $(GO) generate ./chain/... ./bpf/...

.PHONY: check-generated
check-generated: generate ## make generated code again and fail on a difference
	git diff --exit-code -- chain bpf

.PHONY: lint
lint: .cache/bin/golangci-lint-$(GOLANGCI) ## golangci-lint, with the linters of .golangci.yml
	PATH="$(dir $(GO)):$$PATH" $< run ./...

.cache/bin/golangci-lint-$(GOLANGCI):
	@mkdir -p .cache/bin
	GOBIN="$(CURDIR)/.cache/bin" GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	mv .cache/bin/golangci-lint $@

## --- other -------------------------------------------------------------------------------------

.PHONY: clean
clean: ## remove bin/ and the caches (kernels, images, a Go that setup has fetched)
	rm -rf bin .cache

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-zA-Z0-9_-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
