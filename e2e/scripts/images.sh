#!/usr/bin/env bash
# Builds our three images from their Dockerfiles, after build.sh, and writes their names to target/dist/images.env.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

say "Building the images"
for part in webhook ingress sidecar-agent; do
  cp "$checkout/$part/Dockerfile" "$dist/images/$part/"
  # The tag is the content: a Deployment rolls out exactly when its image is another.
  tag=dev-$(cd "$dist/images" && hash_of "$part")
  build_image "mirrord/$part:$tag" "$dist/images/$part"
  echo "${part//-/_}_tag=$tag"
done >"$dist/images.env.new"
mv "$dist/images.env.new" "$dist/images.env"
. "$dist/images.env"
for image in "webhook:$webhook_tag" "ingress:$ingress_tag" "sidecar-agent:$sidecar_agent_tag"; do
  printf '%s %s\n' "docker.io/mirrord/$image" "$(image_archive "mirrord/$image")"
done
