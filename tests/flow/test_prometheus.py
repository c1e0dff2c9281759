"""A real Prometheus scrapes a real fleet: every rule and every panel has an expression that it takes, and data.

Then real faults: alerts fire for them and resolve when they are mended. One of them here, the others by
`make alerts-demo`, for they take minutes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psutil
import pytest

from orchestrator.testing.local import UP_WITHIN_S, Local, until, upped
from tests.flow.prometheus_rig import NotTaken, Prometheus, expressions, scraping

WITHIN_S = 100.0
SAFE, FAILS = {"timezone": "UTC"}, {"timezone": "Nowhere/Land"}
NO_MACHINES, NO_AGENTS = "this fleet orders no machines", "no agent runs here"
EXEMPT = {
    "Circuits open": "no circuit is open",
    "Credentials that fail": NO_AGENTS,
    "Machines by state": NO_MACHINES,
    "Wanted": NO_MACHINES,
    "Decisions": NO_MACHINES,
    "Order to ready, p90": NO_MACHINES,
    "Came to nothing": NO_MACHINES,
    "Leaks": NO_MACHINES,
    "Waiting, as the autoscaler sees it": NO_MACHINES,
    "Arrivals": NO_MACHINES,
    "Wait p95, as it sees it": NO_MACHINES,
    "Blind, or with alerts": NO_MACHINES,
    "Machines, EUR an hour": NO_MACHINES,
    "All machines against the budget": NO_MACHINES,
    "Agents, USD an hour": NO_AGENTS,
    "Tokens": NO_AGENTS,
}
"""Panels that have nothing to show here, and why."""
DEMO = "MCPFLEET_ALERTS_DEMO"
pytestmark = [pytest.mark.live("prometheus", "servers"), pytest.mark.timeout(600)]
demo = pytest.mark.skipif(DEMO not in os.environ, reason="alerts by real faults, minutes of them (make alerts-demo)")


class Scene:
    """A fleet, and the Prometheus that scrapes it."""

    def __init__(self, fleet: Local, prometheus: Prometheus) -> None:
        self.fleet, self.prometheus = fleet, prometheus
        self.http = httpx.Client(
            base_url=fleet.url, headers={"Authorization": f"Bearer {fleet.token}"}, timeout=60, trust_env=False
        )

    def call(self, arguments: dict[str, str], wait_s: float = 10.0, **more: object) -> httpx.Response:
        """One call of a tool."""
        body = {"tool": "time.get_current_time", "arguments": arguments, **more}
        return self.http.post(f"/v1/invocations?wait={wait_s:g}", json=body)

    def pause(self, *, is_paused: bool) -> None:
        """The pools that have the tool."""
        for pool in ("general", "builders"):
            body = {"kind": "pool", "name": pool, "is_paused": is_paused}
            self.http.post("/v1/pauses", json=body).raise_for_status()

    def fires(self, alert: str) -> None:
        """It does, in time; and its words are whole."""
        until(lambda: alert in self.prometheus.firing(), WITHIN_S, f"{alert} fires")
        words = self.prometheus.firing().get(alert, {"annotations": {}})["annotations"]
        assert "error expanding" not in str(words)

    def resolves(self, alert: str) -> None:
        """It is over, in time."""
        until(lambda: alert not in self.prometheus.firing(), WITHIN_S, f"{alert} resolves")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """With some calls through it, good and bad ones."""
    folder = tmp_path_factory.mktemp("scraped")
    with upped(folder, "--verbose", environ=os.environ) as fleet:
        with scraping(fleet, folder / "prometheus") as prometheus:
            scene = Scene(fleet, prometheus)
            until(lambda: scene.call(SAFE).status_code < 300, UP_WITHIN_S, "a node offers the tool")
            yield scene
            scene.http.close()
        assert fleet.end(signal.SIGTERM) == 0, fleet.output.read_text()[-3000:]


def test_every_target_is_up(scene: Scene) -> None:
    """The orchestrator with its credential, and every node that it names, found by itself."""

    def up() -> list[str]:
        return sorted(one["labels"]["job"] for one in scene.prometheus.targets() if one["health"] == "up")

    until(lambda: up() == ["mcpfleet"] + 3 * ["mcpfleet-node"], WITHIN_S, "all are scraped")
    assert {one["labels"].get("node") for one in scene.prometheus.targets()} == {
        None,
        *(node["name"] for node in scene.http.get("/v1/nodes").json()["items"]),
    }


def test_every_rule_is_taken_and_evaluated(scene: Scene) -> None:
    """No word of an error, whatever the data."""
    until(lambda: all(rule["health"] != "unknown" for rule in scene.prometheus.rules()), WITHIN_S, "all were evaluated")
    rules = scene.prometheus.rules()
    assert len(rules) > 40
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []


def test_every_panel_is_taken_and_has_data(scene: Scene) -> None:
    """All that should: what has nothing to show here is listed by name, and had better have nothing."""
    empty: list[str] = []

    def all_have() -> bool:
        with ThreadPoolExecutor(4) as doing:
            list(doing.map(scene.call, [SAFE] * 6 + [FAILS]))
        scene.http.get(f"/v1/invocations/{0:032x}")
        empty[:] = [
            f"{panel}: {expr}"
            for _, panel, expr in expressions()
            if not scene.prometheus.asked(expr) and panel not in EXEMPT
        ]
        return not empty

    try:
        until(all_have, WITHIN_S, "every panel has data")
    except AssertionError as error:
        raise AssertionError(f"{error}; without data: {empty}") from None
    assert set(EXEMPT) <= {panel for _, panel, _ in expressions()}


def test_a_wrong_expression_would_be_seen(scene: Scene) -> None:
    """The two tests above can fail."""
    with pytest.raises(NotTaken):
        scene.prometheus.asked("sum by (node (up)")
    assert scene.prometheus.asked("no_such_metric") == []


def test_exemplars_lead_to_traces(scene: Scene) -> None:
    """Prometheus keeps the trace id of a call with its duration."""
    scene.call(SAFE, trace_id="ab" * 16)

    def is_there() -> bool:
        params: dict[str, str | float] = {"query": "mcp_request_duration_seconds_bucket", "start": 0, "end": 4e9}
        answer = httpx.get(f"{scene.prometheus.url}/api/v1/query_exemplars", params=params, timeout=60)
        return "ab" * 16 in answer.text

    until(is_there, WITHIN_S, "the exemplar is there")


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    """Alive, and not a word from them: what a hung machine looks like."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_a_lost_node_is_told_and_that_it_is_back(scene: Scene) -> None:
    """NodeLost, by a node that hangs past its lease."""
    name = scene.http.get("/v1/nodes").json()["items"][0]["name"]
    assert "NodeLost" not in scene.prometheus.firing()
    with frozen(scene.fleet.node(name)):
        scene.fires("NodeLost")
        assert scene.prometheus.firing()["NodeLost"]["labels"]["node"] == name
    scene.resolves("NodeLost")


@demo
def test_no_nodes(scene: Scene) -> None:
    """NoNodes, by all of them."""
    names = [node["name"] for node in scene.http.get("/v1/nodes").json()["items"]]
    with frozen(*map(scene.fleet.node, names)):
        scene.fires("NoNodes")
    scene.resolves("NoNodes")
    scene.resolves("NodeLost")


@demo
@pytest.mark.parametrize(("alert", "find"), [("RedisDown", "redis"), ("OrchestratorDown", "orchestrator")])
def test_a_process_that_hangs(scene: Scene, alert: str, find: str) -> None:
    """Redis, then the orchestrator itself."""
    with frozen(*_found(scene.fleet, find)):
        scene.fires(alert)
    scene.resolves(alert)


@demo
def test_a_queue_that_does_not_move(scene: Scene) -> None:
    """QueueStuck while pools are paused; QueueWaitP95 once they go on, for what had waited."""
    scene.resolves("OrchestratorDown")
    scene.pause(is_paused=True)
    with ThreadPoolExecutor(8) as doing:
        waiting = [doing.submit(scene.call, SAFE, 50.0) for _ in range(8)]
        try:
            scene.fires("QueueStuck")
        finally:
            scene.pause(is_paused=False)
        assert all(one.result().status_code < 300 for one in waiting)
    scene.fires("QueueWaitP95")
    scene.resolves("QueueStuck")
    scene.resolves("QueueWaitP95")


@demo
def test_a_tool_that_fails(scene: Scene) -> None:
    """ToolErrorRate and DeadLetters, by calls with wrong arguments; discarding them ends the second."""
    for _ in range(30):
        scene.call(FAILS)
    scene.fires("ToolErrorRate")
    scene.fires("DeadLetters")
    letters = scene.http.get("/v1/dead-letters?limit=500").json()["items"]
    scene.http.post("/v1/dead-letters:discard", json={"ids": [one["id"] for one in letters]}).raise_for_status()
    scene.resolves("DeadLetters")
    scene.resolves("ToolErrorRate")


@demo
def test_an_objective_that_burns(scene: Scene) -> None:
    """ObjectiveBurn of availability: calls whose deadline passes before any node has room."""
    scene.pause(is_paused=True)
    try:
        for _ in range(6):
            with ThreadPoolExecutor(8) as doing:
                list(doing.map(lambda _: scene.call(SAFE, 5.0, deadline_s=0.5), range(8)))
        scene.fires("ObjectiveBurn")
    finally:
        scene.pause(is_paused=False)
    until(lambda: not _burning(scene, "page"), WITHIN_S, "the page of ObjectiveBurn resolves")


@demo
def test_a_key_that_ends(scene: Scene) -> None:
    """CredentialExpiring, by a key that ends within the (lengthened) time; revoking it ends the alert."""
    body = {"name": "ends", "roles": ["agent"], "lifetime_s": 30 * 86_400.0}
    made = scene.http.post("/v1/keys", json=body)
    assert made.status_code < 300, made.text
    scene.fires("CredentialExpiring")
    scene.http.delete(f"/v1/keys/{made.json()['id']}").raise_for_status()
    scene.resolves("CredentialExpiring")


def _burning(scene: Scene, severity: str) -> list[object]:
    return list(
        scene.prometheus.asked(f'ALERTS{{alertname="ObjectiveBurn",alertstate="firing",severity="{severity}"}}')
    )


def _found(fleet: Local, what: str) -> list[psutil.Process]:
    if what == "orchestrator":
        return [fleet.child("orchestrator.cli.main", "serve")]
    found = [one for one in fleet.family() if one.name().startswith(("redis-server", "valkey"))]
    assert found, [one.cmdline() for one in fleet.family()]
    return found
