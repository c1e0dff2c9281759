"""Where Prometheus finds machines' exporters, by the configuration that is shipped: `promtool` asks and relabels."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

SHIPPED = Path(__file__).resolve().parents[2] / "deploy/prometheus/prometheus.yml"
NODES = [
    {"targets": ["10.0.0.5:8701"], "labels": {"node": "a1", "pool": "general", "__scheme__": "https"}},
    {"targets": ["[2001:db8::7]:8702"], "labels": {"node": "b1", "pool": "builders"}},
]


class Orchestrator(BaseHTTPRequestHandler):
    """Answers `/v1/targets`."""

    def do_GET(self) -> None:
        """Two nodes."""
        body = json.dumps(NODES).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def served() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Orchestrator) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.live("prometheus")
def test_exporters_are_found_by_their_nodes_and_a_named_one_keeps_its_port(tmp_path: Path) -> None:
    """A node's exporter is at another port than the node, speaks no TLS, and is the machine's, not the node's."""
    (job,) = [one for one in yaml.safe_load(SHIPPED.read_text())["scrape_configs"] if one["job_name"] == "node"]
    job["static_configs"] = [{"targets": ["named:39100"]}]
    (discovery,) = job["http_sd_configs"]
    del discovery["authorization"]
    with served() as url:
        discovery["url"] = f"{url}/v1/targets"
        found = [one for way in ("static_configs", "http_sd_configs") for one in _found(tmp_path, job, way)]
    assert {one["__address__"] for one in found} == {"named:39100", "10.0.0.5:9100", "[2001:db8::7]:9100"}
    assert {one["__scheme__"] for one in found} == {"http"}
    assert not {"node", "pool"} & {name for one in found for name in one}


def _found(folder: Path, job: dict[str, Any], way: str) -> list[dict[str, str]]:
    """Labels of what one way finds: promtool 2.42 panics at two."""
    file, only = folder / f"{way}.yml", {"job_name": "node", "relabel_configs": job["relabel_configs"], way: job[way]}
    file.write_text(yaml.safe_dump({"scrape_configs": [only]}))
    command = ["promtool", "check", "service-discovery", "--timeout=5s", str(file), "node"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [one["labels"] for one in json.loads(said.stdout)]
