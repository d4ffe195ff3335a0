#!/usr/bin/env bash
# Builds the images of `e2e/images` and puts them on the node: pods that no other image can make. After shop.sh.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

images=$checkout/e2e/images

main() {
  say "Building the images of sample pods"
  mkdir -p "$dist/images"
  named_user
  no_shell
}

named_user() {
  local name
  name=mirrord/pods-named-user:$(cd "$checkout/e2e" && hash_of images/named-user shop/base)
  if [[ ! -s $(image_archive "$name") ]]; then
    build_base
    build_image "$name" "$images/named-user" --build-arg "BASE=docker.io/$base"
  fi
  put named-user "$name"
}

no_shell() {
  local name folder
  name=mirrord/pods-no-shell:$(cd "$images" && hash_of no-shell)
  if [[ ! -s $(image_archive "$name") ]]; then
    folder=$(mktemp -d)
    cp "$images/no-shell/"{Dockerfile,greeting} "$folder"
    gcc -Os -static -s -o "$folder/wait" "$images/no-shell/wait.c"
    build_image "$name" "$folder"
    rm -rf "$folder"
  fi
  put no-shell "$name"
}

# put NAME IMAGE loads it, and notes the image's name for the tests.
put() {
  load_image "$2"
  printf %s "docker.io/$2" >"$dist/images/pods-$1.image"
}

main
