"""Asks the orchestrator which late-bound deliveries are ours: one request under way, the rest gathers.

Refuses to put anything back: a claim whose answer is lost may have been granted, and the inventory
that leaves it out sets it right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from tasks.errors import FleetError, OrchestratorDown
from tasks.node import ClaimReply, ClaimRequest
from tasks.node import Ref as WireRef
from worker.admit import Ref

TRIES = 3
RETRY_S = 0.2
_log = structlog.get_logger()


class ClaimDoor(Protocol):
    """The orchestrator, for claims."""

    async def claim(self, request: ClaimRequest) -> ClaimReply:
        """Which of these are ours."""
        ...


class ClaimBatch:
    """The claims of one incarnation."""

    def __init__(self, door: ClaimDoor, incarnation: str) -> None:
        self._door = door
        self._incarnation = incarnation
        self._asked: dict[Ref, Callable[[bool], None]] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, ref: Ref, answer: Callable[[bool], None]) -> None:
        """Answer later; False also when the orchestrator does not answer."""
        self._asked[ref] = answer
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                granted = await self._granted(list(asked))
                for ref, answer in asked.items():
                    answer(ref in granted)
        finally:
            self._task = None

    async def _granted(self, refs: list[Ref]) -> set[Ref]:
        wire = tuple(WireRef(invocation=ref[0], fence=ref[1]) for ref in refs)
        for left in reversed(range(TRIES)):
            try:
                reply = await self._door.claim(ClaimRequest(incarnation=self._incarnation, claims=wire))
            except OrchestratorDown:
                if left:
                    await asyncio.sleep(RETRY_S)
            except FleetError as error:
                _log.warning("claim_refused", detail=str(error), claims=len(refs))
                break
            else:
                return {(ref.invocation, ref.fence) for ref in reply.granted}
        return set()
