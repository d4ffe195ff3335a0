#!/usr/bin/env bash
# Installs what the test cluster needs of the machine, on Debian and Ubuntu as root; elsewhere lists what is missing.
set -euo pipefail

# A command (or file) that tells that the Debian package is there; checking these costs no process. First the node's.
needs=(
  "containerd containerd"
  "runc runc"
  "/usr/lib/cni/ptp containernetworking-plugins"
  "nft nftables"
  "iptables iptables"
  "ipset ipset"
  "ip iproute2"
)
# An external cluster (e2e/scripts/lib.sh) has nodes of its own.
[[ ${MIRRORD_E2E_CLUSTER:-} != external ]] || needs=("kubectl kubernetes-client")
needs+=(
  "buildah buildah"
  "mmdebstrap mmdebstrap"
  "gcc gcc"
  "c++ g++"
  "musl-gcc musl-tools"
  "curl curl"
  "jq jq"
  "psql postgresql-client"
  "python3 python3"
  "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 libfaketime"
  "flock util-linux"
  "shellcheck shellcheck"
  "/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring"
)
target=x86_64-unknown-linux-musl

main() {
  local need missing=() others=()
  for need in "${needs[@]}"; do
    present "${need% *}" || missing+=("${need#* }")
  done
  command -v go >/dev/null || others+=("Go 1.21 or later (it fetches the one that go.mod names)")
  if ! command -v rustup >/dev/null; then
    rust_target_present || others+=("the Rust target $target")
  elif ! rust_target_present; then
    rustup target add $target
  fi

  if ((${#missing[@]})) && ((EUID == 0)) && command -v apt-get >/dev/null; then
    install_quietly "${missing[@]}"
    missing=()
  fi
  if ((${#missing[@]} + ${#others[@]})); then
    echo "Missing for the test cluster:" >&2
    ((${#missing[@]} == 0)) || echo "  Debian packages (or their like): ${missing[*]}" >&2
    ((${#others[@]} == 0)) || printf '  %s\n' "${others[@]}" >&2
    exit 1
  fi
}

present() {
  case $1 in
  /*) [[ -e $1 ]] ;;
  *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
  esac
}

# Asking rustup takes longer than looking where it puts a target.
rust_target_present() {
  local sysroot
  sysroot=$(rustc --print sysroot 2>/dev/null) && [[ -d $sysroot/lib/rustlib/$target/lib ]]
}

# The packages bring services (containerd) that shall not run on this machine for our sake: a policy-rc.d that says no is what
# their installation scripts ask first (invoke-rc.d(8)). An own one of the machine is put back afterwards.
install_quietly() {
  local policy=/usr/sbin/policy-rc.d saved=
  if [[ -e $policy ]]; then
    saved=$(mktemp)
    cp --preserve=all "$policy" "$saved"
  fi
  # shellcheck disable=SC2064 # the values of now
  trap "if [[ -n '$saved' ]]; then cp --preserve=all '$saved' $policy; rm '$saved'; else rm -f $policy; fi" EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy

  local units=()
  if [[ -d /run/systemd/system ]] && [[ ! -e /lib/systemd/system/containerd.service ]]; then
    units=(containerd.service)
  fi
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -o DPkg::Lock::Timeout=300 -qq)
  # Another apt-get may hold the lock of the lists, for which there is no such time-out.
  local try
  for try in {1..60}; do
    "${apt[@]}" update && break
    ((try < 60)) && sleep 2
  done
  "${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null
  # Nor shall it start with the machine.
  ((${#units[@]} == 0)) || systemctl disable "${units[@]}"
}

main
