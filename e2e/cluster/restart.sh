#!/usr/bin/env bash
# Kills a program of the node and starts it again: `restart.sh kube-apiserver`. With --stop it stays down, until --start:
# `restart.sh --stop kubelet`. Says nothing about when the program is ready: wait for what you need of it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

main() {
  local stop=true start=true
  case ${1:-} in
  --stop) start=false && shift ;;
  --start) stop=false && shift ;;
  esac
  (($# == 1)) || die "say which program: $(programs)"
  node_pid >/dev/null || die "the cluster is not up"
  local program=$state/programs/$1
  [[ -e $program || -e $program.stopped ]] || die "$1 is no program of the node: one of $(programs)"
  if $stop && [[ ! -e $program.stopped ]]; then
    touch "$program.stopped"
    "$here/enter.sh" kill -KILL "$(<"$program")"
    # node.sh removes the number when the program has ended.
    until [[ ! -e $program ]]; do sleep 0.02; done
  fi
  if $start; then
    rm -f "$program.stopped"
    until [[ -s $program ]]; do sleep 0.02; done
  fi
}

programs() {
  local file
  for file in "$state"/programs/*; do
    [[ $file == *.stopped ]] || printf '%s ' "${file##*/}"
  done
}

main "$@"
