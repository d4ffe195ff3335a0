#!/usr/bin/env bash
# Loads our images into the test cluster (brings it up first) and installs or updates the chart there; after images.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

"$cluster/up.sh" >/dev/null
for part in $parts; do
  load_image "$(image_of "$part")"
done

say "Installing the chart"
kubectl apply --filename - >/dev/null <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: mirrord, labels: {pod-security.kubernetes.io/enforce: restricted}}
YAML
# Helm installs a CRD once and never updates it.
kubectl apply --server-side --force-conflicts --filename "$checkout/charts/mirrord/crds" >/dev/null
kubectl wait --for=condition=Established crd/sessions.mirrord.dev --timeout=30s >/dev/null
helm upgrade --install mirrord "$checkout/charts/mirrord" --namespace mirrord --wait --timeout 3m \
  --set "images.webhook.tag=$(tag_of webhook),images.ingress.tag=$(tag_of ingress)" \
  --set "images.sidecarAgent.tag=$(tag_of sidecar-agent)" \
  --set ingress.service.allocateNodePorts=false "$@" >/dev/null || {
  kubectl get pods,events --namespace mirrord >&2
  die "the chart did not come up; \`kubectl logs -n mirrord deployment/mirrord-webhook\` may know more"
}
