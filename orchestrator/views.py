"""The fleet shown: members, pools, queues and backlog as the wire models of `tasks/wire.py`.

Reads what other parts hold in memory, and queue depths from Redis. Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from orchestrator.approvals.desk import asked_of
from orchestrator.intake.story import asked_event
from orchestrator.ledger.approval_values import ApprovalRow
from orchestrator.redis_client import ANSWER_S
from orchestrator.registry.member import Member
from orchestrator.registry.roster import Roster
from tasks.clock import Clock
from tasks.errors import BrokerDown
from tasks.invocation import Invocation, Lane, State
from tasks.node import NodeState
from tasks.pool import PoolPolicy, Strategy
from tasks.queues import node_queue, pool_queue
from tasks.tool import ToolSpec
from tasks.wire import EventView, NodeView, PoolView, QueueView, ToolView
from tasks.wire_trouble import CircuitView


class Occupancy(Protocol):
    """Unsettled attempts."""

    def held(self, node: str, lane: Lane) -> int: ...
    def held_in_pool(self, pool: str, lane: Lane) -> int: ...


class Circuits(Protocol):
    """Circuit breakers."""

    def open_at(self, node: str, incarnation: str) -> Mapping[str, str]: ...
    def listing(self) -> list[CircuitView]: ...


class Views:
    """Everything a listing shows about the fleet itself."""

    def __init__(
        self,
        *,
        roster: Roster,
        occupancy: Occupancy,
        redis: Redis,
        policy: Callable[[str], PoolPolicy],
        paused: Callable[[], frozenset[tuple[str, str]]],
        waiting_in_pool: Callable[[str], int],
        projects_of: Callable[[str], list[str]],
        circuits: Circuits,
        asking: Callable[[str], Sequence[ApprovalRow]],
        clock: Clock,
    ) -> None:
        self._roster, self._occupancy, self._redis = roster, occupancy, redis
        self._policy, self._paused, self._waiting = policy, paused, waiting_in_pool
        self._projects_of, self._circuits, self._asking, self._clock = projects_of, circuits, asking, clock

    def tools(self) -> list[ToolView]:
        """Every tool, by name."""
        return [self._tool(spec) for _, spec in sorted(self._roster.tools().items())]

    def nodes(self) -> list[NodeView]:
        """Every node that joined and did not leave, by name."""
        return [self.node(member) for member in sorted(self._roster.members(), key=lambda m: m.name)]

    def node(self, member: Member) -> NodeView:
        """One node."""
        offer = member.offer
        return NodeView(
            name=member.name,
            pool=offer.pool,
            state=member.state,
            lease_left_s=max(0.0, member.lease.until_s - self._clock.mono_s()),
            slots=dict(offer.slots),
            running=dict(member.load.running),
            outstanding={lane: self._occupancy.held(member.name, lane) for lane in offer.slots},
            cpu=member.load.cpu,
            memory=member.load.memory,
            capabilities=sorted(member.capabilities),
            tools=len(offer.tools),
            location=offer.location,
            visibility=offer.visibility,
            labels=dict(offer.labels),
            version=offer.version,
            url=offer.url,
            projects=self._projects_of(member.name),
            circuits=dict(self._circuits.open_at(member.name, member.incarnation)),
            unhealthy=member.unhealthy(),
            notes=dict(offer.notes),
            mirrors={server: list(projects) for server, projects in offer.mirrors.items()},
            clock_ahead_s=member.load.clock_ahead_s,
            silent_s=None if member.reported_at_s is None else self._clock.mono_s() - member.reported_at_s,
        )

    def circuits(self) -> list[CircuitView]:
        """Every circuit that something failed behind of late."""
        return self._circuits.listing()

    def with_life(self, invocation: Invocation) -> Invocation:
        """The same, with what it asks of people, and when the MCP server of what runs was last heard of."""
        invocation = self.with_questions(invocation)
        if invocation.state is not State.RUNNING or not invocation.attempts:
            return invocation
        *earlier, last = invocation.attempts
        member = self._roster.find(last.node or "")
        heard_at = None if member is None else member.heard_at.get((last.invocation_id, last.fence))
        return replace(invocation, attempts=(*earlier, replace(last, heard_at=heard_at)))

    def with_questions(self, invocation: Invocation) -> Invocation:
        """The same, with what it asks of people."""
        asking = self._asking(invocation.id)
        return replace(invocation, approvals=tuple(row.question.id for row in asking)) if asking else invocation

    def questions(self, invocation_id: str) -> list[EventView]:
        """What it asks of people now, as events."""
        return [asked_event(asked_of(row)) for row in self._asking(invocation_id)]

    def pools(self) -> list[PoolView]:
        """Every pool some node is in, and scaled ones of which one was."""
        return [self._pool(name) for name in sorted(self._roster.pools())]

    async def queues(self) -> list[QueueView]:
        """Every Celery queue, with what waits in the broker.

        Raises:
            BrokerDown: Redis does not answer.
        """
        rows = list(self._queue_names())
        pipeline: Any = self._redis.pipeline(transaction=False)
        for name, _pool, _node, _lane in rows:
            pipeline.llen(name)
        try:
            async with asyncio.timeout(ANSWER_S):
                depths = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise BrokerDown("the configured address", str(error) or type(error).__name__) from error
        paused = self._paused()
        return [
            QueueView(name=name, pool=pool, node=node, lane=lane, depth_msgs=depth, is_paused=("queue", name) in paused)
            for (name, pool, node, lane), depth in zip(rows, depths, strict=True)
        ]

    def _queue_names(self) -> Iterable[tuple[str, str, str | None, Lane]]:
        for member in sorted(self._roster.members(), key=lambda m: m.name):
            for lane in sorted(member.offer.slots):
                yield node_queue(member.name, lane), member.offer.pool, member.name, lane
        for pool in sorted(self._roster.pools()):
            if self._policy(pool).strategy is Strategy.LATE:
                for lane in Lane:
                    yield pool_queue(pool, lane), pool, None, lane

    def _tool(self, spec: ToolSpec) -> ToolView:
        offering = self._roster.offering(spec.name)
        return ToolView(
            name=spec.name,
            title=spec.definition.get("title"),
            description=spec.definition.get("description"),
            lane=spec.lane,
            is_safe=spec.is_safe,
            timeout_s=spec.timeout_s,
            pools=sorted({member.offer.pool for member in offering} | set(self._roster.shapes.offering(spec.name))),
            nodes=sum(1 for member in offering if member.state is NodeState.ACTIVE),
            policy=spec.policy,
            definition=spec.definition,
        )

    def _pool(self, name: str) -> PoolView:
        members = [member for member in self._roster.members() if member.offer.pool == name]
        policy, shape = self._policy(name), self._roster.shapes.of(name)
        remembered = shape.capabilities if shape else frozenset[str]()
        return PoolView(
            name=name,
            strategy=policy.strategy,
            nodes=len(members),
            slots={lane: sum(member.slots(lane) for member in members) for lane in Lane},
            outstanding={
                lane: sum(self._occupancy.held(member.name, lane) for member in members)
                + self._occupancy.held_in_pool(name, lane)
                for lane in Lane
            },
            waiting=self._waiting(name),
            is_paused=policy.is_paused or ("pool", name) in self._paused(),
            capabilities=sorted({label for member in members for label in member.capabilities} | remembered),
        )
