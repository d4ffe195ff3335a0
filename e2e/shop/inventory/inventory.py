#!/usr/bin/env python3
"""The shop's inventory: what there is, as JSON. `/` lists it, `/items/NAME` is one of it."""

import http.server
import json

ITEMS = {
    "teapot": {"name": "teapot", "count": 12, "price": 25.0},
    "samovar": {"name": "samovar", "count": 3, "price": 180.0},
}


class Inventory(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = list(ITEMS.values()) if self.path == "/" else ITEMS.get(self.path.removeprefix("/items/"))
        body = json.dumps(found).encode() + b"\n"
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", 8080), Inventory).serve_forever()
