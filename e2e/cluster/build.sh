#!/usr/bin/env bash
# Builds the cluster's programs and its pause image into the cache, and prints the folder. Does nothing when they are there.
# Cold it takes some ten minutes on two cores; with Go's build cache warm, seconds.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$here/versions.env"

if [[ -d $bin ]]; then
  touch "$cache" # in use
  printf '%s\n' "$bin"
  exit
fi

for version in "k8s.io/kubernetes v$KUBERNETES" "go.etcd.io/etcd/server/v3 v$ETCD" "github.com/coredns/coredns v$COREDNS" \
  "helm.sh/helm/v3 v$HELM" "github.com/cloudnativelabs/kube-router/v2 v$KUBE_ROUTER"; do
  grep -qF "$version" "$here/go/go.mod" || die "go.mod lacks \"$version\" of versions.env: run go/update.sh"
done

mkdir -p "${cache%/*}"
building=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$building"' EXIT
mkdir "$building/bin"

# What `make` of each project sets. Kubernetes and Helm announce these versions and behave by them.
minor=${KUBERNETES#*.}
minor=${minor%.*}
set_variables=(
  -X k8s.io/component-base/version.gitVersion="v$KUBERNETES" -X k8s.io/client-go/pkg/version.gitVersion="v$KUBERNETES"
  -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor="$minor"
  -X helm.sh/helm/v3/internal/version.version="v$HELM"
  -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor="$minor"
)
echo "Building Kubernetes $KUBERNETES (cold: about ten minutes) …" >&2
# Static, as the programs then need nothing of the machine.
(cd "$here/go" && CGO_ENABLED=0 GOFLAGS=-mod=readonly nice -n 5 go build -trimpath -buildvcs=false \
  -ldflags "-s -w ${set_variables[*]}" -o "$building/bin/" ./node helm.sh/helm/v3/cmd/helm \
  k8s.io/kubernetes/cmd/kubectl)
for program in cluster-pki coredns etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubelet loadbalancer networkpolicies; do
  ln -s node "$building/bin/$program"
done

# An image is a tar of a manifest, a configuration and its layers, as `docker save` writes it.
image=$building/image
mkdir "$image"
gcc -Os -static -s -o "$image/pause" "$here/pause/pause.c"
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory "$image" --file "$image/layer.tar" pause
layer=$(sha256sum "$image/layer.tar" | cut -d' ' -f1)
cat >"$image/config.json" <<JSON
{"architecture":"$(go env GOARCH)","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
echo '[{"Config":"config.json","RepoTags":["localhost/pause:1"],"Layers":["layer.tar"]}]' >"$image/manifest.json"
tar --create --directory "$image" --file "$building/pause.tar" manifest.json config.json layer.tar
rm -rf "$image"

# Builds of older recipes that nobody has used for a month.
find "${cache%/*}" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
mv --no-target-directory "$building" "$cache" 2>/dev/null || [[ -d $bin ]] # or another checkout was faster
printf '%s\n' "$bin"
