"""How a run asks for permission: the same for every runtime, so that each only awaits an answer.

Owns the question's way through a run: its event, its answer's event, and which tools were denied. Refuses to
know who is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.approval import Permission, Question
from worker.sidecars.sidecar import Answered, Asked, Event
from worker.upstreams.upstream import Approver

NOBODY = "nobody can be asked: the run was not called through the fleet"


class Asks(Protocol):
    """Who asks on behalf of a run."""

    def question(self, tool: str, arguments: Mapping[str, Any]) -> Question:
        """Raises ValueError or TypeError: the arguments are no JSON."""
        ...

    async def answer(self, question: Question) -> Permission:
        """What a person says to it, however long that takes."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What this node's operator says of questions."""

    wait_s: float = 3600.0
    """Then it is denied."""
    frees_slot: bool = False
    """The run's slot is given to others while it waits; its memory is not."""


@dataclass(frozen=True, slots=True)
class UnderTerms:
    """`Asks` of one call."""

    approver: Approver
    terms: Terms

    def question(self, tool: str, arguments: Mapping[str, Any]) -> Question:
        """See `Asks.question`."""
        return self.approver.question(tool, arguments, wait_s=self.terms.wait_s, frees_slot=self.terms.frees_slot)

    async def answer(self, question: Question) -> Permission:
        """See `Asks.answer`."""
        return await self.approver.answer(question)


class Asking:
    """The questions of one run. `tell` puts an event among the run's own."""

    def __init__(self, asks: Asks | None, tell: Callable[[Event], None]) -> None:
        self._asks, self._tell = asks, tell
        self.denied: dict[str, None] = {}
        """Tools, in the order in which they were denied first."""

    async def ask(self, tool: str, arguments: Mapping[str, Any]) -> Permission:
        """What the runtime awaits. Never raises: what cannot be asked is denied."""
        permission = await self._answer(tool, arguments)
        if not permission.is_allowed:
            self.denied[tool] = None
        return permission

    async def _answer(self, tool: str, arguments: Mapping[str, Any]) -> Permission:
        if self._asks is None:
            return Permission(is_allowed=False, reason=NOBODY)
        try:
            question = self._asks.question(tool, arguments)
        except (ValueError, TypeError) as error:
            return Permission(is_allowed=False, reason=f"not asked: its arguments are no JSON ({error})")
        self._tell(Asked(question))
        permission = Permission(is_allowed=False, reason="the run ended")
        try:
            permission = await self._asks.answer(question)
        finally:
            self._tell(Answered(question.id, question.tool, permission))
        return permission


class Stopwatch:
    """How long a run waited for persons, in all: that is no time of its own."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._since_s = self._waited_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """A question is open."""
        return bool(self._open)

    def hear(self, event: Event, now_s: float) -> None:
        """An event of the run."""
        if isinstance(event, Asked):
            self._since_s = self._since_s if self._open else now_s
            self._open.add(event.question.id)
        elif isinstance(event, Answered) and event.id in self._open:
            self._open.remove(event.id)
            if not self._open:
                self._waited_s += now_s - self._since_s

    def waited_s(self) -> float:
        """Of waits that are over."""
        return self._waited_s
