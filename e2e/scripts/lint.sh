#!/usr/bin/env bash
# The quick part of CI: nothing is run here but compilers and linters.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

cd "$checkout"
say "Format and lints"
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
if command -v shellcheck >/dev/null; then
  shellcheck --external-sources --source-path=SCRIPTDIR e2e/scripts/*.sh e2e/cluster/*.sh e2e/shop/*/*.sh .ci/run
fi
if command -v cargo-deny >/dev/null || [[ -x $cache/tools/bin/cargo-deny ]]; then
  # Not `advisories`: their database is on GitHub, which CI can't reach.
  PATH=$PATH:$cache/tools/bin cargo deny --locked check licenses bans sources
else
  say "cargo-deny isn't installed: licences and sources of dependencies are not checked"
fi
