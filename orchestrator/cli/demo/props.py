"""What the demo's tools work on: a small git repository, and a page on loopback. Made here, removed with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMITS = (
    ("Begin the shop", "README.md", "# Shop\n\nSells one thing.\n"),
    ("Price the thing", "price.txt", "9.90 EUR\n"),
    ("Sell two for the price of one", "price.txt", "9.90 EUR, the second one is free\n"),
)
PAGE = b"<html><body><h1>Shop</h1><p>Open today, two for the price of one.</p></body></html>"
GIT_S = 20.0
"""No git command of these takes longer on a working machine."""


def make_repository(folder: Path) -> bool:
    """Three commits; False where git is not installed."""
    git = shutil.which("git")
    if git is None:
        return False
    folder.mkdir(parents=True)
    who = ("-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
    _git(git, folder, "init", "--quiet", "--initial-branch=main")
    for message, name, text in COMMITS:
        (folder / name).write_text(text)
        _git(git, folder, "add", name)
        _git(git, folder, *who, "commit", "--quiet", "--no-verify", "-m", message)
    return True


def _git(git: str, folder: Path, *words: str) -> None:
    # The user's own settings (hooks, templates, signing) have no say in a throwaway repository.
    environ = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder)}
    subprocess.run([git, "-C", str(folder), *words], check=True, capture_output=True, timeout=GIT_S, env=environ)


@contextmanager
def page() -> Iterator[str]:
    """The address of a page on a free loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, name="demo-page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """The page, whatever is asked for."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - http.server's own word
        """Nothing: the story tells what happens."""
