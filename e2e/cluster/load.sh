#!/usr/bin/env bash
# Loads image archives (docker-archive or oci-archive tars) into the node: `load.sh TAR…`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

for archive; do
  # By standard input, as the node's own mounts may hide the file.
  "$here/enter.sh" ctr -n k8s.io images import - <"$archive"
done
