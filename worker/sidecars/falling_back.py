"""A run that this sidecar's credential cannot pay for goes to another sidecar of the node, as the operator allows.

Owns when, and whose run it may be. Only a run that has done nothing yet goes: one that used a tool has its files and
its conversation here. Refuses to know how anything runs. See docs/adr/0016-falling-back.md.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tasks.errors import FleetError
from tasks.outcome import ErrorInfo, Failure
from worker.sidecars.agent_answers import of_workspace
from worker.sidecars.bill import Bill
from worker.sidecars.capsule import opened
from worker.sidecars.run_arguments import RunArguments
from worker.sidecars.standing import AUTH, REFUSED, SPENT, Standing
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Ask

STAYS_S = 60.0
"""For a run that may not fall back, on a node that is not passed by because others do."""


@dataclass(frozen=True, slots=True)
class Instead:
    """Whose run it is that another sidecar does."""

    of: str
    """The tool that was called."""
    why: str


@dataclass(slots=True)
class Left:
    """Of the time that a call may run."""

    s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `run`."""

    said: RunArguments
    arguments: dict[str, Any]
    ask: Ask
    bill: Bill
    """One for all who work on it: each tells the whole of what was spent."""
    instead: Instead | None = None
    left: Left = field(default_factory=lambda: Left(math.inf))
    """For all who work on it: it is one run to its caller, who may have said how long it may be."""


class StandIn(Protocol):
    """The other sidecar."""

    name: str
    tool: str
    """By its whole name."""
    wall_s: float
    """The longest that a run of its takes."""

    def is_able(self) -> bool:
        """Its runtime is there, and its credential is good."""
        ...

    async def stand_in(self, asked: Asked) -> str:
        """The run. Raises UpstreamError."""
        ...


@dataclass(frozen=True, slots=True)
class FallsBack:
    """The policy of one sidecar."""

    to: StandIn
    after_wait_s: float

    def is_due(self, standing: Standing) -> bool:
        """Runs go there now, where they may."""
        return self.to.is_able() and (standing.is_refused() or standing.out_s() > self.after_wait_s)

    async def either(self, here: Callable[[Asked], Awaitable[str]], asked: Asked, standing: Standing, tool: str) -> str:
        """The run's answer, from here or from there. Raises UpstreamError."""
        stays = _why_not(asked.said)
        if asked.ask.keeping is not None and asked.ask.keeping.left is not None:
            if await _began_with(asked.ask) == self.to.tool:
                return await self._on(asked, Instead(tool, "it had fallen back when it was interrupted"))
            stays = "is in the middle of its work"
        try:
            return await here(asked)
        except UpstreamError as error:
            if not self._is_one(error.info, standing) or not self.to.is_able():
                raise
            if stays is not None:
                raise self._stays(error.info, stays) from error
            try:
                return await self._there(asked, Instead(tool, error.info.message))
            except UpstreamError as other:
                raise _sooner(error, other) from other

    def _is_one(self, info: ErrorInfo, standing: Standing) -> bool:
        if info.code == SPENT:
            return max(info.retry_after_s or 0.0, standing.out_s()) > self.after_wait_s
        return info.code in {REFUSED, AUTH}

    async def _there(self, asked: Asked, instead: Instead) -> str:
        asked.ask.on_progress(0.0, None, f"falls back to {self.to.name}: {instead.why}")
        return await self.to.stand_in(replace(asked, instead=instead))

    async def _on(self, asked: Asked, instead: Instead) -> str:
        """From its saved session, which is that sidecar's alone.

        Nobody looks at its health when this node is chosen. While it cannot, the run keeps its tries and its session.
        """
        try:
            return await self._there(asked, instead)
        except UpstreamError as error:
            if error.info.failure is not Failure.NOT_STARTED:
                raise
            raise _waits(error.info, f"its session is of {self.to.name}, and goes on there") from error

    def _stays(self, info: ErrorInfo, because: str) -> UpstreamError:
        """This node is not passed by, since others fall back on it."""
        return _waits(info, f"the run does not fall back to {self.to.name}: it {because}")


def _waits(info: ErrorInfo, why: str) -> UpstreamError:
    """At no cost in tries."""
    wait_s = info.retry_after_s if info.failure is Failure.WAIT_UNTIL else STAYS_S
    return UpstreamError(ErrorInfo(info.code, f"{info.message}; {why}", Failure.WAIT_UNTIL, wait_s))


def _why_not(said: RunArguments) -> str | None:
    """A model is one of the first provider's, and a session the first runtime's."""
    if not said.fallback:
        return "was called with fallback=false"
    if said.session is not None:
        return "goes on with a session"
    return "names a model" if said.model is not None else None


def _sooner(first: UpstreamError, second: UpstreamError) -> UpstreamError:
    """Neither could. What the second says holds where its wait is over sooner, or where it is about more than that."""
    if second.info.failure is Failure.NOT_STARTED:
        return first
    are_spent = first.info.code == second.info.code == SPENT
    return first if are_spent and (first.info.retry_after_s or 0.0) <= (second.info.retry_after_s or 0.0) else second


async def _began_with(ask: Ask) -> str:
    """The tool that the run's saved session is of."""
    assert ask.keeping is not None
    try:
        capsule = await asyncio.to_thread(opened, await ask.keeping.fetch(), ask.invocation)
    except FleetError as error:
        raise of_workspace(error) from error
    return capsule.environment.tool
