#!/usr/bin/env bash
# Runs a command on the node (network, mount and process namespaces), with the cluster's programs on PATH:
# `enter.sh ctr -n k8s.io containers ls`, `enter.sh nft list ruleset`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

pid=$(node_pid) || die "the cluster is not up"
export PATH="$state/bin:$PATH" KUBECONFIG="$state/admin.kubeconfig"
exec nsenter --target "$pid" --net --mount --pid --wd="$PWD" -- "$@"
