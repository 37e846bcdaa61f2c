# weft: `make` prints this help.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
K8S := v1.36.3
FLANNEL := v0.28.10
VP := k8s.io/component-base/version
LDFLAGS := -s -w -X weft/internal/cli.Version=$(VERSION)
K8S_LDFLAGS := -s -w -X $(VP).gitVersion=$(K8S) -X $(VP).gitMajor=1 -X $(VP).gitMinor=36 -X $(VP).gitTreeState=clean
# Packages that do not link the upstream server: their tests run under the race detector.
LEAN = $(shell go list ./... | grep -v -e internal/server -e cmd/weft-server -e test/)
FUZZTIME ?= 20s
export CGO_ENABLED ?= 0
# One set of build flags for binaries and tests, so that upstream is compiled once.
export GOFLAGS := $(shell go env GOFLAGS) -trimpath

ROUNDS ?= 10
SEED ?= 0
.PHONY: help build demo test lint bench storm chaos fuzz golden deps deps-test clean unit
help: ## this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

build: ## bin/weft, bin/weft-server, bin/kubectl
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/weft ./cmd/weft
	go build -ldflags '$(K8S_LDFLAGS) -X weft/internal/server.Version=$(VERSION)' -o $(BIN)/weft-server ./cmd/weft-server
	go build -ldflags '$(K8S_LDFLAGS)' -o $(BIN)/kubectl k8s.io/kubernetes/cmd/kubectl

deps: ## install (as root) or name the packages the demo needs
	@scripts/deps demo
deps-test:
	@scripts/deps test

demo: deps build ## bring up the walkthrough's cluster, replay it, check every row, clean up
	$(BIN)/weft lab demo

unit: ## the fast loop: floors 1 and 2
	go test ./internal/api/... ./internal/netstate/... ./internal/nft/... ./internal/xt/... ./internal/packet/... \
		./internal/overlay/... ./internal/proxy/... ./internal/lease/... ./internal/ipam/... ./internal/attach/... \
		./internal/masq/... ./internal/explain/...

# The real flanneld, which the tests and the bench run weft beside. It is built from the module proxy, with cgo for its udp backend.
$(BIN)/flanneld: tools/flannel/go.mod tools/flannel/go.sum
	cd tools/flannel && CGO_ENABLED=1 go build -ldflags '-s -w -X github.com/flannel-io/flannel/pkg/version.Version=$(FLANNEL)' \
	  -o ../../$@ github.com/flannel-io/flannel || { echo "bin/flanneld was not built: test/interop needs it." \
	  "It takes gcc and libc6-dev (make deps-test) and the modules of tools/flannel/go.mod (GOPROXY)" >&2; exit 1; }
	touch $@

# The real kube-proxy, which weft takes over from and hands back to in the tests.
$(BIN)/kube-proxy: tools/kubeproxy/go.mod tools/kubeproxy/go.sum
	cd tools/kubeproxy && CGO_ENABLED=0 go build -ldflags '$(K8S_LDFLAGS)' -o ../../$@ k8s.io/kubernetes/cmd/kube-proxy || { echo \
	  "bin/kube-proxy was not built: test/modes needs it, and the modules of tools/kubeproxy/go.mod (GOPROXY)" >&2; exit 1; }
	touch $@

# The labs of ./test run one after the other: they measure.
test: deps-test build $(BIN)/flanneld $(BIN)/kube-proxy ## the whole test suite, what CI runs
	go build -o $(BIN)/testreport ./tools/testreport 2>/dev/null || (cd tools && go build -o ../$(BIN)/testreport ./testreport)
	set -o pipefail; { \
	  CGO_ENABLED=1 go test -race -json $(LEAN); \
	  WEFT_BIN=$(CURDIR)/$(BIN) go test -json ./internal/server/... ./cmd/weft-server/...; \
	  WEFT_BIN=$(CURDIR)/$(BIN) go test -p 1 -json ./test/...; \
	  go test -json -run '^$$' -bench . -benchtime 1x $(LEAN); \
	  (cd tools && go test -json ./testreport); \
	} | $(BIN)/testreport -skips .ci/skips

lint: ## golangci-lint, from tools/go.mod
	cd tools && go build -o ../$(BIN)/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(BIN)/golangci-lint run ./...

bench: build $(BIN)/flanneld $(BIN)/kube-proxy ## measure side by side in one run, print ratios
	scripts/bench

storm: build ## 2,000 pod restarts a minute over 1,000 services for five minutes, with clients, in modes nftables and userspace
	WEFT_BIN=$(CURDIR)/$(BIN) go test -v -timeout 30m -run Storm ./test/scale -storm 5m

chaos: build ## injure a cluster at random for minutes: ROUNDS (10) times each, SEED repeats a run; 100 changes of the proxy mode
	WEFT_BIN=$(CURDIR)/$(BIN) go test -v -timeout 20m ./test/modes -run TestSwitchModes -switches 100
	WEFT_BIN=$(CURDIR)/$(BIN) go test -v -timeout 60m ./test/chaos -rounds $(ROUNDS) -seed $(SEED) -strict -racers 50 -race-seconds 60

fuzz: ## run every fuzz target for FUZZTIME (20s)
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u | while read -r d; do \
	  grep -hoE '^func Fuzz[A-Za-z0-9]+' $$d/*_test.go | awk '{print $$2}' | while read -r f; do \
	    echo "== $$d $$f"; go test ./$$d -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME); done; done

golden: ## rewrite the golden files
	grep -rl '"update"' --include='*_test.go' . | grep -v '^./tools/' | xargs -n1 dirname | sort -u | while read -r d; do go test $$d -update; done

clean: ## remove what build made
	rm -rf $(BIN)
