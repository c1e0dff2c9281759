"""The fleet, as all five doors see it: accept, wait, cancel, replay, explain, watch.

Owns the order of things (checked, durable, then told to the dispatcher) and who may see what;
every part behind it is handed in by `bootstrap.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from orchestrator.fleet_ports import Attempts, Blobs, Books, Dispatch, Gate, Nodes, Tools, Voice
from orchestrator.happenings import Accepted, AttemptEnded, Ended, Happening
from orchestrator.intake.check import Intake
from orchestrator.intake.story import Story, brief
from orchestrator.intake.watch import REREAD_S, Watch
from orchestrator.ledger.dead_values import DeadCount, DeadFilter, DeadLetter
from orchestrator.ledger.values import Accepted as AcceptedRow
from orchestrator.ledger.values import Filter, NewInvocation, Waiting
from orchestrator.views import Views
from tasks.clock import Clock
from tasks.errors import FleetError, LedgerDown, NotFound, WrongState
from tasks.invocation import OUTSTANDING, TERMINAL, Attempt, Call, Invocation, Principal, State
from tasks.node import NodeState
from tasks.outcome import Outcome
from tasks.queues import node_queue, pool_queue
from tasks.scopes import Scope, require
from tasks.tool import ToolSpec
from tasks.wire import BacklogView, EventView, ExplainView, NodeView, PoolView, QueueView, ToolView
from tasks.wire_trouble import CircuitView

DEAD_BATCH = 1000
DEAD = frozenset({State.FAILED, State.EXPIRED, State.LOST})
RECENT_KEPT = 10_000
"""Accepted lately, without arguments and later calls: about 10 MB, and saves a read of the ledger per call."""
UNKNOWN_REREAD_S = 0.5
"""Between reads of an Invocation that another replica dispatches."""


class Fleet:
    """What every door calls."""

    def __init__(
        self,
        *,
        intake: Intake,
        books: Books,
        dispatch: Dispatch,
        attempts: Attempts,
        nodes: Nodes,
        tools: Tools,
        voice: Voice,
        blobs: Blobs,
        watch: Watch,
        views: Views,
        clock: Clock,
        tell: Callable[[Happening], None],
        as_waiting: Callable[[Invocation], Waiting],
        doubt: Callable[[str], None],
        gate: Gate,
        accept: Callable[[Sequence[NewInvocation]], Awaitable[list[AcceptedRow]]] | None = None,
    ) -> None:
        self._gate = gate
        self._intake, self._books, self._dispatch, self._nodes = intake, books, dispatch, nodes
        self._attempts, self._accept = attempts, accept
        self._tools, self._voice, self._blobs, self._watch = tools, voice, blobs, watch
        self._views, self._clock, self._tell, self._as_waiting, self._doubt = views, clock, tell, as_waiting, doubt
        self._story = Story(books=books, watch=watch, questions=views.questions)
        self._recent: OrderedDict[str, Invocation] = OrderedDict()

    @property
    def tools_version(self) -> int:
        """Changes when the list of tools does, or who sees which."""
        return self._tools.tools_version + self._gate.version

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]:
        """Make calls durable, all or none, and hand them to the dispatcher.

        Returns:
            One Invocation per call, in order; for a repeated idempotency key, the earlier one.

        Raises:
            InvalidCall, BacklogFull, LedgerDown, ScopeMissing, PolicyDenied, RateLimited, QuotaSpent: nothing was
                accepted.
        """
        require(principal, Scope.INVOCATIONS_WRITE)
        rows = [await self._intake.admit(call, principal) for call in calls]
        self._check(calls, principal)
        return await self._write(rows, principal)

    def _check(self, calls: Sequence[Call], principal: Principal) -> None:
        """Calls of a chain are asked about now, with the one that they follow: later nobody is there to be told."""
        every = [one for call in calls for one in _with_later(call)]
        specs = [spec for call in every if (spec := self._tools.tool(call.tool)) is not None]
        if len(specs) == len(every):  # else intake has refused them
            self._gate.admit(every, specs, principal)

    async def get(self, invocation_id: str, principal: Principal) -> Invocation:
        """One Invocation with its attempts and outcome.

        Raises:
            NotFound: there is none, or it is another tenant's.
            ScopeMissing: it is another principal's, and this one may read its own alone.
        """
        return self._views.with_life(_readable(await self._books.get(invocation_id, principal.tenant), principal))

    async def wait(self, invocation_id: str, principal: Principal, timeout_s: float | None) -> Invocation:
        """The Invocation once it ended, or as it stands when the time is over.

        Subscribes, then reads, and re-reads every few seconds: a missed telling costs time, never
        the answer. Whoever waits for what was just accepted here costs the ledger no read. An
        orchestrator that ends answers at once whoever said how long to wait: they ask again.
        """
        deadline_s = None if timeout_s is None else self._clock.mono_s() + timeout_s
        while True:
            left_s = REREAD_S if deadline_s is None else min(REREAD_S, deadline_s - self._clock.mono_s())
            ended = self._watch.ended(invocation_id)
            if ended is None and left_s > 0 and self._dispatch.knows(invocation_id):
                ended = await self._watch.wait(invocation_id, left_s)
            recent = self._recent.get(invocation_id)
            if ended is not None and recent is not None and recent.principal.tenant == principal.tenant:
                view = ended_view(_readable(recent, principal), ended)
                if view is not None:
                    return view
            invocation = _readable(await self._books.get(invocation_id, principal.tenant), principal)
            is_late = deadline_s is not None and (self._watch.is_over or self._clock.mono_s() >= deadline_s)
            if invocation.state in TERMINAL or is_late:
                return self._views.with_questions(invocation)
            if not self._dispatch.knows(invocation_id):
                await self._watch.wait(invocation_id, min(UNKNOWN_REREAD_S, max(left_s, 0.0)))

    async def result_json(self, invocation: Invocation) -> str | None:
        """The tool's `CallToolResult` as JSON text, wherever it is kept."""
        outcome = invocation.outcome
        if outcome is None or outcome.result_blob is None:
            return outcome.result_json if outcome else None
        return (await self._blobs.get(outcome.result_blob)).decode()

    async def arguments_json(self, invocation_id: str, principal: Principal) -> str:
        """What it was called with, as JSON text, wherever it is kept.

        Raises:
            NotFound, ScopeMissing: as `get`.
        """
        _readable(await self._books.get(invocation_id, principal.tenant), principal)
        return await self._arguments(invocation_id)

    async def _arguments(self, invocation_id: str) -> str:
        text, blob = await self._books.arguments_of(invocation_id)
        return (text or "{}") if blob is None else (await self._blobs.get(blob)).decode()

    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation:
        """End a waiting Invocation, or ask the node that runs it to stop. Ended ones stay as they are."""
        require(principal, Scope.INVOCATIONS_WRITE)
        now_s = self._clock.wall_s()
        cancelled = await self._books.cancel(invocation_id, principal.tenant, now_s)
        if cancelled.was is State.WAITING and cancelled.state is State.CANCELLED:
            self._dispatch.withdraw(invocation_id)
            ended = await self._books.get(invocation_id, principal.tenant)
            self._tell(Ended(invocation_id, State.CANCELLED, now_s, ended.call.tool, ended.outcome))
            return ended
        if cancelled.state in OUTSTANDING:
            self._attempts.cancel_requested(invocation_id, cancelled.fence)
        if cancelled.state in OUTSTANDING and cancelled.node is not None:
            await self._voice.cancel(invocation_id, cancelled.fence, cancelled.node)
        return await self._books.get(invocation_id, principal.tenant)

    async def replay(self, invocation_id: str, principal: Principal) -> Invocation:
        """A new Invocation of the same call, linked to the old one.

        Raises:
            WrongState: the old one has not ended.
        """
        (accepted,) = await self._write([await self._again(invocation_id, principal)], principal)
        return accepted

    async def _again(self, invocation_id: str, principal: Principal) -> NewInvocation:
        old = await self._books.get(invocation_id, principal.tenant)
        if old.state not in TERMINAL:
            raise WrongState(invocation_id, old.state, "replayed before it ended")
        call = replace(
            old.call,
            arguments_json=await self._arguments(invocation_id),
            invocation_id=None,
            # A letter is answered once, whoever asks, and however often: the earlier replay stands for it.
            idempotency_key=f"replay-of:{invocation_id}" if old.state in DEAD else None,
            trace_id=None,
            trace_parent=None,
            parent=None,  # a replay is a person's doing, and the parent may be forgotten
            not_before=None,
            expires_at=None,
            then=tuple(replace(step, invocation_id=None) for step in old.call.then),
        )
        row = await self._intake.admit(call, principal)
        self._check([call], principal)
        return replace(row, invocation=replace(row.invocation, replay_of=invocation_id))

    async def explain(self, invocation_id: str, principal: Principal) -> ExplainView:
        """Why it waits, why this node, or why it was refused."""
        found = _readable(await self._books.get(invocation_id, principal.tenant), principal)
        invocation = self._views.with_questions(found)
        return brief(invocation, self._dispatch.why(invocation_id))

    def events(self, invocation_id: str, principal: Principal) -> AsyncIterator[EventView]:
        """History so far, then live, until `ended`."""
        return self._story.tell(invocation_id, principal)

    async def listing(
        self, where: Filter, principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[Invocation], str | None]:
        """Invocations of the caller's tenant, newest first."""
        found, following = await self._books.listing(
            replace(where, tenant=principal.tenant), cursor=cursor, limit=limit
        )
        return [self._views.with_questions(one) for one in found], following

    def tools(self, principal: Principal) -> list[ToolView]:
        """Every tool this caller may see."""
        return [view for view in self._views.tools() if self._sees(principal, view.name)]

    def _sees(self, principal: Principal, name: str) -> bool:
        spec = self._tools.tool(name)
        return spec is not None and self._gate.sees(principal, spec)

    def tool(self, name: str) -> ToolSpec | None:
        """One tool's definition and policy."""
        return self._tools.tool(name)

    def nodes(self) -> list[NodeView]:
        """Every node."""
        return self._views.nodes()

    def pools(self) -> list[PoolView]:
        """Every pool."""
        return self._views.pools()

    async def queues(self) -> list[QueueView]:
        """Every Celery queue and its depth."""
        return await self._views.queues()

    def circuits(self) -> list[CircuitView]:
        """Every circuit that something failed behind of late."""
        return self._views.circuits()

    def backlog(self) -> BacklogView:
        """What waits in the ledger."""
        return self._dispatch.backlog()

    async def pause(self, kind: str, name: str, is_paused: bool) -> None:
        """Pause or resume a queue, a pool or a project."""
        await self._dispatch.pause(kind, name, is_paused)

    async def set_node_state(self, name: str, state: NodeState) -> NodeView:
        """Cordon, drain or reactivate a node."""
        await self._nodes.set_state(name, state)
        view = next((node for node in self._views.nodes() if node.name == name), None)
        if view is None:
            raise NotFound("node", name)
        return view

    async def dead_letters(
        self, principal: Principal, where: DeadFilter, cursor: str | None, limit: int
    ) -> tuple[list[DeadLetter], str | None]:
        """What ended badly, newest first."""
        return await self._books.dead_letters(tenant=principal.tenant, where=where, cursor=cursor, limit=limit)

    async def dead_counts(self, principal: Principal, where: DeadFilter) -> list[DeadCount]:
        """How many there are of each reason, the most first."""
        return await self._books.dead_counts(principal.tenant, where)

    async def replay_dead(self, ids: Sequence[str] | None, principal: Principal) -> list[Invocation]:
        """Replay these dead letters, or all that were not replayed yet: every one of them, or none."""
        rows = []
        for dead in await self._chosen(ids, principal):
            try:
                rows.append(await self._again(dead, principal))
            except FleetError as error:
                error.message = f"nothing was replayed, because of dead letter {dead}: {error.message}"
                raise
        return await self._write(rows, principal)

    async def discard_dead(self, ids: Sequence[str], principal: Principal) -> int:
        """Forget dead letters; their Invocations stay in the history."""
        return await self._books.discard_dead(await self._chosen(ids, principal))

    async def _chosen(self, ids: Sequence[str] | None, principal: Principal) -> list[str]:
        if ids is not None:
            return [(await self._books.get(one, principal.tenant)).id for one in ids]
        chosen: list[str] = []
        cursor = None
        while True:
            page, cursor = await self._books.dead_letters(tenant=principal.tenant, cursor=cursor, limit=DEAD_BATCH)
            chosen += [dead.invocation_id for dead in page if dead.replayed_as is None]
            if cursor is None:
                return chosen

    async def _write(self, rows: Sequence[NewInvocation], principal: Principal) -> list[Invocation]:
        try:
            accepted = await (self._accept or self._books.accept)(rows)
        except LedgerDown:
            for row in rows:
                self._doubt(row.invocation.id)  # the commit may have been kept, and only its answer lost
            raise
        answer = []
        for row, took in zip(rows, accepted, strict=True):
            if not took.is_new:
                earlier = await self._books.get(took.invocation_id, principal.tenant)
                if earlier.state is State.WAITING and not self._dispatch.knows(earlier.id):
                    self._dispatch.offer(self._as_waiting(earlier))  # its commit's answer was lost
                answer.append(earlier)
                continue
            self._tell(Accepted(row.invocation))
            self._dispatch.offer(self._as_waiting(row.invocation))
            self._remember(row.invocation)
            answer.append(row.invocation)
        return answer

    def _remember(self, invocation: Invocation) -> None:
        call = replace(invocation.call, arguments_json="{}", meta_json=None, then=())
        self._recent[invocation.id] = replace(invocation, call=call)
        if len(self._recent) > RECENT_KEPT:
            self._recent.popitem(last=False)


def _readable(invocation: Invocation, principal: Principal) -> Invocation:
    """One's own is read with whatever scopes one called with; raises ScopeMissing for anybody else's."""
    if invocation.principal.id != principal.id:
        require(principal, Scope.INVOCATIONS_READ)
    return invocation


def _with_later(call: Call) -> list[Call]:
    """A call and those of its chain, each in the project in which it will run (`Intake.successors`)."""
    every = [call]
    for later in call.then:
        every.append(later if later.project else replace(later, project=every[-1].project))
    return every


def ended_view(accepted: Invocation, ended: Ended) -> Invocation | None:
    """The accepted Invocation with its end, if its only attempt ended it: else only the ledger knows all."""
    last = ended.last
    if last is None or last.fence != 1:
        return None
    return replace(
        accepted,
        state=ended.state,
        ended_at=ended.at,
        outcome=ended.outcome or Outcome(ended.state.value),
        fence=last.fence,
        tries=last.tries,
        attempts=(_last_attempt(last),),
    )


def _last_attempt(last: AttemptEnded) -> Attempt:
    queue = node_queue(last.node, last.lane) if last.node else pool_queue(last.pool, last.lane)
    return Attempt(
        invocation_id=last.invocation_id,
        fence=last.fence,
        node=last.node,
        incarnation=None,
        pool=last.pool,
        lane=last.lane,
        queue=queue,
        released_at=last.released_at,
        started_at=last.started_at,
        ended_at=last.at,
        ending=last.ending,
        error_code=last.error.code if last.error else None,
        error_message=last.error.message if last.error else None,
    )
