#!/usr/bin/env bash
# Writes go.mod and go.sum from ../versions.env. Needed only after a version has changed there.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=../versions.env
. ../versions.env

# k8s.io/kubernetes requires its staging modules at v0.0.0: whoever builds it says which ones. They are numbered after
# the Kubernetes they belong to. The list is that of the `replace` lines of its own go.mod.
staging=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p' |
  xargs sed -n 's|^\t\(k8s.io/[a-z-]*\) => ./staging/.*|\1|p')

rm -f go.mod go.sum
go mod init mirrord.dev/e2e/cluster
go mod edit -go=1.25.0
for module in $staging; do
  go mod edit -replace "$module=$module@v0.${KUBERNETES#1.}"
done
go mod edit \
  -require "k8s.io/kubernetes@v$KUBERNETES" \
  -require "go.etcd.io/etcd/server/v3@v$ETCD" \
  -require "github.com/coredns/coredns@v$COREDNS" \
  -require "helm.sh/helm/v3@v$HELM" \
  -require "github.com/cloudnativelabs/kube-router/v2@v$KUBE_ROUTER" \
  -tool helm.sh/helm/v3/cmd/helm -tool k8s.io/kubernetes/cmd/kubectl
go mod tidy
