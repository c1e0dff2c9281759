"""What holds for every run, whatever runs: wall time, silence, and exactly one Result, last.

Refuses to know a runtime. A limit is no exception to the caller: it is how the run ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from tasks.clock import Clock
from worker.sidecars.sidecar import AgentTask, Ending, Event, Fault, Result, Sidecar

_log = structlog.get_logger()


async def guarded(sidecar: Sidecar, task: AgentTask, clock: Clock) -> AsyncGenerator[Event]:
    """The events of a run, within its limits.

    A runtime that ends without a Result, or breaks, ends as FAILED with the fault PROTOCOL; what it says
    after its Result is dropped.
    """
    began_s = clock.mono_s()
    async with aclosing(_events(sidecar, task)) as events:
        while True:
            wait_s, why = _patience(task, clock.mono_s() - began_s)
            try:
                async with asyncio.timeout(wait_s):
                    event = await anext(events, None)
            except TimeoutError:
                yield _limit(task, why)
                return
            if event is None:
                yield Result(Ending.FAILED, _no_result(task), Fault.PROTOCOL)
                return
            yield event
            if isinstance(event, Result):
                return


async def _events(sidecar: Sidecar, task: AgentTask) -> AsyncGenerator[Event]:
    """As they come; a defect of the sidecar is an end of the run, not of the node."""
    running = sidecar.run(task)
    try:
        async for event in running:
            yield event
    except Exception as error:  # noqa: BLE001 - the top of a run
        _log.exception("sidecar_broke", run=task.run)
        yield Result(Ending.FAILED, f"the agent runtime broke: {error}; the node's log has more", Fault.PROTOCOL)
    finally:
        await running.aclose()


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
    return f"the agent runtime ended without a result (run {task.run}); what it did until then is in the workspace"
