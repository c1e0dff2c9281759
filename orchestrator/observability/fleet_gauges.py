"""Gauges read from the fleet when scraped, so that nothing has to be kept up to date.

USE for nodes and lanes: utilisation is running by slots, saturation what waits, errors are open circuits and what is
unhealthy. Labels are nodes, pools and lanes that are there now. Source: B. Gregg, the USE method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tasks.node import NodeState
from tasks.wire import BacklogView, NodeView, PoolView

Gauge = GaugeMetricFamily
SERVERS_MAX = 50
"""Of one node that have series; `mcpfleet nodes` shows all."""
KEYS = ("spent until", "refused")
"""What a node says of a sidecar's credential (worker/sidecars/credential.py): words of the wire, for people."""


class FleetCollector(Collector):
    """Nodes, pools and what waits."""

    def __init__(
        self,
        *,
        nodes: Callable[[], list[NodeView]],
        pools: Callable[[], list[PoolView]],
        backlog: Callable[[], BacklogView],
    ) -> None:
        self._nodes, self._pools, self._backlog = nodes, pools, backlog

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One scrape."""
        nodes = self._nodes()
        yield from _waiting(self._backlog())
        yield from _standing(nodes)
        yield from _used(nodes)
        yield from _troubled(nodes)
        yield from _pooled(self._pools())


def _waiting(backlog: BacklogView) -> Iterator[Gauge]:
    depth = Gauge("mcp_task_queue_depth", "Calls that wait, are delayed or are outstanding", labels=["kind"])
    depth.add_metric(["waiting"], backlog.waiting)
    depth.add_metric(["delayed"], backlog.delayed)
    depth.add_metric(["outstanding"], backlog.outstanding)
    yield depth
    yield Gauge("mcp_oldest_wait_seconds", "Age of the oldest waiting call", value=backlog.oldest_wait_s)


def _standing(nodes: Iterable[NodeView]) -> Iterator[Gauge]:
    health = Gauge("mcp_worker_health", "1: active with a good lease", labels=["node", "pool"])
    state = Gauge("mcpfleet_node_state", "1 for the state that the node is in", labels=["node", "pool", "state"])
    lease = Gauge("mcpfleet_node_lease_left_seconds", "Until its lease ends; 0: it has ended", labels=["node"])
    heard = Gauge("mcpfleet_node_silent_seconds", "Since its last renewal came to this process", labels=["node"])
    ahead = Gauge("mcpfleet_node_clock_ahead_seconds", "Its clock less the orchestrator's", labels=["node"])
    for node in nodes:
        is_well = node.state is NodeState.ACTIVE and node.lease_left_s > 0
        health.add_metric([node.name, node.pool], 1.0 if is_well else 0.0)
        state.add_metric([node.name, node.pool, node.state.value], 1.0)
        lease.add_metric([node.name], node.lease_left_s)
        if node.silent_s is not None:
            heard.add_metric([node.name], node.silent_s)
        if node.clock_ahead_s is not None:
            ahead.add_metric([node.name], node.clock_ahead_s)
    yield from (health, state, lease, heard, ahead)


def _used(nodes: Iterable[NodeView]) -> Iterator[Gauge]:
    held = Gauge("mcp_active_connections", "Attempts a node holds", labels=["node", "lane"])
    slots = Gauge("mcpfleet_node_slots", "Attempts that a node may run at once", labels=["node", "pool", "lane"])
    running = Gauge("mcpfleet_node_running", "Attempts that it runs, as it last said", labels=["node", "pool", "lane"])
    waiting = Gauge("mcpfleet_node_waiting", "Attempts released to it that do not run yet", labels=["node", "lane"])
    cpu = Gauge("mcpfleet_node_cpu_ratio", "Share of its machine's CPU in use, 0 to 1", labels=["node", "pool"])
    memory = Gauge("mcpfleet_node_memory_ratio", "Share of its machine's memory in use", labels=["node", "pool"])
    for node in nodes:
        cpu.add_metric([node.name, node.pool], node.cpu)
        memory.add_metric([node.name, node.pool], node.memory)
        for lane, number in node.slots.items():
            slots.add_metric([node.name, node.pool, lane.value], number)
            running.add_metric([node.name, node.pool, lane.value], node.running.get(lane, 0))
        for lane, number in node.outstanding.items():
            held.add_metric([node.name, lane.value], number)
            waiting.add_metric([node.name, lane.value], max(0, number - node.running.get(lane, 0)))
    yield from (held, slots, running, waiting, cpu, memory)


def _troubled(nodes: Iterable[NodeView]) -> Iterator[Gauge]:
    circuits = Gauge(
        "mcpfleet_circuits_open", "1: nothing goes to this server there (`all`: to the node)", labels=["node", "server"]
    )
    unhealthy = Gauge(
        "mcpfleet_servers_unhealthy", "1: it fails its health checks (`all`: the node)", labels=["node", "server"]
    )
    keys = Gauge(
        "mcpfleet_sidecar_credential", "1: spent or refused, as the node says", labels=["node", "server", "state"]
    )
    for node in nodes:
        for server in _first(node.circuits):
            circuits.add_metric([node.name, server or "all"], 1.0)
        for server in _first(node.unhealthy):
            unhealthy.add_metric([node.name, server or "all"], 1.0)
            _credential(keys, node.name, server, node.unhealthy[server])
        for server in _first(node.notes):
            _credential(keys, node.name, server, node.notes[server])
    yield from (circuits, unhealthy, keys)


def _first(servers: Iterable[str]) -> Iterable[str]:
    """A node says which servers it has, and may say anything."""
    return nsmallest(SERVERS_MAX, servers)


def _credential(keys: Gauge, node: str, server: str, said: str) -> None:
    if said.startswith("credential "):
        found = next((word for word in KEYS if word in said), None)
        keys.add_metric([node, server, found.partition(" ")[0] if found else "missing"], 1.0)


def _pooled(pools: Iterable[PoolView]) -> Iterator[Gauge]:
    slots = Gauge("mcp_pool_slots", "Slots of a pool's nodes", labels=["pool", "lane"])
    waiting = Gauge("mcpfleet_pool_waiting", "Calls that wait for this pool", labels=["pool"])
    for pool in pools:
        waiting.add_metric([pool.name], pool.waiting)
        for lane, number in pool.slots.items():
            slots.add_metric([pool.name, lane.value], number)
    yield from (slots, waiting)
