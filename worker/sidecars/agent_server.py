"""A sidecar as an upstream of the node: its tools, in the lane of agents.

Owns what surrounds a run: arguments, the credential's state, files, progress, and how a Result becomes an
MCP answer or a failure that the fleet knows what to do with. Refuses to know a runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
import structlog

from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import Lane
from tasks.tool import OnNodeLoss, ToolPolicy, ToolSpec
from worker.confines import janitor
from worker.confines.confines import Confined, Confines, MemorySpent, ProcessesSpent
from worker.confines.janitor import Janitor
from worker.sidecars import capsules as sessions
from worker.sidecars.agent_answers import RUN, answered, definition, kept, line_of, numbered, of_run, of_workspace
from worker.sidecars.asking import Terms, UnderTerms
from worker.sidecars.bill import Bill, agreed
from worker.sidecars.capsule import Capsule
from worker.sidecars.capsules import Capsules, Saver
from worker.sidecars.chat_tools import Applied
from worker.sidecars.credential import Credential
from worker.sidecars.falling_back import Asked, FallsBack, Left
from worker.sidecars.guard import guarded
from worker.sidecars.guard_line import borrower_of
from worker.sidecars.openai_chat_faults import Trouble
from worker.sidecars.places import Place, Places
from worker.sidecars.run_arguments import RunArguments, parsed
from worker.sidecars.sidecar import (
    AgentTask,
    Ending,
    Fault,
    Health,
    Result,
    RunLimits,
    Sidecar,
    ToolBegan,
)
from worker.sidecars.standing import Ran, Standing, is_midway
from worker.sidecars.watching import watched
from worker.upstreams.errors import unavailable, unknown_tool
from worker.upstreams.upstream import Ask, ServerStatus

_log = structlog.get_logger()

AROUND_S = 900.0
"""For fetching before a run, and for patch and push after it: its own limit is to be the one that ends it."""
LOOK_AGAIN_S = 30.0
TIDY_EVERY_S = 3600.0
FAULT_OF: dict[type[Exception], Fault] = {MemorySpent: Fault.MEMORY, ProcessesSpent: Fault.PROCESSES}


class Extras(Protocol):
    """Tools beside `run`: one request each, no agent."""

    def definitions(self) -> tuple[dict[str, Any], ...]:
        """As MCP lists tools."""
        ...

    def wants_a_place(self, tool: str, arguments: dict[str, Any]) -> Applied | None:
        """Whether it writes files; raises UpstreamError for wrong arguments."""
        ...

    async def call(
        self, tool: str, arguments: dict[str, Any], workspace: Path | None, bill: Bill
    ) -> dict[str, Any] | Trouble:
        """A CallToolResult, or why there is none."""
        ...


class AgentServer:
    """One upstream with one sidecar behind it."""

    def __init__(
        self,
        name: str,
        sidecar: Sidecar,
        *,
        limits: RunLimits,
        credential: Credential,
        places: Places,
        serving: Callable[[], AbstractAsyncContextManager[None]],
        policy_of: Callable[[str], ToolPolicy],
        on_change: Callable[[], None],
        clock: Clock,
        confines: Confines,
        janitor: Janitor,
        extras: Extras | None = None,
        learns: bool = True,
        capsules: Capsules | None = None,
        terms: Terms | None = None,
        falls_back: FallsBack | None = None,
    ) -> None:
        """`learns`: what a run's end says of the credential is believed. Not where an egress hears it itself.

        Without `capsules` no session is saved, and a run that is lost with this node is lost.
        """
        self.name, self.tool, self.wall_s = name, f"{name}.{RUN}", limits.wall_s
        self._sidecar, self._limits, self._falls_back = sidecar, limits, falls_back
        self._standing = Standing(name, credential, on_change, learns=learns)
        self._places, self._serving, self._on_change, self._clock = places, serving, on_change, clock
        self._policy_of, self._extras, self._learns, self._capsules = policy_of, extras, learns, capsules
        self._confines, self._janitor = confines, janitor
        self._terms = terms or Terms()
        self._definitions = (definition(), *(extras.definitions() if extras is not None else ()))
        self._health = Health(is_ready=False)
        self._exits = contextlib.AsyncExitStack()
        self._last_success_s: float | None = None
        self._is_open = False
        self._tending: asyncio.Task[None] | None = None
        self._mirrors: tuple[str, ...] = ()

    async def start(self) -> None:
        """Open the way out and find the runtime. What goes wrong is in `status()`, and is tried again."""
        await self._begin()
        self._tending = asyncio.create_task(self._tend())

    async def close(self) -> None:
        """End all runs, then the way out."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self._sidecar.close()
        await self._exits.aclose()
        self._confines.close()

    async def _begin(self) -> None:
        try:
            if not self._is_open:
                self._confines.start()
                await self._janitor.look(at_start=True)
                await self._places.start()
                self._mirrors = await asyncio.to_thread(self._places.mirrored)
                await self._exits.enter_async_context(self._serving())
                self._is_open = True
            self._health = await self._sidecar.start()
        except Exception as error:  # noqa: BLE001 - a line in status(), never a reason for the node not to start
            _log.exception("sidecar_broke_at_start", sidecar=self.name)
            self._health = Health(is_ready=False, why_not=str(error) or type(error).__name__)
        self._on_change()

    async def _tend(self) -> None:
        """Look again while it is not ready, and tidy up now and then. Until cancelled."""
        tidied_s = looked_s = self._clock.mono_s()
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            if not self._health.is_ready:
                await self._begin()
            try:
                if self._clock.mono_s() - looked_s >= janitor.EVERY_S:
                    looked_s = self._clock.mono_s()
                    await self._janitor.look()
                if self._clock.mono_s() - tidied_s >= TIDY_EVERY_S:
                    tidied_s = self._clock.mono_s()
                    await self._places.tidy()
                    await self._look_at_mirrors()
            except (FleetError, OSError) as error:
                _log.warning("not_tidied", sidecar=self.name, error=str(error))

    async def _look_at_mirrors(self) -> None:
        """The fleet should know where a project's files are."""
        found = await asyncio.to_thread(self._places.mirrored)
        if found != self._mirrors:
            self._mirrors = found
            self._on_change()

    def tools(self) -> tuple[ToolSpec, ...]:
        """Nothing where the runtime is not there."""
        if not self._health.is_ready:
            return ()
        return tuple(self._spec(definition) for definition in self._definitions)

    def _spec(self, definition: dict[str, Any]) -> ToolSpec:
        ours = ToolPolicy(lane=Lane.AGENTS, timeout_s=self._most_s() + AROUND_S)
        if not definition["annotations"]["idempotentHint"]:
            goes_on = self._capsules is not None and definition["name"] == RUN
            ours = ours.model_copy(update={"on_node_loss": OnNodeLoss.RESUME if goes_on else OnNodeLoss.ASK})
        said = self._policy_of(f"{self.name}.{definition['name']}").model_dump(exclude_none=True)
        return ToolSpec(server=self.name, definition=definition, policy=ours.model_copy(update=said))

    def _most_s(self) -> float:
        """The longest run of its own, or of the one that it falls back to."""
        return max(self.wall_s, self._falls_back.to.wall_s if self._falls_back is not None else 0.0)

    def quiet_s(self) -> float | None:
        """Each run has its own limit of silence."""
        return None

    def status(self) -> ServerStatus:
        """For people, and for whoever places calls."""
        trouble, note = self._standing.trouble(), None
        if trouble is not None and self._falls_back is not None and self._falls_back.is_due(self._standing):
            trouble, note = None, f"{trouble}; runs fall back to {self._falls_back.to.name}"
        return ServerStatus(
            name=self.name,
            kind="sidecar",
            state="ready" if self._health.is_ready else "closed",
            tools=len(self.tools()),
            error=self._health.why_not,
            protocol=self._health.version,
            last_success_s=self._last_success_s,
            unhealthy=trouble,
            note=note,
            mirrors=self._mirrors,
            limits=self._confines.means.text(),
            leaks=dict(self._janitor.found),
        )

    async def call(self, tool: str, arguments: dict[str, Any], ask: Ask) -> str:
        """One run; an answer also where the agent failed in what it did.

        Raises:
            UpstreamError: nothing was done, or nobody can say what was.
        """
        if not self._health.is_ready:
            raise unavailable(self.name, "not ready", self._health.why_not)
        if self._extras is not None and any(each["name"] == tool for each in self._extras.definitions()):
            return await self._extra(self._extras, tool, arguments, ask)
        if tool != RUN:
            raise unknown_tool(f"{self.name}.{tool}")
        said, bill = parsed(RunArguments, arguments, self.tool), Bill(ask.on_spend, ask.on_request)
        asked = Asked(said, arguments, numbered(ask), bill, left=Left(said.max_s or self._most_s()))
        if self._falls_back is None:
            return await self._here(asked)
        return await self._falls_back.either(self._here, asked, self._standing, self.tool)

    def is_able(self) -> bool:
        """See `StandIn`."""
        return self._health.is_ready and self._standing.trouble() is None

    async def stand_in(self, asked: Asked) -> str:
        """See `StandIn`."""
        if not self._health.is_ready:
            raise unavailable(self.name, "not ready", self._health.why_not)
        return await self._here(asked)

    async def _here(self, asked: Asked) -> str:
        said, ask, bill = asked.said, asked.ask, asked.bill
        self._standing.check()
        run = f"{self.name}-{ask.invocation}"
        done: dict[str, Any] = {}
        try:
            left = await self._left(asked)
            if ask.keeping is not None and ask.keeping.fence > 1:
                run = f"{run}-{ask.keeping.fence}"  # and its branch: the lost node may yet push its own
            ref = said.ref if left is None or left.base is None else left.base
            async with self._places.open(run, ask.project, ref, ask.tenant) as place:
                await self._look_at_mirrors()
                async with self._confines.around(run, place.workspace.parent) as confined:
                    began_s = self._clock.mono_s()
                    task = self._task(run, asked, place=place, entering=confined.entering)
                    ran = await self._run_or_go_on(task, (place, confined), asked, left)
                    asked.left.s -= self._clock.mono_s() - began_s
                result = agreed(ran.result, bill, said.model or self.name, is_counted=not self._learns)
                self._standing.learn(result.fault, result.retry_after_s)
                no_answer = self._standing.no_answer(dataclasses.replace(ran, result=result))
                if no_answer is None and (left is not None or ran.used_tools or result.ending is not Ending.FAILED):
                    done = await kept(place, push=said.push)
        except FleetError as error:
            raise of_workspace(error) from error
        if no_answer is not None:
            if ran.is_saved:
                ask.on_progress(0.0, None, no_answer.info.message)
            raise no_answer
        if left is not None:
            result = sessions.in_all(result, left)
        self._last_success_s = self._clock.mono_s()
        why = None if asked.instead is None else asked.instead.why
        return answered(result, done | of_run(self.name, left, why))

    async def _extra(self, extras: Extras, tool: str, arguments: dict[str, Any], ask: Ask) -> str:
        applied = extras.wants_a_place(tool, arguments)
        self._standing.check()
        done: dict[str, Any] = {}
        bill = Bill(ask.on_spend, ask.on_request)
        try:
            if applied is None:
                answer = await extras.call(tool, arguments, None, bill)
            else:
                run = f"{self.name}-{ask.invocation}"
                async with self._places.open(run, ask.project, applied.ref, ask.tenant) as place:
                    answer = await extras.call(tool, arguments, place.workspace, bill)
                    if isinstance(answer, dict):
                        done = await kept(place, push=applied.push)
        except FleetError as error:
            raise of_workspace(error) from error
        if isinstance(answer, Trouble):
            self._standing.learn(answer.fault, answer.retry_after_s)
            failed = Result(Ending.FAILED, answer.message, answer.fault, retry_after_s=answer.retry_after_s)
            no_answer = self._standing.no_answer(Ran(failed, used_tools=False))
            if no_answer is not None:
                raise no_answer
            return answered(failed, done)
        self._standing.learn(None, None)
        self._last_success_s = self._clock.mono_s()
        answer["structuredContent"] |= done
        return orjson.dumps(answer).decode()

    def _task(self, run: str, asked: Asked, *, place: Place, entering: tuple[str, ...]) -> AgentTask:
        said, ask = asked.said, asked.ask
        return AgentTask(
            run=run,
            prompt=said.prompt,
            workspace=place.workspace,
            home=place.home,
            limits=said.within(self._limits, asked.left.s),
            project=ask.project,
            tenant=ask.tenant,
            servers=self._places.servers(ask.project, ask.tenant),
            borrower=borrower_of(ask),
            read_only=place.read_only,
            reach=place.reach,
            entering=entering,
            session=said.how_it_begins(),
            model=said.model,
            allowed_tools=said.allowed_tools,
            denied_tools=said.denied_tools,
            permission_mode=said.permission_mode,
            output_schema=said.output_schema,
            bill=asked.bill,
        )

    async def _left(self, asked: Asked) -> Capsule | None:
        if self._capsules is not None:
            return await self._capsules.left(asked.arguments, asked.said.model, asked.ask)
        if asked.ask.keeping is not None and asked.ask.keeping.left is not None:
            raise sessions.unfit(f"{self.name}: no session goes on on this node; see capsule_every_s")
        return None

    async def _run_or_go_on(
        self, task: AgentTask, within: tuple[Place, Confined], asked: Asked, left: Capsule | None
    ) -> Ran:
        """From the beginning, or from where an earlier attempt was."""
        ask = asked.ask
        if left is not None:
            await within[0].restore(left.patch)
            over, task = sessions.used_up(task, left), sessions.going_on(task, left)
            ask.on_progress(0.0, None, f"goes on after {left.used.turns} turns on {', '.join(left.was_on)}")
            if over is not None:
                return Ran(over, used_tools=False, is_resumed=True)
        if self._capsules is None:
            return Ran(*await self._watched(task, within, ask, None))
        of = None if asked.instead is None else asked.instead.of
        async with self._capsules.saving(task, within[0], asked.arguments, ask, left, instead_of=of) as saver:
            ran = Ran(*await self._watched(task, within, ask, saver), is_resumed=left is not None)
            if saver is not None and is_midway(ran) and self._is_in_time(ran.result, ask):
                ran = dataclasses.replace(ran, is_saved=await saver.last())
        return ran

    def _is_in_time(self, result: Result, ask: Ask) -> bool:
        """The wait is over before the call is: else what it did until now is worth more."""
        until = None if ask.keeping is None else ask.keeping.until
        return until is None or self._clock.wall_s() + self._standing.wait_s(result) < until

    async def _watched(
        self, task: AgentTask, within: tuple[Place, Confined], ask: Ask, saver: Saver | None
    ) -> tuple[Result, bool]:
        """The run, ended where it takes more room or memory than it may."""
        place, confined = within
        async with watched((place.watch, confined.watch), partial(self._sidecar.cancel, task.run)) as trouble:
            result, used_tools = await self._run(task, ask, saver)
        # Asked once more: it may have ended by itself, well or badly, before the watch looked.
        error = trouble() or confined.memory_spent()
        if error is None and result.fault is Fault.PROTOCOL:
            error = confined.processes_spent()  # the agent itself is one of those that got no thread
        if error is not None:
            fault = FAULT_OF.get(type(error), Fault.ROOM)
            said = f"{error.message}\n\n{result.text}" if result.ending is Ending.SUCCEEDED else error.message
            result = dataclasses.replace(result, ending=Ending.LIMIT, fault=fault, text=said)
        return result, used_tools

    async def _run(self, task: AgentTask, ask: Ask, saver: Saver | None) -> tuple[Result, bool]:
        used_tools = False
        asks = None if ask.approver is None else UnderTerms(ask.approver, self._terms)
        async with contextlib.aclosing(guarded(self._sidecar, task, self._clock, asks)) as events:
            async for event in events:
                if isinstance(event, Result):
                    return event, used_tools
                if saver is not None:
                    saver.heard(event)
                used_tools = used_tools or isinstance(event, ToolBegan)
                line = line_of(event)
                if line is not None:
                    ask.on_progress(0.0, None, line)
        raise AssertionError("guarded() ends with a Result")
