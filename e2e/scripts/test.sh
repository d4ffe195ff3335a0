#!/usr/bin/env bash
# Everything CI runs, the quickest first; the last line is `cargo test`'s.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[[ $external ]] || ((EUID == 0)) || die "must be root: the end-to-end tests run on a cluster made of namespaces (\`make lint\` and
\`cargo test --workspace --exclude mirrord-e2e\` need no root)"

"$scripts/lint.sh"
cd "$checkout"
say "Unit and component tests"
cargo test --locked --workspace --exclude mirrord-e2e
"$scripts/build.sh"
"$scripts/images.sh" >/dev/null
"$scripts/deploy.sh"
"$scripts/shop.sh"
"$scripts/samples.sh"

say "Fuzz targets, in the background"
mkdir -p target/fuzz
fuzz_log=$checkout/target/fuzz/run.log
# A change is judged by what it changes: chance begins where it did before. `make fuzz` goes on elsewhere.
FUZZ_BACKGROUND=1 FUZZ_SEED=1 setsid "$scripts/fuzz.sh" </dev/null >"$fuzz_log" 2>&1 &
fuzz=$!
trap 'kill "$fuzz" 2>/dev/null || :' EXIT

say "End-to-end tests"
# Kubelet is what they wait for, so more of them at a time than there are processors.
cargo test --locked --package mirrord-e2e --test cluster -- --test-threads=4
# Each of these concerns everybody.
cargo test --locked --package mirrord-e2e --test documents --test outages --test restarts --test rotation --test upgrades

say "Fuzz targets, what they found"
found=0
wait "$fuzz" || found=$?
trap - EXIT
cat "$fuzz_log"
((found == 0)) || die "a fuzz target failed"
cargo test --locked --package mirrord-fuzz
