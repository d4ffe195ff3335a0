#!/usr/bin/env bash
# Puts the sample shop into the test cluster: images, objects, the developer's rights. The chart must be there.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

shop=$checkout/e2e/shop

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

# Fills `image_of`: the name of each with its tag, which stands for the content.
declare -A image_of
build_images() {
  local part
  for part in checkout inventory orders-db; do
    image_of[$part]=mirrord/shop-$part:$(cd "$shop" && hash_of base "$part")
    if [[ ! -s $(image_archive "${image_of[$part]}") ]]; then
      build_base
      build_image "${image_of[$part]}" "$shop/$part" --build-arg "BASE=docker.io/$base"
    fi
    load_image "${image_of[$part]}"
  done
}

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

# The manifests with the images just built.
manifests() {
  local part
  local -a edits
  for part in "${!image_of[@]}"; do
    edits+=(-e "s|mirrord/shop-$part:dev|${image_of[$part]}|")
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
  . "$dist/images.env"
  local deployment images
  for deployment in inventory checkout; do
    images=$(kubectl get pods --namespace shop --selector "app=$deployment" \
      --output 'jsonpath={range .items[*]}{range .spec.initContainers[*]}{.image}{"\n"}{end}{end}')
    if [[ -n $(kubectl get pods --namespace shop --selector "app=$deployment" --output name) ]] &&
      [[ $(grep -c "sidecar-agent:$sidecar_agent_tag" <<<"$images") != \
        $(kubectl get pods --namespace shop --selector "app=$deployment" --output name | wc -l) ]]; then
      kubectl rollout restart --namespace shop "deployment/$deployment" >/dev/null
    fi
  done
}

wait_for_the_last_to_leave() {
  local name
  for name in $(kubectl get pods --namespace shop \
    --output 'jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.metadata.name}{"\n"}{end}'); do
    kubectl wait --for=delete --namespace shop "pod/$name" --timeout=60s >/dev/null
  done
}

main
