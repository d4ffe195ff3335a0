#!/usr/bin/env bash
# Runs the fuzz targets (all, or those named) for SECONDS_EACH (60), FUZZ_JOBS (2) at a time, and prints a line for each. Fails
# where one finds a fault, and says where the input is. FUZZ_SEED chooses where chance begins, 0 leaves that to the time.
#
# It needs no terminal and no root. With FUZZ_BACKGROUND=1 and in a session of its own (setsid(1)) it takes what all others
# leave of the processors: a session has a priority of its own (autogroups: sched(7)).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if [[ ${FUZZ_BACKGROUND:-} ]]; then
  renice -n 19 $$ >/dev/null
  # Missing where the kernel has no autogroups: then the line above is all that counts.
  [[ ! -w /proc/self/autogroup ]] || echo 19 >/proc/self/autogroup
fi

seconds=${SECONDS_EACH:-60}
parallel=${FUZZ_JOBS:-2}
# What runs find stays here, and the next run goes on from there; of the tree nothing is changed.
results=$checkout/target/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
programs=$cargo_target/$triple/fuzz

# What `cargo fuzz --sanitizer none` sets: counters on all edges, and what is compared with what. All of it is stable.
flags=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
)

cd "$checkout"
names=("$@")
((${#names[@]})) || for file in fuzz/fuzz_targets/*.rs; do names+=("$(basename "$file" .rs)"); done

say "Building the fuzz targets"
# With a target named, the flags aren't for what runs while building.
env -u CARGO_ENCODED_RUSTFLAGS RUSTFLAGS="${flags[*]}" cargo build --quiet --locked --profile fuzz --target "$triple" \
  --package mirrord-fuzz --features libfuzzer --bins

# Files that are made and removed all the time belong into memory.
memory=/dev/shm
[[ -w $memory ]] || memory=
scratch=$(mktemp -d -p "$memory")
declare -A running=()
end() {
  ((${#running[@]} == 0)) || kill "${!running[@]}" 2>/dev/null || true
  rm -rf "$scratch"
}
trap end EXIT

# start NAME
start() {
  local name=$1 folders=() options=()
  mkdir -p "$results/corpus/$name" "$results/crashes/$name" "$results/log"
  folders=("$results/corpus/$name" "fuzz/corpus/$name")
  [[ ! -d fuzz/regressions/$name ]] || folders+=("fuzz/regressions/$name")
  [[ ! -e fuzz/dictionaries/$name.dict ]] || options+=("-dict=fuzz/dictionaries/$name.dict")
  # An input that takes two minutes is a fault; behind other work any may take many seconds.
  TMPDIR=$scratch "$programs/$name" -max_total_time="$seconds" -seed="${FUZZ_SEED:-0}" -timeout=120 -report_slow_units=120 -print_final_stats=1 \
    -artifact_prefix="$results/crashes/$name/" "${options[@]}" "${folders[@]}" </dev/null >"$results/log/$name.log" 2>&1 &
  running[$!]=$name
}

# Waits for one to end, and tells how it went.
failed=()
finish() {
  local pid status=0 name log
  wait -n -p pid || status=$?
  name=${running[$pid]}
  unset "running[$pid]"
  log=$results/log/$name.log
  if ((status == 0)) && tell "$name" "$log"; then return; fi
  failed+=("$name")
  grep -h -A 3 -e 'panicked at' -e 'ERROR: libFuzzer' "$log" | head -n 20 || tail -n 20 "$log"
  printf '%s failed: see %s\n' "$name" "$log"
  sed -n "s|.*Test unit written to \(.*\)|  again: $programs/$name \1|p" "$log"
}

# tell NAME LOG prints a line of figures; fails where nothing was counted.
tell() {
  local runs rate coverage corpus
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2")
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$2")
  read -r coverage corpus < <(sed -n 's/^#.*cov: \([0-9]*\) ft: .* corp: \([^ ]*\) .*/\1 \2/p' "$2" | tail -n 1)
  printf '%-20s %11d executions %8d a second   coverage %6d   corpus %s\n' "$1" "$runs" "$rate" "$coverage" "$corpus"
  ((coverage > 0))
}

say "Fuzzing ${#names[@]} targets, $seconds seconds each"
for name in "${names[@]}"; do
  ((${#running[@]} < parallel)) || finish
  start "$name"
done
while ((${#running[@]})); do finish; done
((${#failed[@]} == 0)) || die "faults found by: ${failed[*]} (inputs in $results/crashes; TESTING.md says what to do with them)"
