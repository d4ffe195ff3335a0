#!/bin/sh
# As many images start: works something out, exports it, and becomes the program.
CHECKOUT_STARTED_BY="entrypoint of $(id -u)"
export CHECKOUT_STARTED_BY
exec python3 /srv/checkout/checkout.py "$@"
