"""What holds for every run, whatever runs: wall time, silence, questions, and exactly one Result, last.

Refuses to know a runtime. A limit is no exception to the caller: it is how the run ended, with its bill.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator

import structlog

from tasks.clock import Clock
from worker.sidecars.asking import Asking, Asks, Stopwatch
from worker.sidecars.sidecar import ASK, AgentTask, Ending, Event, Fault, Result, Sidecar

GRACE_S = 6.0
"""For what a run that is told to end has to say."""
Heard = asyncio.Queue[Event | None]
_log = structlog.get_logger()


async def guarded(sidecar: Sidecar, task: AgentTask, clock: Clock, asks: Asks | None = None) -> AsyncGenerator[Event]:
    """The events of a run, within its limits. While it waits for a person none of its time counts.

    A runtime that ends without a Result, or breaks, ends as FAILED with the fault PROTOCOL; what it says
    after its Result is dropped. `asks` is used where the task's permission mode is `ask`.
    """
    began_s, heard, waits = clock.mono_s(), Heard(), Stopwatch()
    asking = Asking(asks, heard.put_nowait)
    if task.permission_mode == ASK:
        task = dataclasses.replace(task, ask=asking.ask)
    running = asyncio.create_task(_listen(sidecar, task, heard))
    try:
        while True:
            wait_s, why = _patience(task, clock.mono_s() - began_s - waits.waited_s())
            wait_s = None if waits.is_waiting else wait_s
            try:
                async with asyncio.timeout(wait_s):
                    event = await heard.get()
            except TimeoutError:
                yield _told(await _ended(sidecar, task, heard, why), asking)
                return
            if event is None:
                yield Result(Ending.FAILED, _no_result(task), Fault.PROTOCOL)
                return
            waits.hear(event, clock.mono_s())
            if isinstance(event, Result):
                yield _told(event, asking)
                return
            yield event
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _told(result: Result, asking: Asking) -> Result:
    """With all that it was denied, also where the runtime does not list it."""
    return dataclasses.replace(result, denials=tuple(dict.fromkeys((*result.denials, *asking.denied))))


async def _listen(sidecar: Sidecar, task: AgentTask, heard: Heard) -> None:
    """A defect of the sidecar is an end of the run, not of the node."""
    running = sidecar.run(task)
    try:
        async for event in running:
            heard.put_nowait(event)
    except Exception as error:  # noqa: BLE001 - the top of a run, in a task of its own
        _log.exception("sidecar_broke", run=task.run)
        why = f"the agent runtime broke: {error}; the node's log has more"
        heard.put_nowait(Result(Ending.FAILED, why, Fault.PROTOCOL))
    finally:
        heard.put_nowait(None)
        await running.aclose()


async def _ended(sidecar: Sidecar, task: AgentTask, heard: Heard, why: Fault) -> Result:
    """The limit, with what the run had used until then where it still says so."""
    limit = _limit(task, why)
    try:
        async with asyncio.timeout(GRACE_S):
            await sidecar.cancel(task.run)
            while (event := await heard.get()) is not None:
                if isinstance(event, Result):
                    return dataclasses.replace(event, ending=limit.ending, fault=limit.fault, text=limit.text)
    except TimeoutError:
        _log.warning("run_did_not_end", run=task.run, within_s=GRACE_S)
    return limit


def _patience(task: AgentTask, spent_s: float) -> tuple[float | None, Fault]:
    """Seconds that it may say nothing, and which limit that is."""
    left_s = max(0.0, task.limits.wall_s - spent_s) if task.limits.wall_s else None
    silence_s = task.limits.silence_s or None
    if silence_s is None or (left_s is not None and left_s <= silence_s):
        return left_s, Fault.WALL
    return silence_s, Fault.SILENCE


def _limit(task: AgentTask, why: Fault) -> Result:
    if why is Fault.WALL:
        said = f"the run was ended after {task.limits.wall_s:g} s, its limit; give it a smaller task or a larger wall_s"
    else:
        said = f"the run was ended: nothing was heard of it for {task.limits.silence_s:g} s (silence_s)"
    return Result(Ending.LIMIT, said, why)


def _no_result(task: AgentTask) -> str:
    return f"the agent runtime ended without a result (run {task.run}); the node's log has more"
