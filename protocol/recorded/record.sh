#!/usr/bin/env bash
# Records what the release of this commit says and stores: `record.sh 0.2`, with the test cluster up and the shop in it.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=${1:?say which release: record.sh 0.2}
releases=protocol/recorded/releases
folder=$releases/$release
state=target/cluster
kubectl=("$state/bin/kubectl" --kubeconfig "$state/admin.kubeconfig")
namespace=recorded

RECORD=$release cargo test --quiet --package mirrord-sidecar-agent --test loopback releases

"${kubectl[@]}" delete namespace $namespace --ignore-not-found
image=$("${kubectl[@]}" get deployment checkout -n shop -o 'jsonpath={.spec.template.spec.containers[0].image}')
"${kubectl[@]}" apply -f - <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: $namespace, labels: {mirrord.dev/inject: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: $namespace}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: app, image: $image, command: [sleep, infinity]}]}
YAML
"${kubectl[@]}" rollout status -n $namespace deployment/app
export KUBECONFIG=$state/admin.kubeconfig
home=$(mktemp -d)
trap 'rm -rf "$home"; "${kubectl[@]}" delete namespace $namespace --wait=false' EXIT
# The proxy lingers, and keeps its Session.
HOME=$home XDG_RUNTIME_DIR=$home target/dist/mirrord exec -t deployment/app -n $namespace -- true
session=$("${kubectl[@]}" get sessions.mirrord.dev -n $namespace -o name)
pod=$("${kubectl[@]}" get pods -n $namespace -o name)
"${kubectl[@]}" get "$session" -n $namespace -o json >"$folder/session.json"
"${kubectl[@]}" get "$pod" -n $namespace -o json >"$folder/pod.json"
"${kubectl[@]}" get crd sessions.mirrord.dev -o json >"$folder/crd.json"
"${kubectl[@]}" get mutatingwebhookconfiguration mirrord -o json >"$folder/webhooks.json"
"${kubectl[@]}" get secrets mirrord-ca mirrord-gate -n mirrord -o json >"$folder/secrets.json"
"${kubectl[@]}" delete "$session" -n $namespace
(cd $releases && sha256sum -- */* >SHA256SUMS)
