"""What Flower is told, in Celery's own event format. Pure.

Shows tool, project, node, attempts and runtime; never arguments or results. Every event's logical clock is 0,
so that Celery orders by time: a clock that starts again with this process would put new calls before old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from orchestrator.happenings import AttemptEnded, AttemptReleased
from tasks.invocation import Attempt, Invocation, Lane, State
from tasks.node import NodeState
from tasks.queues import node_queue, pool_queue
from tasks.wire import NodeView

Event = dict[str, Any]
HISTORY = "history"
"""A key of events that tell of the past: they beat no heart and count in no metric."""
TOLD = "fleet-history"
"""The type of the event that ends a telling of the past; its `asked` are whose asking it answers."""
FLEET = "fleet"
"""A key of heartbeats: what a node is, beyond what Celery's workers say of themselves."""
SENDER = "mcpfleet"
SOFTWARE = {"sw_ident": "mcpfleet", "sw_sys": "Linux"}
_UP = (NodeState.ACTIVE, NodeState.CORDONED, NodeState.DRAINING)


def released(seen: AttemptReleased) -> Event:
    """`task-received`, of a release to a node."""
    return _received(seen.invocation_id, seen.tool, seen.project, seen.pool, seen.node or "", seen.fence, seen.at)


def running(invocation_id: str, node: str, at: float) -> Event:
    """`task-started`."""
    return _event("task-started", node, at, invocation_id)


def ended(told: AttemptEnded, *, with_received: bool) -> Iterator[Event]:
    """How an attempt ended. Nothing where no node took it: Flower would show a node that is none."""
    if told.node is None:
        return
    uuid, node = told.invocation_id, told.node
    if with_received:
        yield _received(uuid, told.tool, told.project, told.pool, node, told.fence, told.released_at)
    if told.started_at is not None:
        yield _event("task-started", node, told.started_at, uuid)
    runtime_s = max(0.0, told.at - (told.started_at or told.released_at))
    yield _ending(uuid, node, told.to, told.at, runtime_s, told.error.code if told.error else told.ending)


def past(calls: Iterable[Invocation]) -> Iterator[Event]:
    """The newest attempt of each, as if it were told now, marked as history."""
    for call in calls:
        for attempt in call.attempts[-1:]:
            for event in _of_attempt(call, attempt):
                yield event | {HISTORY: True}


def told(asked: Sequence[str], at: float) -> Event:
    """The past was told."""
    return _event(TOLD, SENDER, at, "") | {"asked": list(asked)}


def heartbeat(node: NodeView, at: float, *, every_s: float, is_late: bool) -> Event:
    """That a node is up, and what it is; or that it is gone."""
    if node.state not in _UP:
        return gone(node.name, at)
    busy = sum(node.running.values())
    beat = _event("worker-heartbeat", node.name, at, "") | SOFTWARE
    beat |= {"freq": every_s, "active": busy, "processed": 0, "sw_ver": node.version}
    beat["loadavg"] = [round(node.cpu, 2), round(node.memory, 2), 0]
    queues = [node_queue(node.name, lane) for lane in sorted(node.slots)]
    queues += [pool_queue(node.pool, lane) for lane in Lane] if is_late else []
    slots = {lane.value: f"{node.running.get(lane, 0)} of {slots}" for lane, slots in sorted(node.slots.items())}
    beat[FLEET] = {
        "pool": node.pool,
        "state": node.state.value,
        "queues": queues,
        "slots": sum(node.slots.values()),
        "running": slots,
        "capabilities": node.capabilities,
        "tools": node.tools,
        "location": node.location,
    }
    return beat


def gone(node: str, at: float) -> Event:
    """`worker-offline`: Flower shows it no longer."""
    return _event("worker-offline", node, at, "")


def _of_attempt(call: Invocation, attempt: Attempt) -> Iterator[Event]:
    if attempt.node is None:
        return
    uuid, node = call.id, attempt.node
    yield _received(uuid, call.call.tool, call.call.project, attempt.pool, node, attempt.fence, attempt.released_at)
    if attempt.started_at is not None:
        yield _event("task-started", node, attempt.started_at, uuid)
    if attempt.ended_at is not None:
        runtime_s = max(0.0, attempt.ended_at - (attempt.started_at or attempt.released_at))
        why = attempt.error_code or attempt.ending or call.state.value
        yield _ending(uuid, node, call.state, attempt.ended_at, runtime_s, why)


def _received(  # noqa: PLR0917 - as many as the page has columns
    uuid: str, tool: str, project: str | None, pool: str, node: str, fence: int, at: float
) -> Event:
    return _event("task-received", node, at, uuid) | {
        "name": tool,
        "args": "(sealed)",
        "kwargs": f"{{'project': {project!r}, 'pool': {pool!r}, 'node': {node!r}, 'attempt': {fence}}}",
        "retries": fence - 1,
        "eta": None,
        "expires": None,
        "root_id": uuid,
        "parent_id": None,
    }


def _ending(uuid: str, node: str, to: State, at: float, runtime_s: float, why: str) -> Event:  # noqa: PLR0917 - as above
    match to:
        case State.SUCCEEDED:
            end = {"type": "task-succeeded", "result": "'succeeded'", "runtime": runtime_s}
        case State.CANCELLED | State.EXPIRED:
            end = {"type": "task-revoked", "terminated": True, "expired": to is State.EXPIRED, "signum": None}
        case State.FAILED | State.LOST:
            end = {"type": "task-failed", "exception": why, "traceback": ""}
        case _:
            end = {"type": "task-retried", "exception": why, "traceback": ""}
    return _event(str(end["type"]), node, at, uuid) | end


def _event(kind: str, node: str, at: float, uuid: str) -> Event:
    event: Event = {"type": kind, "hostname": node, "timestamp": at, "clock": 0, "utcoffset": 0, "pid": 0}
    if uuid:
        event["uuid"] = uuid
    if kind.startswith("task-"):
        event["local_received"] = at
    return event
