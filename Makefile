# deckhand: `make demo` shows it, `make test` checks it, `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# The order of the checks is the order to read them in; go uses the cores.
.NOTPARALLEL:

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILT ?= $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS := -s -w -X deckhand/version.Version=$(VERSION) -X deckhand/version.Built=$(BUILT)

# Static binaries, the same wherever they are built. The version comes from
# VERSION alone: -buildvcs would fail in a clone that another user owns.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
BUILD := $(GO) build -trimpath -ldflags '$(LDFLAGS)'

TOOL := $(GO) tool -modfile=tools/go.mod
DIST := deckhand-linux-amd64 deckhand-linux-arm64 deckhand-linux-armv6 deckhand-linux-armv7
IMPORT := $(DIST:deckhand-%=deckhand-import-%)
CERTIFICATES ?= /usr/share/ca-certificates/mozilla

# Packages that compute and touch nothing: tested as a 32-bit program as well,
# before a small board finds what overflows.
PURE := state strategy reconcile reconcile/sim compose target
# It takes as long as the others together, so it begins first.
LONGEST := ./test/e2e
# Packages with tests that need an engine, a browser or another service.
ENGINE = $(LONGEST) $(filter-out ./test/crash $(LONGEST),$(shell grep -rlE --include='*_test.go' --exclude-dir=node_modules '^//go:build .*\bengine\b' . | xargs -r -n1 dirname | sort -u))
# Packages that keep things in a folder or in a bucket.
STORED := ./cloud/registry ./cloud/asset
# Those services need root. An ordinary user's tests are run through sudo.
ENGINE_EXEC = $(shell [ "$$(id -u)" -eq 0 ] || ! sudo -n true 2>/dev/null || echo "-exec 'sudo -E'")
# deckhand itself runs as root, and so does a private engine.
AS_ROOT = $(shell [ "$$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && echo sudo -E; })
ENGINE_TIMEOUT ?= 15m
ENGINE_PARALLEL ?= 2
FUZZTIME ?= 60s
HELLO_VERSION ?= 1

say = @printf '\n== %s\n' '$(1)'

##@ Use

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: build examples ## the whole story on a real engine, then everything is put back
	@scripts/setup-engine.sh --unless-running
	@examples/hello/build.sh 2 .run/hello-2
	@$(GO) build -o .run/make-demo ./test/demo
	@$(AS_ROOT) .run/make-demo # "go run" would make an error of Ctrl-C

build: ## the programs, into bin/
	@mkdir -p bin
	@for main in cmd/*/; do $(BUILD) -o bin/ "./$$main"; done

examples: ## the example's static programs, beside their Dockerfiles
	@examples/hello/build.sh $(HELLO_VERSION)

dist: ## the device's binaries and what its images need, into dist/
	@scripts/setup.sh certificates
	@mkdir -p dist
	@$(MAKE) $(addprefix dist/,$(DIST) $(IMPORT))
	@cat $(CERTIFICATES)/*.crt >dist/ca-certificates.crt
	@cp "$$($(GO) env GOROOT)/lib/time/zoneinfo.zip" dist/zoneinfo.zip
	@chmod 644 dist/ca-certificates.crt dist/zoneinfo.zip
	@ls -l dist

dist/deckhand-linux-amd64 dist/deckhand-import-linux-amd64: export GOARCH = amd64
dist/deckhand-linux-arm64 dist/deckhand-import-linux-arm64: export GOARCH = arm64
dist/deckhand-linux-armv6 dist/deckhand-import-linux-armv6: export GOARCH = arm
dist/deckhand-linux-armv6 dist/deckhand-import-linux-armv6: export GOARM = 6
dist/deckhand-linux-armv7 dist/deckhand-import-linux-armv7: export GOARCH = arm
dist/deckhand-linux-armv7 dist/deckhand-import-linux-armv7: export GOARM = 7
$(addprefix dist/,$(DIST)): FORCE
	@GOOS=linux $(BUILD) -o $@ ./cmd/deckhand
$(addprefix dist/,$(IMPORT)): FORCE
	@GOOS=linux $(BUILD) -o $@ ./cmd/deckhand-import

image: dist ## the device's image for this machine's engine
	docker build -q -f Dockerfile.amd64 -t deckhand:$(VERSION) .

##@ Check

test: setup format vet lint vuln unit postgres-test s3-test test32 size crash $(if $(LONG),race fuzz) engine-test ## everything; LONG=1 adds race and fuzz

quick: ## the tests that need nothing, in seconds
	@$(GO) test ./...

engine-test: setup interop-peers s3-server ## the tests that need an engine or a browser
	$(call say,tests on a real engine)
	@[ -n "$(ENGINE)" ] || { echo "no such tests"; exit 0; }; \
	$(GO) test -tags engine,interop -count=1 -p $(ENGINE_PARALLEL) -timeout $(ENGINE_TIMEOUT) $(ENGINE_EXEC) $(ENGINE)

unit: ## quick, with the time that each package took
	$(call say,tests)
	@$(GO) test ./...

postgres-test: ## the cloud's tests again, on a private PostgreSQL
	$(call say,tests of the cloud on PostgreSQL)
	@scripts/setup.sh postgres
	@DECKHAND_TEST_DATABASE=postgres $(GO) test -count=1 -p 2 ./cloud/... ./test/database

s3-test: setup s3-server ## the tests of what can be in a bucket again, on a private S3 server
	$(call say,tests of images and files in a bucket)
	@DECKHAND_TEST_IMAGES=s3 $(GO) test -tags engine -count=1 -skip Hundred $(ENGINE_EXEC) $(STORED)

# Tests ask the same way where it is.
s3-server:
	@$(GO) tool -modfile=test/s3/server/go.mod -n versitygw >/dev/null

crash: ## a crash at every step and engine call of every scenario, and every call failing
	$(call say,crashes and faults)
	@$(GO) test -tags engine -count=1 -v -run '^TestEverything$$' ./test/crash | grep -E 'scenarios: |^ *--- FAIL|_test.go:|^(FAIL|ok|panic)'

test32: ## the pure packages as a 32-bit program
	$(call say,tests of the pure packages on 32 bits)
	@GOARCH=386 $(GO) test $(foreach p,$(PURE),$(if $(wildcard $(p)/*.go),./$(p)))

race: ## quick, with the race detector
	$(call say,tests with the race detector)
	@CGO_ENABLED=1 $(GO) test -race ./...

fuzz: ## each fuzz target for FUZZTIME=60s
	$(call say,fuzz targets)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

size: ## the device's and the owner's binary for arm against their budgets
	$(call say,sizes of the binaries)
	@$(GO) test -tags size -count=1 -v -run '^TestSize' ./test/architecture

bench: ## times and sizes beside the raw engine's, as a table
	@scripts/setup-engine.sh
	@$(GO) test -tags bench -count=1 -timeout 40m -v -run '^TestBench$$' ./test/bench

bench-cloud: ## many devices on a cloud, as a table, and 50,000 devices moved to many containers; on both databases
	@$(GO) test -tags bench -count=1 -v -run Big ./test/database
	@DECKHAND_TEST_DATABASE=postgres $(GO) test -tags bench -count=1 -v -run Big ./test/database
	@$(GO) test -tags bench -count=1 -timeout 30m -v -run '^TestCloud$$' ./test/cloudload
	@DECKHAND_TEST_DATABASE=postgres $(GO) test -tags bench -count=1 -timeout 30m -v -run '^TestCloud$$' ./test/cloudload

lint: ## golangci-lint with the layers of the architecture
	$(call say,lint)
	@$(TOOL) golangci-lint run ./...

vet: ## go vet, with and without the tags
	$(call say,vet)
	@$(GO) vet ./...
	@$(GO) vet -tags engine,interop,size ./...

format: ## gofmt, only looking
	$(call say,format)
	@files=$$(find . \( -name '.?*' -o -name node_modules \) -prune -o -name '*.go' -print | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo "not formatted, run gofmt -w on:"; echo "$$files"; exit 1; fi

vuln: ## known vulnerabilities, where the database can be reached
	$(call say,vulnerabilities)
	@scripts/vuln.sh

##@ Keep house

setup: ## install what tests and demo need; quiet when nothing is missing
	@scripts/setup-engine.sh
	@scripts/setup.sh bus browser postgres certificates

interop-peers: ## install balena's own CLI and SDK for tests; quiet when they are there
	@scripts/setup-interop.sh

update-goldens: ## rewrite golden files; look at the difference
	@$(GO) test ./test/architecture ./test/timing ./state/store -update

clean: ## remove what make made
	rm -rf bin dist .run test/interop/node_modules
	rm -f examples/hello/front/front examples/hello/web/web examples/hello/counter/counter examples/hello/worker/worker

FORCE:

.PHONY: FORCE postgres-test s3-test s3-server help demo build examples dist image test crash quick engine-test unit test32 race fuzz size bench bench-cloud \
	lint vet format vuln setup interop-peers update-goldens clean
