#!/usr/bin/env bash
# The quick part of CI: nothing is run here but compilers and linters.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

cd "$checkout"
say "Format and lints"
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
if command -v shellcheck >/dev/null; then
  shellcheck --external-sources --source-path=SCRIPTDIR e2e/scripts/*.sh e2e/cluster/*.sh e2e/shop/*/*.sh \
    protocol/recorded/*.sh .ci/run
fi

say "Licences, bans and sources of dependencies"
deny=$cache/tools/cargo-deny-0.20.2
if [[ ! -x $deny/bin/cargo-deny ]]; then
  # Once. Without the whole-program optimisation of its release profile: it runs for seconds.
  CARGO_TARGET_DIR=$deny/target CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    cargo install cargo-deny --quiet --locked --version "${deny##*-}" --root "$deny"
  rm -r "$deny/target"
fi
# Not `advisories`: their database is on GitHub, which CI can't reach (SECURITY.md).
PATH=$deny/bin:$PATH cargo deny --locked check --hide-inclusion-graph licenses bans sources
