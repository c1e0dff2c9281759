"""What full observability talks to, in a process of its own: takes OTLP batches and drops them, and scrapes /metrics.

Started as `python -m benchmarks.sink PORT URL TOKEN`. Its own CPU is not counted: a collector's is its host's.
"""

from __future__ import annotations

import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCRAPE_EVERY_S = 5.0


class Drop(BaseHTTPRequestHandler):
    """Answers 200 to any batch."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One batch."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def scrape(url: str, token: str) -> None:
    """As Prometheus would, but oftener: a bench is short."""
    asked = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
    pause = threading.Event()
    while not pause.wait(SCRAPE_EVERY_S):
        with suppress(urllib.error.URLError), urllib.request.urlopen(asked, timeout=60) as answer:
            answer.read()


def main(port: str, url: str, token: str) -> None:
    """Until it is ended."""
    threading.Thread(target=scrape, args=(url, token), daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(port)), Drop).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
