# shellcheck shell=bash disable=SC2034
# Names and helpers that the scripts of this folder share. Sourced, never run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
checkout=$(cd "$here/../.." && pwd -P)
state=$checkout/target/cluster
log=$state/log

# Two checkouts can each have a cluster: what is visible on the host is named after the checkout's path.
checkout_hash=$(printf %s "$checkout" | sha256sum | cut -c1-7)
host_interface=mirrord-$checkout_hash # 15 bytes, the longest that Linux takes (IFNAMSIZ)
cgroup=mirrord-$checkout_hash

# Seen only inside the node's network namespace, hence the same everywhere.
pods=10.244.0.0/16
services=10.96.0.0/16
apiserver_service=10.96.0.1
dns_service=10.96.0.10

# The machine's HTTP proxy, if any, serves downloads, not the cluster.
export NO_PROXY=${NO_PROXY:+$NO_PROXY,}198.18.0.0/15,127.0.0.1 no_proxy=${no_proxy:+$no_proxy,}198.18.0.0/15,127.0.0.1

# The binaries depend on nothing but these files, so all checkouts share one build of each recipe.
recipe_hash=$(cd "$here" && find versions.env build.sh pause go -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
cache=${MIRRORD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mirrord}/cluster/$recipe_hash
bin=$cache/bin

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# lock lets one up.sh or down.sh of this checkout work at a time. It locks this folder, as a lock file would stay behind.
# What outlives the script must not inherit the lock: start it with 9<&-.
lock() {
  exec 9<"$here"
  flock 9
}

# elapsed BEGAN prints the seconds since BEGAN, a value of $EPOCHREALTIME.
elapsed() {
  local microseconds=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
  printf '%d.%d' $((microseconds / 1000000)) $((microseconds / 100000 % 10))
}

# node_pid prints the host's number of the node's first process, if that lives. A number alone may have been reused since:
# it counts only together with the process's start time (field 22 of /proc/PID/stat, see proc_pid_stat(5)).
node_pid() {
  local pid started
  [[ -r $state/node.pid ]] && read -r pid started <"$state/node.pid" || return 1
  [[ $(start_time "$pid") == "$started" ]] && printf %s "$pid"
}

start_time() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
  # The process's name, in parentheses, is field 2 and may hold blanks.
  read -ra stat <<<"${stat##*) }"
  # A zombie (Z) is as good as gone.
  [[ ${stat[0]} == Z ]] || printf %s "${stat[19]}"
}

# wait_until SECONDS WHAT LOG COMMAND… polls until the command succeeds; if it doesn't in time, or a program of the node has
# ended (the node notes that in `failed`), shows the end of the log and fails.
wait_until() {
  local deadline=$((SECONDS + $1)) what=$2 guilty=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    if [[ -e $state/failed ]]; then
      what="$(<"$state/failed") (waiting for $what)"
      read -r guilty _ <"$state/failed"
    elif ((SECONDS < deadline)); then
      sleep 0.1
      continue
    fi
    printf 'The cluster did not come up: %s. End of %s:\n' "$what" "$log/$guilty.log" >&2
    tail -n 20 "$log/$guilty.log" >&2
    return 1
  done
}
