#!/usr/bin/env bash
# Pushes our three images, after images.sh, as the chart asks for them: REGISTRY/mirrord/PART:APPVERSION. Credentials are
# buildah's affair (`buildah login`, REGISTRY_AUTH_FILE).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

registry=${1:?say where to: push.sh registry.example.com}
version=$(sed -n 's/^appVersion: //p' "$checkout/charts/mirrord/Chart.yaml")

say "Pushing the images"
for part in $parts; do
  own_buildah pull --quiet "oci-archive:$(image_archive "$(image_of "$part")")" >/dev/null
  own_buildah push --quiet "docker.io/$(image_of "$part")" "docker://$registry/mirrord/$part:$version" >/dev/null
  echo "$registry/mirrord/$part:$version"
done
