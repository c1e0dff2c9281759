"""What Ansible does when an operator names a node that is not there, with a real `ansible-playbook`."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import tool

FOLDER = Path(__file__).parents[2] / "ansible"
NODES = [{"name": "builders-1", "pool": "builders", "state": "active", "url": "", "labels": {"address": "192.0.2.1"}}]
WITHIN_S = 60.0

pytestmark = [pytest.mark.live("ansible"), pytest.mark.timeout(240)]


class _Fleet(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/v1/nodes":
            return self.send_error(404)
        body = json.dumps({"items": NODES, "next": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """Of an orchestrator with one node."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Fleet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("limit", ["builders-7", "builders-1,builders-7"])
def test_a_limit_that_names_nobody_is_an_error_that_says_what_to_do(url: str, tmp_path: Path, limit: str) -> None:
    """Of a node that has left Ansible would find no host, and end well; of several it would leave one out."""
    done = _listed(url, tmp_path, limit)
    assert done.returncode == 1
    assert "no node 'builders-7' in the fleet" in done.stderr
    assert "systemctl start mcpfleet-node" in done.stderr


def test_limits_that_name_somebody_are_left_alone(url: str, tmp_path: Path) -> None:
    """By name, by group, by wildcard, and by what they have in common."""
    done = _listed(url, tmp_path, "builders-1,pool_builders,&state_active,build*")
    assert done.returncode == 0, done.stderr
    assert "builders-1" in done.stdout


def _listed(url: str, home: Path, limit: str) -> subprocess.CompletedProcess[str]:
    program = tool("ansible-playbook")
    assert program is not None
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MCPFLEET_"))},
        "ANSIBLE_HOME": str(home),
        "MCPFLEET_URL": url,
        "MCPFLEET_TOKEN": "not-a-secret",
    }
    words = [program, "drain.yml", "--list-hosts", "-l", limit]
    return subprocess.run(words, cwd=FOLDER, env=environ, check=False, capture_output=True, text=True, timeout=WITHIN_S)
