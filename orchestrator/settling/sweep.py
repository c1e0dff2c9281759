"""Attempts nobody speaks for any more: unreachable past their grace, late-bound and never claimed.

Run by the leader's loop. Owns only when it first saw each; a restart gives a new grace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.ledger.values import Outstanding
from tasks.clock import Clock
from tasks.invocation import Lane, State

Ref = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Graces:
    """How long silence is borne, seconds.

    Attributes:
        tools_s: an unreachable `tools` call; its caller waits.
        agents_s: an unreachable agent run; an hour's work survives a lost minute.
        unclaimed_s: a late-bound delivery that no node claimed was lost in transit.
    """

    tools_s: float = 10.0
    agents_s: float = 180.0
    unclaimed_s: float = 10.0


class Fates(Protocol):
    """What becomes of attempts."""

    async def lost(self, attempts: Sequence[Outstanding], *, code: str, message: str) -> None: ...
    async def disowned(self, attempts: Sequence[Outstanding], *, why: str) -> None: ...


class Sweep:
    """Looks over the open attempts."""

    def __init__(
        self,
        *,
        attempts: Callable[[], list[Outstanding]],
        is_member: Callable[[str], bool],
        fates: Fates,
        graces: Graces,
        clock: Clock,
        no_nodes: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """`no_nodes`: what attempts are at that are at no node, and the error's code and message that say so."""
        self._no_nodes = no_nodes or {}
        self._attempts, self._is_member, self._fates = attempts, is_member, fates
        self._graces, self._clock = graces, clock
        self._first_seen: dict[Ref, float] = {}

    async def sweep(self) -> None:
        """End what is past its grace. Called about once a second."""
        now_s = self._clock.mono_s()
        silent = {(a.invocation_id, a.fence): a for a in self._attempts() if self._is_silent(a)}
        self._first_seen = {ref: self._first_seen.get(ref, now_s) for ref in silent}
        over = [a for ref, a in silent.items() if now_s - self._first_seen[ref] >= self._grace_s(a)]
        unclaimed = [a for a in over if a.node is None]
        if unclaimed:
            await self._fates.disowned(unclaimed, why="unclaimed")
        for attempt in over:
            if attempt.node is not None:
                lost = "node_lost", f"node {attempt.node} did not come back; the effect of the call is unknown"
                code, message = self._no_nodes.get(attempt.node, lost)
                await self._fates.lost([attempt], code=code, message=message)

    def _grace_s(self, attempt: Outstanding) -> float:
        if attempt.node is None:
            return self._graces.unclaimed_s
        return self._graces.tools_s if attempt.lane is Lane.TOOLS else self._graces.agents_s

    def _is_silent(self, attempt: Outstanding) -> bool:
        """Unreachable, not claimed yet, or of a node that nobody knows any more."""
        return attempt.state is State.UNREACHABLE or attempt.node is None or not self._is_member(attempt.node)
