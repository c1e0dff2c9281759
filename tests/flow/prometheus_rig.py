"""A real Prometheus with the real configuration, rules and dashboards, on a local fleet. Only times are shortened."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from orchestrator.testing.local import Local, until
from tests.conftest import end, free_port

ROOT = Path(__file__).resolve().parents[2]
DEPLOYED = ROOT / "deploy/prometheus"
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
RULES = ("alerts.rules.yml", "slo.rules.yml")
PORTS_TRIED = 5
SINCE_S = 1800.0
"""A demo takes less, on a busy machine too."""
READY_WITHIN_S = 60.0
EVERY, SCRAPED_EVERY = "1s", "3s"
"""A scrape has as long as it takes until the next: a loaded machine is slow."""
WINDOWS = {
    "2m": "15s",
    "3m": "6s",
    "5m": "15s",
    "10m": "20s",
    "30m": "30s",
    "1h": "60s",
    "2h": "20s",
    "6h": "30s",
    "1d": "50s",
    "3d": "60s",
}
THRESHOLDS = {
    "QueueStuck": ("> 120", "> 2"),
    "CallWaitsLong": ("> 1800", "> 4"),
    "QueueWaitP95": ("> 10", "> 1"),
    "LeaderLoopStalled": ("> 60 + 3 *", "> 5 + 3 *"),
    "CredentialExpiring": ("< 3 * 86400", "< 60 * 86400"),
}
"""Of what would take minutes, or days, to come about."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """A node exporter, and the one file system of those it sees that counts here: others fill for their own reasons."""

    address: str
    mountpoint: str


class NotTaken(Exception):
    """Prometheus refuses an expression."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one."""

    url: str
    log: Path

    def asked(self, expr: str) -> list[dict[str, Any]]:
        """Samples now.

        Raises:
            NotTaken: it cannot be parsed, or evaluated.
        """
        answer = httpx.post(f"{self.url}/api/v1/query", data={"query": expr}, timeout=60)
        form = answer.json()
        if form["status"] != "success":
            raise NotTaken(f"{expr}: {form['error']}")
        result = form["data"]["result"]
        return result if isinstance(result, list) else [result]

    def rules(self) -> list[dict[str, Any]]:
        """As it sees them: `health` and `lastError` of the last evaluation."""
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=60).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/api/v1/targets", timeout=60).json()["data"][
            "activeTargets"
        ]
        return found

    def had(self, expr: str) -> bool:
        """Whether it had a sample at any time since this Prometheus was started.

        Raises:
            NotTaken: as of `asked`.
        """
        now = time.time()
        asked = {"query": expr, "start": str(now - SINCE_S), "end": str(now), "step": "5s"}
        form = httpx.post(f"{self.url}/api/v1/query_range", data=asked, timeout=60).json()
        if form["status"] != "success":
            raise NotTaken(f"{expr}: {form['error']}")
        return bool(form["data"]["result"])

    def firing(self) -> dict[str, dict[str, Any]]:
        """Alerts that fire, by name; the last of each."""
        alerts = httpx.get(f"{self.url}/api/v1/alerts", timeout=60).json()["data"]["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}


@contextmanager
def scraping(fleet: Local, folder: Path, exporter: Exporter | None = None) -> Iterator[Prometheus]:
    """A Prometheus on a free loopback port, which scrapes this fleet, and the exporter of its machine."""
    folder.mkdir(exist_ok=True)
    _configure(fleet, folder, exporter)
    process, found = _started(folder)
    try:
        yield found
    finally:
        end(process)


def alerts() -> list[dict[str, Any]]:
    """As they are written, of all files."""
    forms = [yaml.safe_load((DEPLOYED / name).read_text(encoding="utf-8")) for name in RULES]
    return [rule for form in forms for group in form["groups"] for rule in group["rules"] if "alert" in rule]


def expressions() -> list[tuple[str, str, str]]:
    """Dashboard, panel and expression, as Grafana would ask them of a pool and a tool that are not chosen."""
    found = []
    for file in sorted(DASHBOARDS.glob("*.json")):
        form = json.loads(file.read_text(encoding="utf-8"))
        for panel in form["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"].replace("$__rate_interval", "1m")
                found.append((form["title"], panel["title"], re.sub(r"\$(pool|tool)\b", ".*", expr)))
    return found


def _configure(fleet: Local, folder: Path, exporter: Exporter | None) -> None:
    config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text(encoding="utf-8"))
    token, address = folder / "token", httpx.URL(fleet.url).netloc.decode()
    token.touch(mode=0o600)
    token.write_text(fleet.token)
    config["global"] = {"scrape_interval": SCRAPED_EVERY, "scrape_timeout": SCRAPED_EVERY, "evaluation_interval": EVERY}
    del config["alerting"]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    jobs["mcpfleet"]["static_configs"] = [{"targets": [address]}]
    jobs["mcpfleet"]["authorization"]["credentials_file"] = str(token)
    [discovery] = jobs["mcpfleet-node"]["http_sd_configs"]
    discovery |= {"url": f"{fleet.url}/v1/targets", "refresh_interval": "2s"}
    discovery["authorization"]["credentials_file"] = str(token)
    config["scrape_configs"] = [jobs["mcpfleet"], jobs["mcpfleet-node"]]
    if exporter is not None:
        only = {"source_labels": ["mountpoint"], "regex": exporter.mountpoint, "action": "keep"}
        del jobs["node"]["http_sd_configs"]
        jobs["node"] |= {"static_configs": [{"targets": [exporter.address]}], "metric_relabel_configs": [only]}
        config["scrape_configs"].append(jobs["node"])
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name in RULES:
        rules = yaml.safe_load((DEPLOYED / name).read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group["interval"] = EVERY
            for rule in group["rules"]:
                _shorten(rule)
        (folder / name).write_text(yaml.safe_dump(rules), encoding="utf-8")


def _shorten(rule: dict[str, Any]) -> None:
    for form in (r"(\[)(\w+)(\])", r"(offset )(\w+)()"):
        rule["expr"] = re.sub(form, lambda f: f"{f[1]}{WINDOWS.get(f[2], f[2])}{f[3]}", rule["expr"])
    if "for" in rule:
        rule["for"] = "1s"
    if rule.get("alert") in THRESHOLDS:
        long, short = THRESHOLDS[rule["alert"]]
        assert long in rule["expr"], rule
        rule["expr"] = rule["expr"].replace(long, short)


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], Prometheus]:
    for _ in range(PORTS_TRIED):
        port, log = free_port(), folder / "log"
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        found = Prometheus(f"http://127.0.0.1:{port}", log)
        try:
            until(
                lambda made=process, it=found: made.poll() is not None or _is_ready(it), READY_WITHIN_S, "it is ready"
            )  # type: ignore[misc]
        except AssertionError:
            end(process)
            raise
        if process.poll() is None:
            return process, found
    raise AssertionError(f"Prometheus did not start: {log.read_text()[-2000:]}")


def _is_ready(found: Prometheus) -> bool:
    try:
        return httpx.get(f"{found.url}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
