#!/usr/bin/env bash
# Puts the sample shop into the test cluster: images, objects, the developer's rights. The chart must be there.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

main() {
  say "Deploying the sample shop"
  build_images
  wait_for_injection
  manifests | kubectl apply --filename - >/dev/null
  kubectl apply --filename "$shop/developer.yaml" >/dev/null
  kubectl delete --ignore-not-found --filename "$shop/secrets.yaml" >/dev/null
  restart_where_outdated
  for deployment in orders-db inventory checkout; do
    kubectl rollout status --namespace shop "deployment/$deployment" --timeout=120s >/dev/null
  done
  # Nothing is to move any more when somebody looks whether mirrord moves anything.
  wait_for_the_last_to_leave
}

# Fills `shop_image`: the name of each with its tag, which stands for the content.
declare -A shop_image
build_images() {
  local part
  for part in checkout inventory orders-db; do
    shop_image[$part]=mirrord/shop-$part:$(cd "$shop" && hash_of base "$part")
    if [[ ! -s $(image_archive "${shop_image[$part]}") ]]; then
      build_base
      build_image "${shop_image[$part]}" "$shop/$part" --build-arg "BASE=docker.io/$base"
    fi
    load_image "${shop_image[$part]}"
  done
}

# The manifests with the images just built.
manifests() {
  local part
  local -a edits
  for part in "${!shop_image[@]}"; do
    edits+=(-e "s|mirrord/shop-$part:dev|$(pulled_as "${shop_image[$part]}")|")
  done
  sed "${edits[@]}" "$shop/shop.yaml"
}

# The API server learns of a changed webhook configuration a moment after it is stored.
wait_for_injection() {
  kubectl apply --filename - >/dev/null <<<"$(sed '/^---/,$d' "$shop/shop.yaml")"
  local deadline=$((SECONDS + 60))
  until probe_pod | kubectl create --dry-run=server --output yaml --filename - | grep -q 'mirrord.dev/status'; do
    ((SECONDS < deadline)) || die "pods of the namespace shop get no sidecar"
  done
}

probe_pod() {
  cat <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: shop}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - {name: probe, image: probe, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
YAML
}

# Pods keep the sidecar they were born with. An admin would restart them after an update too.
restart_where_outdated() {
  local deployment all fresh
  for deployment in inventory checkout; do
    all=$(pods_of "$deployment" | wc -l)
    fresh=$(pods_of "$deployment" | grep -c "$(image_of sidecar-agent)" || true)
    ((all == fresh)) || kubectl rollout restart --namespace shop "deployment/$deployment" >/dev/null
  done
}

# One line for each, with the images of its init containers.
pods_of() {
  kubectl get pods --namespace shop --selector "app=$1" \
    --output 'jsonpath={range .items[*]}{.metadata.name} {.spec.initContainers[*].image}{"\n"}{end}'
}

wait_for_the_last_to_leave() {
  local name
  for name in $(kubectl get pods --namespace shop \
    --output 'jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.metadata.name}{"\n"}{end}'); do
    kubectl wait --for=delete --namespace shop "pod/$name" --timeout=60s >/dev/null
  done
}

main
