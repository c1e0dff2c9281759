"""A whole fleet in memory, one node `a` in one pool `main`, for the tests of every door.

Keeps the promises of `orchestrator.fleet.Fleet` that doors rely on: durable-or-error per set,
idempotency keys, tenants, chains, deadlines, retries, events. Refuses to route: there is one node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import replace

from jsonschema import Draft202012Validator

from orchestrator.ledger.dead_values import DeadCount, DeadFilter, DeadLetter
from orchestrator.ledger.values import Filter
from orchestrator.testing.rows import Row, Rows
from orchestrator.testing.runs import Runs
from orchestrator.testing.tools import FakeTool, probe_tools
from tasks.clock import Clock, SystemClock
from tasks.errors import (
    DeadlinePassed,
    InvalidArguments,
    InvalidProject,
    NotFound,
    UnknownCapability,
    UnknownTool,
    WrongState,
)
from tasks.ids import new_id
from tasks.invocation import PROJECT_PATTERN, TERMINAL, Call, Invocation, Lane, Principal, State
from tasks.node import NodeState, Visibility
from tasks.tool import ToolSpec
from tasks.wire import AttemptView, BacklogView, EventView, ExplainView, NodeView, PoolView, QueueView, ToolView
from tasks.wire_trouble import CircuitView

NODE, POOL, CAPABILITY = "a", "main", "probe"


class FakeFleet:
    """Satisfies SPEC's `Fleet`. Tools run as tasks of the running loop; `close` ends them."""

    def __init__(self, tools: Mapping[str, FakeTool] | None = None, clock: Clock | None = None) -> None:
        self._tools = dict(probe_tools() if tools is None else tools)
        self._clock = clock or SystemClock()
        self._rows = Rows()
        self._runs = Runs(self._rows, self._tools, self._clock)
        self._state = NodeState.ACTIVE
        self.tools_version = 1

    async def close(self) -> None:
        """End what still runs."""
        await self._runs.close()

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]:
        """Check all, keep all, start all; the same order."""
        fresh: list[Row] = []
        rows: list[Row] = []
        for call in calls:
            known = self._rows.known(call, principal) or next(
                (row for row in fresh if row.key and row.key == (principal.tenant, call.idempotency_key)), None
            )
            if known is None:
                known = self._checked(call, principal)
                fresh.append(known)
            rows.append(known)
        for row in fresh:
            self._rows.add(row)
            self._runs.start(row)
        return [row.invocation for row in rows]

    async def get(self, invocation_id: str, principal: Principal) -> Invocation:
        """As it stands."""
        return self._rows.get(invocation_id, principal).invocation

    async def wait(self, invocation_id: str, principal: Principal, timeout_s: float | None) -> Invocation:
        """When it ended, or as it stands when the time is over."""
        row = self._rows.get(invocation_id, principal)
        try:
            async with asyncio.timeout(timeout_s):
                await row.ended.wait()
        except TimeoutError:
            pass
        return row.invocation

    async def result_json(self, invocation: Invocation) -> str | None:
        """CallToolResult text."""
        return None if invocation.outcome is None else invocation.outcome.result_json

    async def arguments_json(self, invocation_id: str, principal: Principal) -> str:
        """JSON text."""
        return self._rows.get(invocation_id, principal).invocation.call.arguments_json

    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation:
        """End it. Ended ones stay as they are."""
        row = self._rows.get(invocation_id, principal)
        if row.invocation.state not in TERMINAL:
            await self._runs.cancel(row)
        return row.invocation

    async def replay(self, invocation_id: str, principal: Principal) -> Invocation:
        """The same call again, linked."""
        old = self._rows.get(invocation_id, principal).invocation
        if old.state not in TERMINAL:
            raise WrongState(invocation_id, old.state, "replayed")
        row = self._checked(replace(old.call, idempotency_key=None, invocation_id=None, expires_at=None), principal)
        row.invocation = replace(row.invocation, replay_of=old.id)
        self._rows.add(row)
        self._runs.start(row)
        if invocation_id in self._rows.dead:
            self._rows.dead[invocation_id] = replace(self._rows.dead[invocation_id], replayed_as=row.invocation.id)
        return row.invocation

    async def explain(self, invocation_id: str, principal: Principal) -> ExplainView:
        """Why it is where it is."""
        now = self._rows.get(invocation_id, principal).invocation
        attempts = [
            AttemptView(
                fence=one.fence, node=one.node, pool=one.pool, queue=one.queue, released_at=one.released_at,
                started_at=one.started_at, ended_at=one.ended_at, ending=one.ending, reasons=list(one.reasons),
            )
            for one in now.attempts
        ]  # fmt: skip
        return ExplainView(
            id=now.id, state=now.state, summary=f"{now.state}", reasons=["the only node"], attempts=attempts
        )

    async def events(self, invocation_id: str, principal: Principal) -> AsyncIterator[EventView]:
        """So far, then live; the last is `ended`."""
        row, seen = self._rows.get(invocation_id, principal), 0
        while True:
            for event in row.events[seen:]:
                seen += 1
                yield event
                if event.kind == "ended":
                    return
            await row.news(seen)

    async def listing(
        self, where: Filter, principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[Invocation], str | None]:
        """Newest first."""
        return self._rows.page(where, principal, cursor, limit)

    def tools(self, principal: Principal) -> list[ToolView]:  # noqa: ARG002 - the signature of the real one
        """All of them."""
        return [_tool_view(tool.spec) for tool in self._tools.values()]

    def tool(self, name: str) -> ToolSpec | None:
        """One."""
        found = self._tools.get(name)
        return None if found is None else found.spec

    def nodes(self) -> list[NodeView]:
        """The one."""
        running = sum(row.invocation.state is State.RUNNING for row in self._rows)
        lanes = {Lane.TOOLS: running, Lane.AGENTS: 0}
        return [
            NodeView(
                name=NODE, pool=POOL, state=self._state, lease_left_s=7, slots={Lane.TOOLS: 8, Lane.AGENTS: 2},
                running=lanes, outstanding=lanes, cpu=0, memory=0, capabilities=[CAPABILITY], tools=len(self._tools),
                location="", visibility=Visibility.PUBLIC, labels={}, version="0", url="",
            )
        ]  # fmt: skip

    def pools(self) -> list[PoolView]:
        """The one."""
        return [
            PoolView(
                name=POOL, strategy="least_connections", nodes=1, slots={Lane.TOOLS: 8, Lane.AGENTS: 2},
                outstanding={}, waiting=self.backlog().waiting, is_paused=("pool", POOL) in self._rows.paused,
                capabilities=[CAPABILITY],
            )
        ]  # fmt: skip

    async def queues(self) -> list[QueueView]:
        """The one."""
        name = f"mcpfleet.n.{NODE}.tools"
        is_paused = ("queue", name) in self._rows.paused
        return [QueueView(name=name, pool=POOL, node=NODE, lane=Lane.TOOLS, depth_msgs=0, is_paused=is_paused)]

    def circuits(self) -> list[CircuitView]:
        """None."""
        return []

    def backlog(self) -> BacklogView:
        """What waits."""
        waiting = [row.invocation for row in self._rows if row.invocation.state is State.WAITING]
        projects = [one.call.project or "" for one in waiting]
        return BacklogView(
            waiting=len(waiting), delayed=sum(one.call.not_before is not None for one in waiting), outstanding=0,
            oldest_wait_s=0, by_project={name: projects.count(name) for name in set(projects)},
            paused_projects=sorted(name for kind, name in self._rows.paused if kind == "project"),
        )  # fmt: skip

    async def pause(self, kind: str, name: str, is_paused: bool) -> None:
        """Nothing of it starts while paused."""
        if kind == "pool" and name != POOL:
            raise NotFound("pool", name, [POOL])
        await self._runs.pause(kind, name, is_paused=is_paused)

    async def set_node_state(self, name: str, state: NodeState) -> NodeView:
        """Remembered only."""
        if name != NODE:
            raise NotFound("node", name, [NODE])
        self._state = state
        return self.nodes()[0]

    async def dead_letters(
        self, principal: Principal, where: DeadFilter, cursor: str | None, limit: int
    ) -> tuple[list[DeadLetter], str | None]:
        """Newest first."""
        return self._rows.dead_page(principal, where, cursor, limit)

    async def dead_counts(self, principal: Principal, where: DeadFilter) -> list[DeadCount]:
        """By reason."""
        letters = self._rows.letters(principal, where)
        by = {reason: [one for one in letters if one.reason == reason] for reason in {one.reason for one in letters}}
        return [DeadCount(name, len(own), sum(1 for one in own if one.replayed_as)) for name, own in sorted(by.items())]

    async def replay_dead(self, ids: Sequence[str] | None, principal: Principal) -> list[Invocation]:
        """Each as a new Invocation."""
        own = [letter.invocation_id for letter in self._rows.dead.values() if letter.tenant == principal.tenant]
        return [await self.replay(one, principal) for one in (own if ids is None else ids)]

    async def discard_dead(self, ids: Sequence[str], principal: Principal) -> int:
        """How many were there."""
        own = [one for one in ids if one in self._rows.dead and self._rows.dead[one].tenant == principal.tenant]
        for one in own:
            del self._rows.dead[one]
        return len(own)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that `close` ends too."""
        return self._runs.spawn(work)

    def _checked(self, call: Call, principal: Principal) -> Row:
        now_s = self._clock.wall_s()
        for step in (call, *call.then):
            if step.tool not in self._tools:
                raise UnknownTool(step.tool, list(self._tools))
            if step.project is not None and not PROJECT_PATTERN.fullmatch(step.project):
                raise InvalidProject(step.project)
            for capability in step.requires - {CAPABILITY}:
                raise UnknownCapability(capability, [CAPABILITY])
        if call.expires_at is not None and call.expires_at <= now_s:
            raise DeadlinePassed(now_s - call.expires_at)
        row = Row(
            Invocation(
                id=call.invocation_id or new_id(now_s), call=call, principal=principal,
                lane=call.lane or Lane.TOOLS, state=State.WAITING, accepted_at=now_s,
            )
        )  # fmt: skip
        schema = self._tools[call.tool].spec.input_schema
        for error in Draft202012Validator(schema).iter_errors(row.arguments):
            raise InvalidArguments(call.tool, error.json_path, error.message)
        return row


def _tool_view(spec: ToolSpec) -> ToolView:
    definition = spec.definition
    return ToolView(
        name=spec.name, title=definition.get("title"), description=definition.get("description"), lane=spec.lane,
        is_safe=spec.is_safe, timeout_s=spec.timeout_s, pools=[POOL], nodes=1, policy=spec.policy,
        definition=definition,
    )  # fmt: skip
