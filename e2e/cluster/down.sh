#!/usr/bin/env bash
# Ends the test cluster and removes all of it (with --keep-logs: but its logs). Safe when there is none.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

main() {
  local keep_logs=false locked=false
  for option; do
    case $option in
    --keep-logs) keep_logs=true ;;
    --locked) locked=true ;; # the caller, up.sh, holds the lock
    *) die "unknown option $option" ;;
    esac
  done
  $locked || lock

  # With process 1 the kernel ends every process of its namespace: programs, shims and containers.
  local pid
  if pid=$(node_pid); then
    kill -KILL "$pid"
    gone_within 10 node_pid || die "process $pid of the node does not end"
  fi
  # The network namespace takes its end of the link along, a little later.
  ip link delete "$host_interface" 2>/dev/null || true
  remove_cgroups || die "control groups named $cgroup can't be removed"

  if $keep_logs; then
    find "$state" -mindepth 1 -maxdepth 1 ! -path "$log" -exec rm -rf {} +
  else
    rm -rf "$state"
  fi
}

remove_cgroups() {
  gone_within 10 cgroups_left
}

cgroups_left() {
  local folders=() folder
  for folder in "/sys/fs/cgroup/$cgroup" /sys/fs/cgroup/*/"$cgroup"; do
    [[ -d $folder ]] && folders+=("$folder")
  done
  ((${#folders[@]})) || return 1
  # Ordinary removal wants empty groups: fails while a process is still ending.
  find "${folders[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# gone_within SECONDS COMMAND… waits until the command fails.
gone_within() {
  local deadline=$((SECONDS + $1))
  shift
  while "$@" >/dev/null; do
    ((SECONDS < deadline)) || return 1
    sleep 0.02
  done
}

main "$@"
