# The scripts of e2e/scripts and e2e/cluster do the work; `make` without a target lists what there is.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export CARGO_TERM_COLOR ?= auto

.PHONY: help
help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: ## Installs what builds and tests need of the machine (Debian or Ubuntu, root)
	@e2e/cluster/install-packages.sh

.PHONY: build
build: ## Builds the client, its layer and the programs of the images into target/dist
	@e2e/scripts/build.sh

.PHONY: images
images: setup build ## Builds our three images; prints their names and archives
	@e2e/scripts/images.sh

.PHONY: push
push: images ## Pushes our images for a cluster of yours: make push REGISTRY=registry.example.com
	@test -n "$(REGISTRY)" || { echo 'say where to: make push REGISTRY=registry.example.com' >&2; exit 64; }
	@e2e/scripts/push.sh "$(REGISTRY)"

.PHONY: cluster-up
cluster-up: setup ## Brings the test cluster up, unless it is; prints the admin's kubeconfig
	@e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Ends the test cluster and removes every trace of it
	@e2e/cluster/down.sh

.PHONY: cluster-load
cluster-load: ## Loads image archives into the test cluster: make cluster-load TAR="a.tar b.tar"
	@test -n "$(TAR)" || { echo 'say which: make cluster-load TAR=image.tar' >&2; exit 64; }
	@e2e/cluster/load.sh $(TAR)

.PHONY: deploy
deploy: setup images ## Builds everything, loads it into the test cluster and installs or updates the chart there
	@e2e/scripts/deploy.sh

.PHONY: demo
demo: deploy ## Deploys the sample shop and shows what a developer gets
	@e2e/scripts/shop.sh
	@cargo run --quiet --package mirrord-e2e --bin demo

.PHONY: lint
lint: ## Format, clippy, licences and sources of dependencies, scripts
	@e2e/scripts/lint.sh

.PHONY: test
test: setup ## Everything CI runs: lint, all tests, the tests on the cluster. Ends with the closing line of `cargo test`
	@e2e/scripts/test.sh

.PHONY: fuzz
fuzz: ## Runs all fuzz targets, or some: make fuzz SECONDS_EACH=60 TARGETS="paths router"
	@e2e/scripts/fuzz.sh $(TARGETS)

.PHONY: bench
bench: deploy ## Measures, prints a table and writes target/bench/results.json; or some: make bench ROWS="scale far"
	@e2e/scripts/shop.sh
	@cargo run --quiet --package mirrord-e2e --bin bench -- $(ROWS)

.PHONY: fmt
fmt: ## Formats the code
	@cargo fmt --all

.PHONY: clean
clean: cluster-down ## Removes the cluster and what was built in this checkout
	@rm -rf target
