# Shoal needs Go and nothing else set up by hand: what a target runs besides is
# installed from the distribution's packages when it is missing.

GO ?= go
export CGO_ENABLED = 0
BUILD = $(GO) build -trimpath -buildvcs=false -ldflags="-s -w $(STAMP)"

# What --version prints: the commit, its date, and whether files differ from it.
# They come from git or, in an archive that git made, from .commit. The same
# source and Go make the same programs, byte for byte.
COMMIT := $(shell if test -e .git; then git log -1 --format='%H %ct' && { git diff --quiet HEAD || echo +changes; }; \
	else grep -v Format .commit; fi 2>/dev/null)
VERSION = -X github.com/shoal-p2p/shoal/cmd/internal/version
STAMP = $(VERSION).commit=$(word 1,$(COMMIT)) $(VERSION).date=$(word 2,$(COMMIT)) $(VERSION).changes=$(word 3,$(COMMIT))

build: go
	$(BUILD) -o bin/ ./cmd/shoal ./cmd/shoal-tracker

# The programs have to compile for these too.
cross: go
	for target in darwin/arm64 darwin/amd64 windows/amd64 linux/arm64; do \
		echo $$target; GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) build ./cmd/... || exit 1; \
	done

# Formatting, vet, unit tests, fuzz corpora and integration, with the race detector.
test: go
	integration/prereq.sh test
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l .); test -z "$$unformatted" || { echo "not formatted:" $$unformatted; exit 1; }
	$(GO) vet ./...
	CGO_ENABLED=1 $(GO) test -race -timeout 25m ./...

# Two real torrent clients move a picture through a network on this machine.
demo: build
	integration/prereq.sh demo
	bin/shoal demo

# Every client to every other one, both ways of dialling, and every kind of torrent.
matrix: go
	integration/prereq.sh test
	SHOAL_MATRIX=all $(GO) test -count 1 -timeout 30m -parallel 4 -v -run 'TestMatrix|TestEveryKindOfTorrentArrives' ./integration

# Shoal beside chains of forwarders and Tor: BENCH=chain,tor,… picks suites
# (bin/bench -help lists them), QUICK=1 is a short look.
bench: build
	integration/prereq.sh bench
	$(GO) build -trimpath -o bin/ ./integration/bench
	$(GO) test -c -trimpath -o bin/link.test ./circuit/link
	bin/bench -only "$(BENCH)" $(if $(QUICK),-quick)

# Every fuzz target for FUZZ; what it finds lands in the package's testdata.
FUZZ ?= 10s
fuzz: go
	@$(GO) list -f '{{.Dir}}' ./... | while read -r dir; do \
		for target in $$(cat $$dir/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
			echo "$$dir $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ) $$dir || exit 1; \
		done; done

clean:
	rm -rf bin

go:
	@command -v $(GO) >/dev/null || { echo "Shoal needs Go 1.26 or newer, from https://go.dev/dl/ (Debian's own is too old)"; exit 1; }
	@GOTOOLCHAIN=local $(GO) version | awk '{ split(substr($$3, 3), v, "."); if (v[1] < 1 || v[1] == 1 && v[2] < 26) { \
		print "Shoal needs Go 1.26 or newer, from https://go.dev/dl/ (Debian\047s own is too old); this is " $$3; exit 1 } }'

.PHONY: build cross test demo matrix bench fuzz clean go
