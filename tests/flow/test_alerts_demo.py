"""`make alerts-demo`: every alert fires once for a real fault of a real fleet, and resolves when it is mended.

One fleet on PostgreSQL, with machines of its own, an agent, a small disk, and the Prometheus that scrapes it. The
tests are one story: what takes minutes by itself (a leak, a circuit, an idle machine) begins early and is looked at
late. Windows, `for` and four thresholds are shortened; expressions are the deployed ones.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import psutil
import pytest

from orchestrator.testing.local import UP_WITHIN_S, until, upped
from orchestrator.testing.postgres import Cluster, postgres_bin
from tests.chaos import disks
from tests.flow.faults_rig import (
    POOL,
    Machines,
    Model,
    Scene,
    SickNode,
    exporter_of,
    frozen,
    orchestrator_of,
    postgres_processes,
    redis_processes,
)
from tests.flow.prometheus_rig import alerts, expressions, scraping

SAFE, FAILS = {"timezone": "UTC"}, {"timezone": "Nowhere/Land"}
POOLS = ("general", "builders")
MANY = 24
"""Above the events that an objective's alert asks for."""
RATES = {"14.4", "6", "3", "1"}
LATE_S = 1.2
LONG_S = 30.0
"""Of the failover objective."""
pytestmark = [
    pytest.mark.live("prometheus", "node-exporter", "servers", "postgres", "loop-disks"),
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        "MCPFLEET_ALERTS_DEMO" not in os.environ, reason="alerts by real faults, minutes of them (make alerts-demo)"
    ),
]


class Hurt(Scene):
    """And what can be done to it."""

    cluster: Cluster
    node: SickNode
    model: Model
    disk: Path
    machines: Machines

    def on_node(self, tool: str, wait_s: float = 0.0, **arguments: object) -> dict[str, object]:
        """A call of something that only the sick node has."""
        body = {"tool": tool, "arguments": arguments}
        found: dict[str, object] = self.http.post(f"/v1/invocations?wait={wait_s:g}", json=body).json()
        return found

    def offers(self, tool: str) -> bool:
        """Whether any node does."""
        return any(one["name"] == tool and one["nodes"] for one in self.http.get("/v1/tools").json()["items"])

    def ended(self, call: dict[str, object]) -> bool:
        """By its id."""
        return bool(self.http.get(f"/v1/invocations/{call['id']}").json()["ended_at"])


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurt]:
    """All of it, up; ended whatever happens."""
    folder = tmp_path_factory.mktemp("hurt")
    programs = postgres_bin()
    assert programs is not None
    with ExitStack() as stack:
        database = stack.enter_context(TemporaryDirectory(prefix="mcpfleet-pg-"))  # its server is another user
        cluster = Cluster(programs, Path(database))
        cluster.make()
        cluster.start()
        stack.callback(cluster.stop, "immediate")
        machines, model = Machines(folder / "machines"), Model()
        model.start()
        stack.callback(model.stop)
        disk = stack.enter_context(disks.on_loop(folder / "small"))
        exporter = stack.enter_context(exporter_of(disk, folder))
        settings = machines.settings() | {"MCPFLEET_DATABASE_URL": cluster.url}
        stack.callback(machines.clear)
        fleet = stack.enter_context(upped(folder, "--verbose", environ=os.environ, settings=settings))
        node = SickNode(fleet, folder / "node", model.url)
        node.start()
        stack.callback(node.stop)
        scene = Hurt(fleet, stack.enter_context(scraping(fleet, folder / "prometheus", exporter)))
        stack.callback(scene.http.close)
        scene.cluster, scene.node, scene.model, scene.disk, scene.machines = cluster, node, model, disk, machines
        until(lambda: scene.call(SAFE).status_code < 300, UP_WITHIN_S, "a node offers the tool")
        until(lambda: scene.offers("gated.put") and scene.offers("glm.chat"), UP_WITHIN_S, "the sick node is well")
        machines.leak()
        yield scene


def test_nothing_fires_on_a_fleet_at_rest(hurt: Hurt) -> None:
    """Just started, hardly used: no alert but the two that are meant, of a pool whose first machine is its budget."""
    until(lambda: all(rule["health"] == "ok" for rule in hurt.prometheus.rules()), 60, "all were evaluated")
    until(lambda: bool(hurt.prometheus.asked('up{job="node"} == 1')), 60, "the exporter is scraped")
    meant = {"BudgetNearlySpent", "AutoscalerAlerts"}
    until(lambda: set(hurt.prometheus.firing()) <= meant, 150, "what a slow start set off is over")


def test_a_pool_that_wants_more_than_its_budget(hurt: Hurt) -> None:
    """BudgetNearlySpent by the one machine that it may have, AutoscalerAlerts by the second, that it may not."""
    for _ in range(10):
        body = {"tool": "probe.sleep", "arguments": {"seconds": 2.0, "steps": 5}, "pool": POOL}
        hurt.http.post("/v1/invocations", json=body).raise_for_status()
    hurt.fires("BudgetNearlySpent")
    hurt.fires("AutoscalerAlerts")
    until(lambda: "allowed: budget_eur_h is" in hurt.http.get("/v1/scale").text, 60, "its words are of the budget")
    until(lambda: bool(hurt.machines.joined(hurt)), 100, "the machine has joined")
    hurt.machines.kill()  # its place is taken by another one


def test_a_server_that_dies_under_its_calls(hurt: Hurt) -> None:
    """CircuitOpen, after five calls that it took with it. What ends it is below: it takes a minute."""

    def crash() -> None:
        before = hurt.node.marks()
        call = hurt.on_node("gated.apply", key="crash", gate="never")
        until(lambda: hurt.node.marks() > before, 60, "its server has begun the call")
        server = hurt.node.server()
        assert server is not None
        server.kill()
        until(lambda: hurt.ended(call), 60, "the call is lost")

    for _ in range(5):
        until(lambda: hurt.offers("gated.apply"), 60, "it was started again")
        crash()
    hurt.fires("CircuitOpen")


def test_a_clock_that_is_wrong(hurt: Hurt) -> None:
    """ClockSkew, by ten minutes."""
    hurt.node.set_clock(600.0)
    hurt.fires("ClockSkew")
    hurt.node.set_clock(0.0)
    hurt.resolves("ClockSkew")


def test_a_key_that_is_refused(hurt: Hurt) -> None:
    """SidecarCredential, by a provider that answers 401; a new key in the file ends it."""
    assert hurt.on_node("glm.chat", 30, prompt="well?")["state"] == "succeeded"
    hurt.model.refuse(is_refusing=True)
    hurt.on_node("glm.chat", 30, prompt="well?")
    hurt.fires("SidecarCredential")
    hurt.model.refuse(is_refusing=False)
    hurt.node.key("new")
    hurt.resolves("SidecarCredential")


def test_a_disk_that_fills(hurt: Hurt) -> None:
    """HostDiskFilling, as the node exporter sees it."""
    ballast = hurt.disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(
            file.fileno(), 0, os.statvfs(hurt.disk).f_bavail * os.statvfs(hurt.disk).f_frsize * 95 // 100
        )
    hurt.fires("HostDiskFilling")
    ballast.unlink()
    hurt.resolves("HostDiskFilling")


def test_an_orchestrator_that_stutters(hurt: Hurt) -> None:
    """EventLoopStalled, by a process that is given no CPU for a second at a time."""
    process = orchestrator_of(hurt.fleet)

    def stutter() -> bool:
        with frozen(process):
            Event().wait(LATE_S)
        return "EventLoopStalled" in hurt.prometheus.firing()

    until(stutter, 150, "EventLoopStalled fires")
    hurt.resolves("EventLoopStalled")


def test_a_database_that_hangs(hurt: Hurt) -> None:
    """LedgerDown, NotLeading and LeaderLoopStalled: it takes connections and says nothing."""
    with frozen(*postgres_processes(hurt.cluster)):
        for alert in ("LedgerDown", "NotLeading", "LeaderLoopStalled"):
            hurt.fires(alert)
    for alert in ("LedgerDown", "NotLeading", "LeaderLoopStalled"):
        hurt.resolves(alert)


def test_a_database_that_is_gone(hurt: Hurt) -> None:
    """DoorErrorRate, by the calls that cannot be accepted; ObjectiveBurn of availability by the same."""
    hurt.cluster.stop("immediate")
    try:

        def refused() -> bool:
            codes = {hurt.call(SAFE).status_code for _ in range(5)}
            return codes == {503} and "DoorErrorRate" in hurt.prometheus.firing()

        until(refused, 150, "DoorErrorRate fires")
        until(lambda: refused() and hurt.burning("availability") == RATES, 150, "availability burns")
    finally:
        hurt.cluster.start()
    for alert in ("DoorErrorRate", "LedgerDown", "NotLeading"):
        hurt.resolves(alert)


@pytest.mark.parametrize("alert", ["RedisDown", "OrchestratorDown"])
def test_a_process_that_hangs(hurt: Hurt, alert: str) -> None:
    """Redis, then the orchestrator itself."""
    with frozen(*(redis_processes(hurt.fleet) if alert == "RedisDown" else [orchestrator_of(hurt.fleet)])):
        hurt.fires(alert)
    hurt.resolves(alert)


def test_nodes_that_hang_with_all_that_they_hold(hurt: Hurt) -> None:
    """NodeLost and NoNodes; ObjectiveBurn of failover, for it lasts longer than what was promised.

    Before that the circuit's time is over: a probe closes it.
    """
    until(lambda: hurt.call(SAFE).status_code < 300, 100, "calls are placed again")
    assert hurt.on_node("gated.put", 100, key="probe")["state"] == "succeeded"
    hurt.resolves("CircuitOpen")
    before = hurt.node.marks()
    held = [hurt.on_node("gated.put", key=f"held-{number}", gate="open") for number in range(MANY)]
    until(lambda: hurt.node.marks() >= before + MANY, 100, "it has begun all of them")
    assert hurt.node.process is not None
    everyone = [hurt.fleet.node(name) for name in hurt.nodes() if name.startswith(POOLS)] + hurt.machines.processes()
    with frozen(psutil.Process(hurt.node.process.pid), *everyone):
        hurt.fires("NodeLost")
        hurt.fires("NoNodes")
        Event().wait(LONG_S)  # the promise itself is broken by nothing else than its time
    hurt.node.open("open")
    until(lambda: all(map(hurt.ended, held)), 150, "all of them end")
    until(lambda: hurt.burning("failover") == RATES, 100, "failover burns")
    for alert in ("NoNodes", "NodeLost"):
        hurt.resolves(alert)


def test_a_queue_that_does_not_move(hurt: Hurt) -> None:
    """QueueStuck and CallWaitsLong while pools are paused; QueueWaitP95 and both latencies once they go on."""
    until(lambda: hurt.call(SAFE).status_code < 300, 100, "calls are placed again")
    hurt.pause(*POOLS, is_paused=True)
    try:
        body = {"tool": "probe.echo", "arguments": {}, "pool": "general"}
        waiting = [hurt.http.post("/v1/invocations", json=body).raise_for_status().json() for _ in range(3 * MANY)]
        hurt.fires("QueueStuck")
        hurt.fires("CallWaitsLong")
    finally:
        hurt.pause(*POOLS, is_paused=False)
    until(lambda: all(map(hurt.ended, waiting)), 100, "all of them go on")
    hurt.fires("QueueWaitP95")
    until(lambda: hurt.burning("short_calls_p99") == RATES, 100, "p99 burns")
    until(lambda: hurt.burning("short_calls_p50") == {"1"}, 100, "p50 burns")
    for alert in ("QueueStuck", "CallWaitsLong", "QueueWaitP95"):
        hurt.resolves(alert)


def test_a_tool_that_fails(hurt: Hurt) -> None:
    """ToolErrorRate and DeadLetters, by calls with wrong arguments; discarding them ends the second."""

    def both() -> bool:
        """Ten more at once: one after the other they may be too slow for a window."""
        with ThreadPoolExecutor(10) as doing:
            list(doing.map(lambda _: hurt.call(FAILS), range(10)))
        return {"ToolErrorRate", "DeadLetters"} <= hurt.prometheus.firing().keys()

    until(both, 150, "ToolErrorRate and DeadLetters fire")
    while letters := hurt.http.get("/v1/dead-letters?limit=500").json()["items"]:
        hurt.http.post("/v1/dead-letters:discard", json={"ids": [one["id"] for one in letters]}).raise_for_status()
    hurt.resolves("DeadLetters")
    hurt.resolves("ToolErrorRate")


def test_a_key_that_ends(hurt: Hurt) -> None:
    """CredentialExpiring, by a key that ends within the (lengthened) time; revoking it ends the alert."""
    body = {"name": "ends", "roles": ["agent"], "lifetime_s": 30 * 86_400.0}
    made = hurt.http.post("/v1/keys", json=body)
    assert made.status_code < 300, made.text
    hurt.fires("CredentialExpiring")
    hurt.http.delete(f"/v1/keys/{made.json()['id']}").raise_for_status()
    hurt.resolves("CredentialExpiring")


def test_what_takes_its_time(hurt: Hurt) -> None:
    """The machine of nobody was found, and ended; the idle one went, and its cost."""
    until(lambda: hurt.prometheus.had('ALERTS{alertname="LeakedMachine",alertstate="firing"}'), 200, "the leak is told")
    for alert in ("LeakedMachine", "BudgetNearlySpent", "AutoscalerAlerts"):
        hurt.resolves(alert, 300)


def test_a_server_that_does_not_start(hurt: Hurt) -> None:
    """ServerUnhealthy, by a program that is gone; put back, it is started again."""
    kept = hurt.node.script.read_text(encoding="utf-8")
    hurt.node.script.unlink()
    server = hurt.node.server()
    assert server is not None
    server.kill()
    hurt.fires("ServerUnhealthy")
    hurt.node.script.write_text(kept, encoding="utf-8")
    hurt.resolves("ServerUnhealthy", 200)


def test_every_panel_had_data(hurt: Hurt) -> None:
    """At some time of the story, each expression of each."""
    assert [f"{panel}: {expr}" for _, panel, expr in expressions() if not hurt.prometheus.had(expr)] == []


def test_every_alert_fired_and_none_is_left(hurt: Hurt) -> None:
    """All of both files of rules, every objective at every rate."""
    try:
        until(lambda: hurt.prometheus.firing() == {}, 150, "the last one resolves")
    except AssertionError as error:
        raise AssertionError(f"{error}; fires: {hurt.prometheus.firing()}") from None
    found = hurt.prometheus.asked(
        'count by (alertname, objective, factor) (last_over_time(ALERTS{alertstate="firing"}[1h]))'
    )
    labels = [one["metric"] for one in found]
    fired = {(one["alertname"], one.get("objective"), one.get("factor")) for one in labels}
    written = {(one["alert"], one["labels"].get("objective"), one["labels"].get("factor")) for one in alerts()}
    assert fired == written
    assert hurt.fleet.end(signal.SIGTERM) == 0, hurt.fleet.output.read_text()[-3000:]
