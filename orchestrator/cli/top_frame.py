"""What `mcpfleet top` shows at one moment, asked of the HTTP API, and what in it needs attention.

A part that these credentials may not see is None, and the screen says less. Refuses to draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.cli.api import Api, Params, listed
from orchestrator.cli.durations import took
from orchestrator.cli.exits import Exit, of_error
from tasks.errors import FleetError
from tasks.invocation import State
from tasks.node import NodeState
from tasks.pulse_wire import PulseView
from tasks.scale_wire import ScaleView
from tasks.wire import BacklogView, DeadLetterView, InvocationView, NodeView, PoolView, QueueView
from tasks.wire_costs import CostsView

CALLS_MAX = 200
"""Running calls looked at; more do not fit on any screen."""
DEAD_MAX = 100
DAY_S = 86_400.0
OLDEST_WAIT_S = 60.0
"""Past this, what waits is no queue of the moment."""
FAILING_SHARE = 0.05
T = TypeVar("T")


class Frame(BaseModel):
    """Everything of one refresh; also one line of `--json`."""

    model_config = ConfigDict(frozen=True)

    at: float
    url: str
    nodes: list[NodeView] = Field(default_factory=list)
    pools: list[PoolView] = Field(default_factory=list)
    queues: list[QueueView] = Field(default_factory=list)
    backlog: BacklogView | None = None
    pulse: PulseView | None = None
    calls: list[InvocationView] = Field(default_factory=list)
    """At nodes now, in no order."""
    scale: ScaleView | None = None
    costs: CostsView | None = None
    """Of the last 24 hours."""
    dead_letters: int | None = None
    """Not answered yet; counted up to 100."""
    attention: list[str] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)
    """Parts that could not be had, and why."""


def gather(api: Api, now: Callable[[], float] = time.time) -> Frame:
    """One refresh.

    Raises:
        FleetError: no orchestrator answers, or it refuses these credentials altogether.
    """
    missing: list[str] = []

    def part(name: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except FleetError as error:
            if of_error(error) is Exit.UNAVAILABLE and name != "queues":
                raise
            missing.append(f"{name}: {error.message}")
            return None

    held = [State.RUNNING, State.UNREACHABLE, State.RELEASED]
    listing: Params = {"state": held, "limit": CALLS_MAX}
    frame = Frame(
        at=now(),
        url=api.url,
        nodes=part("nodes", lambda: list(api.pages("/v1/nodes", NodeView))) or [],
        pools=part("pools", lambda: list(api.pages("/v1/pools", PoolView))) or [],
        queues=part("queues", lambda: list(api.pages("/v1/queues", QueueView))) or [],
        backlog=part("backlog", lambda: api.get("/v1/backlog", BacklogView)),
        pulse=part("pulse", lambda: api.get("/v1/pulse", PulseView)),
        calls=part("calls", lambda: list(listed(api.pages("/v1/invocations", InvocationView, listing), CALLS_MAX)))
        or [],
        scale=part("autoscaler", lambda: api.get("/v1/scale", ScaleView)),
        costs=part("costs", lambda: api.get("/v1/costs", CostsView, {"since": now() - DAY_S, "limit": 1})),
        dead_letters=part("dead letters", lambda: _dead(api)),
        missing=missing,
    )
    return frame.model_copy(update={"attention": list(attention(frame))})


def attention(frame: Frame) -> Iterator[str]:
    """What a person should look at, the worst first, each with what to type."""
    for node in frame.nodes:
        if node.state is NodeState.LOST:
            yield f"node {node.name} is lost: look at its machine, or mcpfleet node revoke {node.name}"
    if frame.nodes and not any(node.state is NodeState.ACTIVE for node in frame.nodes):
        yield "no node takes calls: mcpfleet nodes"
    for node in frame.nodes:
        for server, why in {**node.unhealthy, **node.circuits}.items():
            yield f"{f'server {server} of ' if server else 'node '}{node.name} is passed by: {why}"
    yield from _of_calls(frame)
    for pool in frame.pools:
        if pool.is_paused:
            yield f"pool {pool.name} is paused: mcpfleet resume pool {pool.name}"
    for alert in () if frame.scale is None else frame.scale.alerts:
        yield f"autoscaler: {alert}"
    yield from frame.missing


def _of_calls(frame: Frame) -> Iterator[str]:
    lost = [call for call in frame.calls if call.state is State.UNREACHABLE]
    if lost:
        yield f"{len(lost)} calls are at nodes that do not answer: mcpfleet ps --state unreachable"
    if frame.backlog is not None and frame.backlog.oldest_wait_s > OLDEST_WAIT_S:
        yield f"the oldest call has waited {took(frame.backlog.oldest_wait_s)}: mcpfleet ps, then mcpfleet why ID"
    pulse = frame.pulse
    if pulse is not None and pulse.failed_per_s > FAILING_SHARE * pulse.ended_per_s:
        share = pulse.failed_per_s / pulse.ended_per_s
        yield f"{share:.0%} of what ended in the last minute failed: mcpfleet dead list"
    if frame.backlog is not None and frame.backlog.paused_projects:
        yield f"paused projects: {', '.join(frame.backlog.paused_projects)}"


def _dead(api: Api) -> int:
    letters = listed(api.pages("/v1/dead-letters", DeadLetterView, {"limit": DEAD_MAX}), DEAD_MAX)
    return sum(1 for letter in letters if letter.replayed_as is None)
