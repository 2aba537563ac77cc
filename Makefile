# Two commands matter: `make demo` shows trailpoll at work, `make test` tests it.
# Both need Go, make and git, and nothing else.

GO       ?= go
PKG      := ./... ./testdata/corpus # the go tool's ... passes over folders called testdata
CACHE    ?= $(or $(TRAILPOLL_CI_CACHE),/var/cache/trailpoll-ci)
FUZZTIME ?= 10s
BENCHTIME ?= 1s
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
EXE      := $(shell $(GO) env GOEXE)
export PATH := $(CACHE)/bin:$(PATH):$(shell $(GO) env GOPATH)/bin

.DEFAULT_GOAL := help
.PHONY: help build build-fips demo test test-race test-real test-receivers loki simulate scale torture packages test-page test-packages test-systemd test-wine test-powercut lint vuln fuzz bench cover clean FORCE

help: ## show this
	@echo 'make TARGET, where TARGET is one of'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: bin/trailpoll$(EXE) ## build the agent into bin/

# Whether anything has changed is for the go tool to say.
bin/trailpoll$(EXE): FORCE
	$(GO) build -trimpath -o $@ ./cmd/trailpoll

build-fips: ## the same into bin/trailpoll-fips, with Go's validated FIPS 140-3 module
	GOFIPS140=certified $(GO) build -trimpath -o bin/trailpoll-fips$(EXE) ./cmd/trailpoll
	bin/trailpoll-fips$(EXE) version

bin/demo$(EXE): FORCE
	$(GO) -C cmd/demo build -o ../../$@ .

# A real S3 server, of the version that cmd/demo/go.mod names.
bin/versitygw$(EXE): FORCE
	$(GO) -C cmd/demo build -o ../../$@ github.com/versity/versitygw/cmd/versitygw

demo: build bin/demo$(EXE) ## show the agent at work: a real S3, sample logs, two receivers, and the count (DEMO_FLAGS="-seed 2 -objects 2000")
	bin/demo$(EXE) -agent bin/trailpoll$(EXE) $(DEMO_FLAGS)

test: ## every test that needs nothing but Go
	$(GO) test -short $(PKG)
	$(GO) -C cmd/demo test ./...
	$(GO) -C cmd/demo/bench test -short ./...

test-race: ## the same under the race detector (but the corpus, which has no goroutine)
	$(GO) test -race -short -timeout 20m ./...
	$(GO) -C cmd/demo test -race ./...

test-real: build bin/demo$(EXE) bin/versitygw$(EXE) ## tests against a real S3 server (Linux)
	.ci/test-real

test-receivers: build bin/versitygw$(EXE) ## tests against real receivers (Linux; .ci/fetch syslog collector installs them)
	.ci/test-receivers

loki: ## build Loki, 5 to 10 minutes, for make test-receivers to test against it as well
	.ci/fetch loki

simulate: ## a month of a bucket's life, with late objects, crashes and downtime, for SEEDS (1000) seeds
	TRAILPOLL_SEEDS=$(or $(SEEDS),1000) $(GO) test ./agent -run TestInvariant3_Simulation$$ -v -timeout 0

scale: ## the checkpoint with 30 days of a million objects a day
	TRAILPOLL_SCALE=1 $(GO) test ./checkpoint -run TestScale -v -timeout 30m

torture: ## faults drawn from a seed against the real program, for TORTURE (10m)
	TRAILPOLL_TORTURE=$(or $(TORTURE),10m) $(GO) test -count=1 ./cmd/trailpoll/torture -run Torture -v -timeout 0

lint: ## golangci-lint, with the rules of who may import whom
	golangci-lint run --allow-parallel-runners $(PKG)
	cd cmd/demo && golangci-lint run --allow-parallel-runners --config ../../.golangci.yml ./...
	cd cmd/demo/bench && golangci-lint run --allow-parallel-runners --config ../../../.golangci.yml ./...
	cd cmd/demo/browser && golangci-lint run --allow-parallel-runners --config ../../../.golangci.yml ./...

vuln: ## known vulnerabilities that the program can reach
	.ci/vuln

fuzz: ## every fuzz target for FUZZTIME (10s)
	@set -e; for dir in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
	    echo "$$dir $$target"; \
	    $(GO) test ./$$dir -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME); \
	  done; \
	done

bench: ## benchmarks: the agent end to end beside a bare loop (bin/bench.json, .svg), and the parts
	@mkdir -p bin
	$(GO) -C cmd/demo/bench run . -json ../../../bin/bench.json -svg ../../../bin/bench.svg
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) $(PKG)

cover: ## which code the tests reach: bin/cover.html
	@mkdir -p bin
	$(GO) test -short -coverpkg=./... -coverprofile=bin/cover.out $(PKG)
	$(GO) tool cover -html=bin/cover.out -o bin/cover.html
	$(GO) tool cover -func=bin/cover.out | tail -1

packages: ## deb, rpm, MSI, archives, sums and a bill of materials into dist/ (VERSION=v1.0.0; Linux)
	installer/packages/build $(VERSION) dist

test-page: ## the status page in Chromium, with pictures in bin/screenshots (.ci/fetch page)
	$(GO) -C cmd/demo/browser test -count=1 -timeout 5m ./...

test-packages: ## packages: built twice, lintian, signatures (Debian, root; .ci/fetch packages)
	.ci/packages

test-systemd: ## packages and service in a booted systemd (after test-packages; .ci/fetch systemd)
	.ci/boot bin/packages systemd-test

test-wine: ## the service and the MSI under wine (after test-packages; .ci/fetch wine)
	.ci/wine-test bin/packages
	.ci/wine-suite

test-powercut: ## CUTS (10) power cuts, and a clock that steps, in a virtual machine (after test-packages; .ci/fetch powercut)
	.ci/powercut-test bin/packages $(or $(CUTS),10)
	.ci/clock-test bin/packages

clean: ## remove what was built
	rm -rf bin dist
