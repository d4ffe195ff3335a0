#!/usr/bin/env bash
# Builds what is delivered: the client for this machine, and the static programs of the images. Results are in target/dist.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

musl=x86_64-unknown-linux-musl

cd "$checkout"
say "Building the client"
cargo build --locked --profile layer --package mirrord-layer-preload
MIRRORD_EMBED_LAYER=$cargo_target/layer/libmirrord_layer_preload.so cargo build --locked --release --package mirrord
say "Building the programs of the images"
cargo build --locked --target $musl --profile control-plane --package mirrord-webhook --package mirrord-ingress
cargo build --locked --target $musl --profile agent --package mirrord-sidecar-agent

# Replaced, not overwritten: a proxy that lingers may be running it.
place() {
  mkdir -p "$(dirname "$2")"
  cmp -s "$1" "$2" || { cp "$1" "$2.new" && mv "$2.new" "$2"; }
}
place "$cargo_target/release/mirrord" "$dist/mirrord"
place "$cargo_target/layer/libmirrord_layer_preload.so" "$dist/libmirrord_layer_preload.so"
place "$cargo_target/$musl/control-plane/mirrord-webhook" "$dist/images/webhook/mirrord-webhook"
place "$cargo_target/$musl/control-plane/mirrord-ingress" "$dist/images/ingress/mirrord-ingress"
place "$cargo_target/$musl/agent/mirrord-agent" "$dist/images/sidecar-agent/mirrord-agent"
