"""A real Alertmanager with the example's routes: who is told of what, and what explains itself and is not said."""

from __future__ import annotations

import datetime as dt
import json
import operator
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from orchestrator.testing.local import until
from tests.conftest import ROOT, end, free_port

EXAMPLE = ROOT / "deploy/prometheus/alertmanager.yml"
RULES = ("alerts.rules.yml", "slo.rules.yml")
PROGRAMS = ("prometheus-alertmanager", "alertmanager")
WITHIN_S = 60.0
pytestmark = pytest.mark.live("prometheus")
Labels = dict[str, str]


def a(name: str, **labels: str) -> Labels:
    """An alert that fires, with the severity that its rule gives it unless told."""
    return {"alertname": name, "severity": SEVERITIES[name]} | labels


def _severities() -> dict[str, str]:
    forms = [yaml.safe_load((EXAMPLE.parent / name).read_text(encoding="utf-8")) for name in RULES]
    rules = [rule for form in forms for group in form["groups"] for rule in group["rules"] if "alert" in rule]
    return {rule["alert"]: rule["labels"]["severity"] for rule in rules}


SEVERITIES = _severities()
PAGE, TICKET = {"severity": "page"}, {"severity": "ticket"}
CASES: dict[str, tuple[list[Labels], list[Labels], list[Labels]]] = {
    # what is broken, what is not said besides, what is
    "orchestrator": ([a("OrchestratorDown")], [a("LedgerDown"), a("QueueStuck")], [a("HostDiskFilling")]),
    "ledger": (
        [a("LedgerDown")],
        [a("NotLeading"), a("DoorErrorRate", door="api"), a("ObjectiveBurn", objective="availability", **PAGE)],
        [a("NodeLost", node="a")],
    ),
    "redis": ([a("RedisDown")], [a("CallWaitsLong"), a("DeadLetters")], [a("LedgerDown")]),
    "no node": ([a("NoNodes")], [a("NodeLost", node="a"), a("QueueStuck")], [a("LeakedMachine", provider="p")]),
    "one node": (
        [a("NodeLost", node="a")],
        [a("CircuitOpen", node="a"), a("ServerUnhealthy", node="a"), a("ClockSkew", node="a")],
        [a("CircuitOpen", node="b"), a("QueueWaitP95")],
    ),
    "queue": ([a("QueueStuck")], [a("CallWaitsLong"), a("QueueWaitP95")], [a("ToolErrorRate", tool="t")]),
    "objective": (
        [a("ObjectiveBurn", objective="failover", factor="6", **PAGE)],
        [a("ObjectiveBurn", objective="failover", factor="1", **TICKET)],
        [a("ObjectiveBurn", objective="availability", factor="1", **TICKET)],
    ),
    "ticket": ([a("DeadLetters")], [], [a("NodeLost", node="a"), a("QueueStuck")]),
}


@dataclass
class Told:
    """Who was told what: path, credential and the alert."""

    heard: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    def names(self, path: str) -> set[str]:
        """Of the alerts that came there."""
        return {alert["labels"]["alertname"] for to, _, alert in self.heard if to == path}


@dataclass(frozen=True)
class Alertmanager:
    """A running one."""

    url: str
    told: Told

    def say(self, *alerts: Labels, is_over: bool = False) -> None:
        """As Prometheus does."""
        now = dt.datetime.now(dt.UTC)
        ends = now - dt.timedelta(seconds=1) if is_over else now + dt.timedelta(hours=1)
        begins = now - dt.timedelta(minutes=5)
        form = [
            {
                "labels": labels,
                "annotations": {"runbook_url": f"docs/runbooks.md#{labels['alertname'].lower()}"},
                "startsAt": begins.isoformat(),
                "endsAt": ends.isoformat(),
            }
            for labels in alerts
        ]
        httpx.post(f"{self.url}/api/v2/alerts", json=form, timeout=WITHIN_S).raise_for_status()

    def suppressed(self) -> list[Labels]:
        """What fires and is not said."""
        found = httpx.get(f"{self.url}/api/v2/alerts", timeout=WITHIN_S).json()
        return [one["labels"] for one in found if one["status"]["inhibitedBy"]]


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """With the example's routes and rules; its times are short, and its two receivers are here."""
    folder, told = tmp_path_factory.mktemp("alertmanager"), Told()
    program = next(found for name in PROGRAMS if (found := shutil.which(name)))
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), _receiver_of(told))
    told.url = f"http://127.0.0.1:{receiver.server_port}"
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    (folder / "config.yml").write_text(_config(folder, told.url), encoding="utf-8")
    port = free_port()
    command = [program, f"--config.file={folder / 'config.yml'}", f"--storage.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        found = Alertmanager(f"http://127.0.0.1:{port}", told)
        until(lambda: _is_ready(found.url), WITHIN_S, "it is ready")
        yield found
    finally:
        end(process)
        receiver.shutdown()
        receiver.server_close()


@pytest.mark.parametrize("name", CASES)
def test_what_explains_itself_is_not_said(manager: Alertmanager, name: str) -> None:
    """The cause is said, what follows from it is not, and what does not follow is."""
    causes, silent, said = CASES[name]
    alerts = [*causes, *silent, *said]
    manager.say(*alerts)

    def state() -> tuple[set[str], set[str]]:
        return {str(sorted(one.items())) for one in manager.suppressed()}, {str(sorted(one.items())) for one in silent}

    try:
        until(lambda: operator.eq(*state()), WITHIN_S, "what is not said is what should not be")
    except AssertionError as error:
        found, wanted = state()
        raise AssertionError(f"{error}: too silent {found - wanted}, too loud {wanted - found}") from None
    finally:
        manager.say(*alerts, is_over=True)


def test_pages_wake_and_tickets_wait(manager: Alertmanager) -> None:
    """Each goes where it should, with its credential and its runbook; and its end is told too."""
    page, ticket = a("RedisDown"), a("CredentialExpiring", kind="api_key")
    manager.say(page, ticket)
    until(lambda: "RedisDown" in manager.told.names("/pager"), WITHIN_S, "somebody is woken")
    until(lambda: "CredentialExpiring" in manager.told.names("/tickets"), WITHIN_S, "somebody will read it")
    assert "CredentialExpiring" not in manager.told.names("/pager")
    assert "RedisDown" not in manager.told.names("/tickets")
    heard = next(one for one in manager.told.heard if one[2]["labels"]["alertname"] == "RedisDown")
    assert heard[1] == "Bearer of-pager_token"
    assert heard[2]["annotations"]["runbook_url"] == "docs/runbooks.md#redisdown"
    manager.say(page, ticket, is_over=True)
    ended = {"RedisDown", "CredentialExpiring"}

    def is_told() -> bool:
        return ended <= {one["labels"]["alertname"] for _, _, one in manager.told.heard if one["status"] == "resolved"}

    until(is_told, WITHIN_S, "that both are over is told")


def _config(folder: Path, url: str) -> str:
    config = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        [hook] = receiver["webhook_configs"]
        held = folder / Path(hook["http_config"]["authorization"]["credentials_file"]).name
        held.write_text(f"of-{held.name}")
        hook["http_config"]["authorization"]["credentials_file"] = str(held)
        hook["url"] = f"{url}/{receiver['name']}"
    return yaml.safe_dump(config)


def _receiver_of(told: Told) -> type[BaseHTTPRequestHandler]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.heard += [(self.path, self.headers["Authorization"], alert) for alert in body["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    return Receiver


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
