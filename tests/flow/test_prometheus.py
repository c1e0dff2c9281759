"""A real Prometheus scrapes a real fleet: every rule and every panel has an expression that it takes, and data.

Then a real fault: an alert fires for it and resolves when it is mended. All others have theirs in test_alerts_demo.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from orchestrator.testing.local import UP_WITHIN_S, until, upped
from tests.flow.faults_rig import Scene, frozen
from tests.flow.prometheus_rig import NotTaken, expressions, scraping

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
"""Panels that have nothing to show here, and why. Each has data in test_alerts_demo.py, by machines and agents."""
pytestmark = [pytest.mark.live("prometheus", "servers"), pytest.mark.timeout(600)]


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


def test_a_lost_node_is_told_and_that_it_is_back(scene: Scene) -> None:
    """NodeLost, by a node that hangs past its lease."""
    name = scene.http.get("/v1/nodes").json()["items"][0]["name"]
    assert "NodeLost" not in scene.prometheus.firing()
    with frozen(scene.fleet.node(name)):
        scene.fires("NodeLost")
        assert scene.prometheus.firing()["NodeLost"]["labels"]["node"] == name
    scene.resolves("NodeLost")
