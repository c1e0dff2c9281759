"""The dynamic inventory, run as Ansible runs it, against real HTTP answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "ansible/inventory/mcpfleet.py"
TOKEN = "not-a-secret"


def _node(name: str, *, state: str = "active", url: str = "", **labels: str) -> dict[str, Any]:
    return {"name": name, "pool": "builders", "state": state, "url": url, "labels": labels}


class Orchestrator:
    """Answers what it was given, page by page, to whoever has the token."""

    def __init__(self) -> None:
        self.answers: dict[str, list[dict[str, Any]]] = {"/v1/nodes": []}
        self.page_size = 1
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?cursor=")
                items = fleet.answers.get(path)
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    return self.send_error(401)
                if items is None:
                    return self.send_error(404)
                start = int(query or 0)
                after = start + fleet.page_size
                page = {"items": items[start:after], "next": str(after) if after < len(items) else None}
                body = json.dumps(page).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return None

            def log_message(self, *_words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """One, on a free port."""
    orchestrator = Orchestrator()
    yield orchestrator
    orchestrator.close()


def _run(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--list"], env=environ, capture_output=True, text=True, check=False, timeout=60
    )


def _listed(url: str) -> dict[str, Any]:
    run = _run(MCPFLEET_URL=url, MCPFLEET_TOKEN=TOKEN)
    assert run.returncode == 0, run.stderr
    form: dict[str, Any] = json.loads(run.stdout)
    return form


def test_nodes_are_grouped_by_pool_and_state(orchestrator: Orchestrator) -> None:
    """An operator says `-l pool_builders` or `-l state_lost`, and every page of a large fleet is read."""
    orchestrator.answers["/v1/nodes"] = [_node("a-1"), _node("a-2", state="lost"), _node("a-3")]
    form = _listed(orchestrator.url)
    assert form["pool_builders"]["hosts"] == ["a-1", "a-2", "a-3"]
    assert form["state_lost"]["hosts"] == ["a-2"]
    assert form["_meta"]["hostvars"]["a-1"]["node_pool"] == "builders"


def test_where_a_node_is_reached(orchestrator: Orchestrator) -> None:
    """Its address label wins over its URL; a loopback URL says nothing about where it is."""
    orchestrator.answers["/v1/nodes"] = [
        _node("labelled", url="http://10.0.0.9:1", address="192.0.2.7"),
        _node("served", url="http://10.0.0.9:1"),
        _node("loopback", url="http://127.0.0.1:1"),
    ]
    hosts = _listed(orchestrator.url)["_meta"]["hostvars"]
    assert {name: host.get("ansible_host") for name, host in hosts.items()} == {
        "labelled": "192.0.2.7",
        "served": "10.0.0.9",
        "loopback": None,
    }


def test_machines_that_have_not_joined_are_there_too(orchestrator: Orchestrator) -> None:
    """What the autoscaler ordered is reached at the cloud's address, one host with its node; what is gone is none."""
    orchestrator.answers["/v1/nodes"] = [_node("b-1", url="http://10.0.0.9:1")]
    orchestrator.answers["/v1/scale/claims"] = [
        {"claim": "1", "node": "b-1", "pool": "builders", "state": "ready", "address": "192.0.2.1"},
        {"claim": "2", "node": "b-2", "pool": "builders", "state": "booting", "address": None},
        {"claim": "3", "node": "b-3", "pool": "builders", "state": "gone", "address": "192.0.2.3"},
    ]
    form = _listed(orchestrator.url)
    assert form["mcpfleet_nodes"]["hosts"] == ["b-1", "b-2"]
    assert form["claim_booting"]["hosts"] == ["b-2"]
    assert form["_meta"]["hostvars"]["b-1"] == {
        "ansible_host": "192.0.2.1",
        "mcpfleet_claim": "1",
        "mcpfleet_claim_state": "ready",
        "mcpfleet_state": "active",
        "node_name": "b-1",
        "node_pool": "builders",
    }


def test_an_empty_fleet_is_an_empty_inventory(orchestrator: Orchestrator) -> None:
    """The groups are there, so that a playbook for them does nothing and does not fail."""
    assert _listed(orchestrator.url)["mcpfleet_nodes"] == {"hosts": []}


def test_the_next_replica_is_asked(orchestrator: Orchestrator) -> None:
    """One replica that is away does not hide the fleet."""
    orchestrator.answers["/v1/nodes"] = [_node("a-1")]
    assert _listed(f"http://127.0.0.1:9, {orchestrator.url}")["mcpfleet_nodes"]["hosts"] == ["a-1"]


def test_the_token_may_stand_in_a_file(orchestrator: Orchestrator, tmp_path: Path) -> None:
    """Never on a command line."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert _run(MCPFLEET_URL=orchestrator.url, MCPFLEET_TOKEN_FILE=str(tmp_path / "token")).returncode == 0


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "MCPFLEET_URL is not set"),
        ({"MCPFLEET_URL": "http://127.0.0.1:9"}, "set MCPFLEET_TOKEN"),
        ({"MCPFLEET_URL": "http://127.0.0.1:9", "MCPFLEET_TOKEN_FILE": "/no/such"}, "cannot be read"),
        ({"MCPFLEET_URL": "http://127.0.0.1:9", "MCPFLEET_TOKEN": "x"}, "no orchestrator answers"),
        ({"MCPFLEET_URL": "ftp://127.0.0.1", "MCPFLEET_TOKEN": "x"}, "not an http or https address"),
    ],
)
def test_what_is_missing_is_said(environ: dict[str, str], said: str) -> None:
    """An orchestrator that does not answer is no empty fleet, and the message says what to do."""
    run = _run(**environ)
    assert (run.returncode, run.stdout) == (1, "")
    assert said in run.stderr


def test_a_wrong_token_is_said(orchestrator: Orchestrator) -> None:
    """Not taken for an empty fleet, and not repeated in the message."""
    run = _run(MCPFLEET_URL=orchestrator.url, MCPFLEET_TOKEN="wrong-word")
    assert run.returncode == 1
    assert "refuses the token" in run.stderr
    assert "wrong-word" not in run.stderr
