"""Saves an agent's session while it runs, and says with what a run goes on that was cut off on another node.

Owns the quiet point (every tool that was begun has ended, and the transcript has what they answered), the pace,
and what fits. Never holds a run up: what changed while it was read is thrown away, and the next is right.
Refuses to know a runtime, and where the bytes go. See docs/adr/0014-session-capsules.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

import orjson
import structlog

from tasks.clock import Clock
from tasks.errors import FleetError, OrchestratorDown
from tasks.outcome import ErrorInfo, Failure
from worker.sidecars.capsule import PATCH_MAX_BYTES, Capsule, CapsuleBroken, Environment, Used, opened, sealed
from worker.sidecars.places import Change, Place
from worker.sidecars.sidecar import (
    AgentTask,
    Began,
    Ending,
    Event,
    Fault,
    Result,
    Session,
    SessionMode,
    ToolBegan,
    ToolEnded,
    Usage,
)
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Ask, Keeping
from worker.workspaces.errors import PatchTooLarge

SETTLES_S = 5.0
"""For a runtime to write down what its tools answered."""
LOOK_EVERY_S = 0.05
AGAIN_S = 5.0
"""After the store did not answer, at the least."""
UNFIT_S = 60.0
"""Until a run that this node cannot go on with is placed again."""
GOES_ON = (
    "You were interrupted, and some time has passed; you may be on another machine now. Your files are as they were "
    "when the last of your tools ended, except for what git ignores; they may not be committed any more. Processes "
    "that you had started are gone. Go on with the task where you stopped."
)
_log = structlog.get_logger()


class Portable(Protocol):
    """A runtime whose session is a file while it runs, and can go on where that file is put."""

    def runtime(self) -> str:
        """Kind and version: another version's transcripts are not believed to be understood."""
        ...

    def model_of(self, asked: str | None) -> str | None:
        """The one that a caller asked for, or its own."""
        ...

    def session_now(self, session: str, task: AgentTask) -> str | None:
        """The transcript; None where there is none yet."""
        ...

    def has_answers(self, transcript: str, tools: Iterable[str]) -> bool:
        """What these uses of tools answered is in it."""
        ...

    def begins_a_tool(self, transcript: str) -> bool:
        """A tool is used in this part of it."""
        ...


class Capsules:
    """Of one sidecar."""

    def __init__(self, portable: Portable, tool: str, clock: Clock, every_s: float) -> None:
        """`tool` by its whole name; `every_s` between two of one run."""
        self._portable, self._tool, self._clock, self._every_s = portable, tool, clock, every_s

    async def left(self, arguments: dict[str, Any], model: str | None, ask: Ask) -> Capsule | None:
        """What an earlier attempt of this call saved; None where this is to begin at the beginning.

        Raises:
            CapsuleBroken: it is none of this call's.
            UpstreamError: it cannot be had now, or not by this node.
        """
        if ask.keeping is None or ask.keeping.left is None:
            return None
        capsule = await asyncio.to_thread(opened, await ask.keeping.fetch(), ask.invocation)
        was, here = capsule.environment, self._environment(arguments, model, ask.project)
        if was.instead_of == here.tool:
            why = f"this run fell back to {was.tool}, and {here.tool} of this node does not"
            raise unfit(why)
        for name in ("tool", "project", "arguments"):
            if getattr(was, name) != getattr(here, name):
                raise CapsuleBroken(f"its {name} is not that of this call")
        if was.runtime != here.runtime:
            raise unfit(f"this run began with {was.runtime}; this node has {here.runtime}")
        if was.model != here.model:
            ask.on_progress(0.0, None, f"goes on with the model {here.model}; it began with {was.model}")
        return _as_booked(capsule, ask.keeping.spent_usd)

    @contextlib.asynccontextmanager
    async def saving(
        self,
        task: AgentTask,
        place: Place,
        arguments: dict[str, Any],
        ask: Ask,
        left: Capsule | None,
        *,
        instead_of: str | None = None,
    ) -> AsyncIterator[Saver | None]:
        """Who is to hear the run's events; None where the fleet takes no capsules, or the run cannot go on elsewhere.

        `instead_of` is the tool that was called, where that is another sidecar's. Without a project its files would
        not come along; and what the node's own servers did for it since the last capsule would be done again.
        """
        if ask.keeping is None or not ask.keeping.limit_bytes or task.project is None or task.servers:
            yield None
            return
        environment = self._environment(arguments, task.model, task.project)
        environment = environment.model_copy(update={"instead_of": instead_of})
        saver = Saver(self._portable, task, place, ask.keeping, environment, left, self._every_s, self._clock, ask)
        saver.start()
        try:
            yield saver
        finally:
            await saver.stop()

    def _environment(self, arguments: dict[str, Any], model: str | None, project: str | None) -> Environment:
        said = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
        return Environment(
            tool=self._tool,
            project=project,
            runtime=self._portable.runtime(),
            model=self._portable.model_of(model),
            arguments=hashlib.sha256(said).hexdigest(),
        )


def unfit(why: str) -> UpstreamError:
    """Another node may go on with it, or this one once it was mended.

    At no cost in tries: nothing keeps the call from coming here again, and with the last try its session is lost.
    """
    said = f"{why}; it waits for a node that can go on with it. To begin anew, cancel it and replay it"
    return UpstreamError(ErrorInfo("capsule_unfit", said, Failure.WAIT_UNTIL, UNFIT_S))


def _as_booked(capsule: Capsule, booked_usd: float | None) -> Capsule:
    """What was spent after it was sealed counts too, as far as the node could still tell."""
    known_usd = capsule.used.cost_usd
    if known_usd is None or booked_usd is None or booked_usd <= known_usd:
        return capsule
    return dataclasses.replace(capsule, used=capsule.used.model_copy(update={"cost_usd": booked_usd}))


def going_on(task: AgentTask, left: Capsule) -> AgentTask:
    """The same run, from where it was."""
    turns = task.limits.turns
    return dataclasses.replace(
        task,
        prompt=GOES_ON,
        session=Session(SessionMode.RESUME, left.session),
        brought=left.transcript,
        spent_usd=left.used.cost_usd or 0.0,
        limits=dataclasses.replace(task.limits, turns=turns and max(1, turns - left.used.turns)),
    )


def used_up(task: AgentTask, left: Capsule) -> Result | None:
    """Where its turns were over when it was cut off. Its money is counted on where it is spent."""
    if not task.limits.turns or left.used.turns < task.limits.turns:
        return None
    return Result(Ending.LIMIT, "the run used all of its turns", Fault.TURNS, left.session)


def in_all(result: Result, left: Capsule) -> Result:
    """With what was used before."""
    used, nothing_new = left.used, result.usage == Usage() and result.cost_usd is None
    is_priced = used.cost_usd is not None and (nothing_new or result.cost_usd is not None)
    return dataclasses.replace(
        result,
        turns=used.turns + result.turns,
        usage=used.usage + result.usage,
        cost_usd=(used.cost_usd or 0.0) + (result.cost_usd or 0.0) if is_priced else None,
    )


class Saver:
    """Hears one run, and saves it when it is still."""

    def __init__(  # noqa: PLR0917 - one run, and all that is known of it
        self,
        portable: Portable,
        task: AgentTask,
        place: Place,
        keeping: Keeping,
        environment: Environment,
        left: Capsule | None,
        every_s: float,
        clock: Clock,
        ask: Ask,
    ) -> None:
        self._portable, self._task, self._place, self._keeping = portable, task, place, keeping
        self._environment, self._left, self._every_s, self._clock, self._ask = environment, left, every_s, clock, ask
        self._session: str | None = None
        self._open: set[str] = set()
        self._ended: set[str] = set()
        """Uses of tools: under way, and of the last turn."""
        self._turns, self._number = 0, left.number if left is not None else 0
        self._motions = 0
        """Grows when a tool begins: from then on the files may change."""
        self._quiet = asyncio.Event()
        self._kept: int | None = None
        """How much it had moved when it was saved last."""
        self._due_s = clock.mono_s()
        self._is_told = False
        self._saving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Save in the background, until `stop` or `last`."""
        self._saving = asyncio.create_task(self.run())

    async def stop(self) -> None:
        """What is being read now is not saved; nothing of it goes on afterwards."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)

    async def last(self) -> bool:
        """The runtime has ended: save what is there now. Whether that is so; never where a tool had not ended."""
        await self.stop()
        if self._open:
            return False
        try:
            await self._take()
        except PatchTooLarge as error:
            self._tell_once(error.message)
        except (FleetError, OSError) as error:
            _log.warning("capsule_not_saved", run=self._task.run, error=str(error), effect="the run does not wait")
        except Exception:  # noqa: BLE001 - the run is over: what it did is not to be lost for want of a capsule
            _log.exception("capsule_broke", run=self._task.run, effect="the run does not wait")
            return False
        return self._kept == self._motions

    def heard(self, event: Event) -> None:
        """One event of the run."""
        if isinstance(event, Began):
            self._session = event.session_id
        elif isinstance(event, ToolBegan):
            self._motions += 1
            if not self._open:
                self._ended.clear()
            self._open.add(event.id)
        elif isinstance(event, ToolEnded):
            self._open.discard(event.id)
            self._ended.add(event.id)
            if not self._open:
                self._turns += 1
                self._quiet.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._quiet.wait()
            await asyncio.sleep(max(0.0, self._due_s - self._clock.mono_s()))
            self._quiet.clear()
            if self._open:
                continue  # its end will be heard
            try:
                await self._take()
            except PatchTooLarge as error:
                self._tell_once(error.message)
            except OrchestratorDown as error:
                _log.warning("capsule_waits", run=self._task.run, error=error.message)
                self._due_s = self._clock.mono_s() + max(self._every_s, AGAIN_S)
                self._quiet.set()
            except (FleetError, OSError) as error:
                _log.warning("capsule_not_saved", run=self._task.run, error=str(error), effect="a later one says more")
            except Exception:  # noqa: BLE001 - the top of a loop; a run is not to end for it
                _log.exception("capsule_broke", run=self._task.run)

    async def _take(self) -> None:
        session, motions = self._session, self._motions
        used = self._used()
        transcript = await self._settled(session, motions)
        if session is None or transcript is None:
            return
        change = await self._change()
        if not await self._is_still(session, motions, transcript):
            return
        self._number += 1
        self._due_s = self._clock.mono_s() + self._every_s
        data = await asyncio.to_thread(sealed, self._capsule(session, transcript, change, used))
        if len(data) > self._keeping.limit_bytes:
            self._tell_once(f"it has {len(data)} bytes of at most {self._keeping.limit_bytes}")
            return
        await self._keeping.save(self._number, data)
        self._kept = motions
        _log.info("capsule_saved", run=self._task.run, number=self._number, bytes=len(data), turns=used.turns)

    async def _change(self) -> Change:
        """Read to its end, also where nobody wants it any more: half of it would be in the way of the next one."""
        reading = asyncio.ensure_future(self._place.change(min(PATCH_MAX_BYTES, self._keeping.limit_bytes)))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            await asyncio.gather(reading, return_exceptions=True)
            raise

    async def _settled(self, session: str | None, motions: int) -> str | None:
        """The transcript, once it has what the turn's tools answered."""
        until_s = self._clock.mono_s() + SETTLES_S
        while session is not None and motions == self._motions and self._clock.mono_s() < until_s:
            text = await asyncio.to_thread(self._portable.session_now, session, self._task)
            text = text and text[: text.rfind("\n") + 1]
            if text and self._portable.has_answers(text, self._ended):
                return text
            await asyncio.sleep(LOOK_EVERY_S)
        return None

    async def _is_still(self, session: str, motions: int, before: str) -> bool:
        """Nothing was begun meanwhile, also nothing that we have not heard of yet."""
        after = await asyncio.to_thread(self._portable.session_now, session, self._task) or ""
        is_same = after.startswith(before) and not self._portable.begins_a_tool(after[len(before) :])
        return is_same and motions == self._motions

    def _used(self) -> Used:
        assert self._task.bill is not None
        usage, cost_usd = self._task.bill.usage, self._task.bill.cost_usd
        used = Used(turns=self._turns, usage=usage, cost_usd=cost_usd)
        if self._left is None:
            return used
        before, is_priced = self._left.used, self._left.used.cost_usd is not None and cost_usd is not None
        return Used(
            turns=before.turns + used.turns,
            usage=before.usage + usage,
            cost_usd=(before.cost_usd or 0.0) + (cost_usd or 0.0) if is_priced else None,
        )

    def _capsule(self, session: str, transcript: str, change: Change, used: Used) -> Capsule:
        return Capsule(
            invocation=self._ask.invocation,
            fence=self._keeping.fence,
            number=self._number,
            session=session,
            environment=self._environment,
            used=used,
            was_on=(*(self._left.was_on if self._left is not None else ()), self._keeping.node),
            transcript=transcript,
            base=change.base,
            branch=change.branch,
            patch=change.patch,
        )

    def _tell_once(self, why: str) -> None:
        if not self._is_told:
            self._is_told = True
            _log.warning("capsule_too_large", run=self._task.run, why=why)
            self._ask.on_progress(0.0, None, f"cannot go on elsewhere if this node is lost: {why}")
