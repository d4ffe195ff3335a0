#!/usr/bin/env python3
"""The shop's checkout: knows nothing but its environment, its configuration file and its neighbours.

`--once` prints one quote and ends; else each GET answers with one. Standard library and psql only, so the very same file
runs on a developer's machine.
"""

import http.server
import json
import os
import subprocess
import sys
import urllib.request


def configuration():
    """`key: value` lines of the mounted ConfigMap."""
    with open(os.environ["CHECKOUT_CONFIG"]) as file:
        pairs = (line.split(":", 1) for line in file if ":" in line)
        return {key.strip(): value.strip() for key, value in pairs}


def inventory(item):
    with urllib.request.urlopen(f"{os.environ['INVENTORY_URL']}/items/{item}", timeout=5) as answer:
        return json.load(answer)


def orders():
    """psql finds server, user and password in the environment."""
    query = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", "select count(*) from orders"]
    return int(subprocess.run(query, check=True, capture_output=True, text=True, timeout=10).stdout)


def quote():
    settings = configuration()
    item = inventory(settings["featured_item"])
    return {
        "release": os.environ["CHECKOUT_RELEASE"],
        "currency": settings["currency"],
        "item": item["name"],
        "in_stock": item["count"],
        "price": round(item["price"] * (1 + float(settings["vat"])), 2),
        "orders": orders(),
    }


class Quotes(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps(quote()).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if "--once" in sys.argv:
        print(json.dumps(quote()))
    else:
        http.server.ThreadingHTTPServer(("", 8080), Quotes).serve_forever()
