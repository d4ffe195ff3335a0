#!/usr/bin/env bash
# Loads our images into the test cluster (brings it up first) and installs or updates the chart there; after images.sh. An
# external cluster (lib.sh) is as it is; MIRRORD_E2E_HELM holds what helm is to be told for it: `--set ingress.address=…`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if [[ $external ]]; then
  kubectl version >/dev/null || die "the external cluster doesn't answer"
  # shellcheck disable=SC2206 # several words are meant to be several
  arguments=(--set "images.registry=$MIRRORD_E2E_REGISTRY" ${MIRRORD_E2E_HELM:-})
else
  "$cluster/up.sh" >/dev/null
  arguments=(--set ingress.service.allocateNodePorts=false)
fi
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
  "${arguments[@]}" "$@" >/dev/null || {
  kubectl get pods,events --namespace mirrord >&2
  die "the chart did not come up; \`kubectl logs -n mirrord deployment/mirrord-webhook\` may know more"
}

# Nobody but an admin is known there: the developer is an admin who acts as somebody without rights.
if [[ $external ]]; then
  mkdir -p "$state"
  (
    umask 077
    kubectl config view --raw --minify --flatten --output json |
      jq '.users[0].user += {as: "developer", "as-groups": ["developers", "system:authenticated"]}' >"$state/developer.kubeconfig"
  )
fi
