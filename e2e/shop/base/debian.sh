#!/usr/bin/env bash
# Makes the root file system of the shop's images: `debian.sh ROOTFS.TAR`. Debian, without what no one reads here.
set -euo pipefail

unread=('/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' '/usr/lib/postgresql/15/lib/bitcode/*')
# PostgreSQL loads LLVM only to compile queries at run time, which orders-db turns off.
unread+=('/usr/lib/*/libLLVM*')

# shellcheck disable=SC2016 # "$1" is mmdebstrap's to expand: the new root
mmdebstrap --quiet --variant=minbase --include=python3,postgresql-15,postgresql-client,curl,ca-certificates \
  "${unread[@]/#/--dpkgopt=path-exclude=}" \
  --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/lib/postgresql/15' \
  bookworm "$1"
