# shellcheck shell=bash disable=SC2034
# Places and helpers that the scripts of this folder share. Sourced, never run.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
checkout=$(cd "$scripts/../.." && pwd -P)
cluster=$checkout/e2e/cluster
shop=$checkout/e2e/shop

# MIRRORD_E2E_CLUSTER=external: the cluster that KUBECONFIG (an admin's) leads to, by kubectl and helm of PATH. Images are
# pushed below MIRRORD_E2E_REGISTRY, or are there already below that prefix: MIRRORD_E2E_PRELOADED=1.
external=
case ${MIRRORD_E2E_CLUSTER:-} in
'') state=$checkout/target/cluster ;;
external)
  external=1
  state=$checkout/target/external
  [[ -r ${KUBECONFIG:-} ]] || {
    echo "MIRRORD_E2E_CLUSTER=external: set KUBECONFIG to an admin's kubeconfig of that cluster (one file)" >&2
    exit 64
  }
  [[ -n ${MIRRORD_E2E_REGISTRY:-} ]] || {
    echo "MIRRORD_E2E_CLUSTER=external: set MIRRORD_E2E_REGISTRY to a prefix that images can be pushed to and pulled from" >&2
    exit 64
  }
  ;;
*)
  echo "MIRRORD_E2E_CLUSTER can only be external" >&2
  exit 64
  ;;
esac

# What is dear to make and depends on nothing but its inputs lives outside the checkout, so a fresh clone finds it.
cache=${MIRRORD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mirrord}
# Where cargo builds; what users, tests and the demo run is then in $dist, whatever this is.
cargo_target=${CARGO_TARGET_DIR:-$checkout/target}
dist=$checkout/target/dist
# Folders of the programs that go into images.
parts="webhook ingress sidecar-agent"

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

say() { printf '\e[1m== %s\e[0m\n' "$*" >&2; }

kubectl() { tool kubectl "$@"; }
helm() { tool helm "$@"; }
tool() {
  local name=$1
  shift
  if [[ $external ]]; then
    command "$name" --kubeconfig "$KUBECONFIG" "$@"
  else
    "$state/bin/$name" --kubeconfig "$state/admin.kubeconfig" "$@"
  fi
}

# hash_of FILE-OR-FOLDER… prints one hash of all contents and names.
hash_of() { find "$@" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12; }

# Of one of our parts, as images.sh built it last.
tag_of() { printf %s "$(<"$dist/images/$1.tag")"; }
image_of() { printf 'mirrord/%s:%s' "$1" "$(tag_of "$1")"; }

# image_archive NAME:TAG prints where its archive is.
image_archive() { printf '%s/images/%s.tar' "$cache" "${1//[\/:]/_}"; }

# build_image NAME:TAG CONTEXT [OPTION…] makes the archive, unless it is there: the tag stands for the content.
build_image() {
  local name=$1 context=$2 archive
  archive=$(image_archive "$name")
  shift 2
  [[ -s $archive ]] && return
  mkdir -p "${archive%/*}"
  own_buildah bud --quiet --isolation chroot --timestamp 0 --tag "docker.io/$name" "$@" "$context" >/dev/null
  # Uncompressed: it travels a metre.
  own_buildah push --quiet --disable-compression "docker.io/$name" "oci-archive:$archive.new:docker.io/$name" >/dev/null
  mv "$archive.new" "$archive"
}

# With a store of our own: the machine's images are its own affair.
own_buildah() { buildah --root "$cache/buildah" --runroot "$cache/buildah-run" "$@"; }

# Fills `base`: the image that the shop's images begin with, in our store.
build_base() {
  base=mirrord/shop-base:$(cd "$shop" && hash_of base)
  own_buildah inspect --type image "docker.io/$base" >/dev/null 2>&1 && return
  local folder
  folder=$(mktemp -d)
  # mmdebstrap unpacks there as another user.
  chmod 755 "$folder"
  cp "$shop/base/Dockerfile" "$folder"
  "$shop/base/debian.sh" "$folder/rootfs.tar"
  own_buildah bud --quiet --tag "docker.io/$base" "$folder" >/dev/null
  rm -rf "$folder"
}

# pulled_as NAME:TAG prints the name by which pods pull it.
pulled_as() { printf '%s%s' "${external:+$MIRRORD_E2E_REGISTRY/}" "$1"; }

# load_image NAME:TAG puts it where the cluster finds it, unless it is there.
load_image() {
  if [[ $external ]]; then
    [[ ${MIRRORD_E2E_PRELOADED:-} == 1 ]] || push_image "$1"
    return
  fi
  "$cluster/enter.sh" ctr -n k8s.io images ls -q | grep -qxF "docker.io/$1" ||
    "$cluster/load.sh" "$(image_archive "$1")" >/dev/null
}

# push_image NAME:TAG pushes it below the prefix; credentials are buildah's affair (`buildah login`, REGISTRY_AUTH_FILE).
push_image() {
  own_buildah pull --quiet "oci-archive:$(image_archive "$1")" >/dev/null
  own_buildah push --quiet ${MIRRORD_E2E_REGISTRY_INSECURE:+--tls-verify=false} "docker.io/$1" "docker://$(pulled_as "$1")" >/dev/null
}
