#!/usr/bin/env bash
# Builds our three images from their Dockerfiles, after build.sh; prints their names and archives.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

say "Building the images"
for part in $parts; do
  cp "$checkout/$part/Dockerfile" "$dist/images/$part/"
  # The tag is the content: a Deployment rolls out exactly when its image is another.
  (cd "$dist/images" && printf 'dev-%s' "$(hash_of "$part")" >"$part.tag")
  build_image "$(image_of "$part")" "$dist/images/$part"
  printf '%s %s\n' "docker.io/$(image_of "$part")" "$(image_archive "$(image_of "$part")")"
done
