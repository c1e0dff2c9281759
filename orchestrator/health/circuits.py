"""A circuit breaker per node, and per MCP server on it, fed by how attempts ended.

`route` passes by what is open (`dispatch/view.py`). Keeps a breaker only for what failed; a success or
a new process of the node forgets it. Decides nothing about the call itself: retries do.

A node has a second one, for what it never took: it renews, and its inventories disown what was sent to
it. That is what a node looks like whose Celery consumer is deaf. It is also what every node looks like
once after Redis was emptied: so of attempts that were under way together one counts, and none while
nothing can be published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from orchestrator.happenings import AttemptEnded, AttemptRunning, Happening
from orchestrator.health.breaker import Breaker
from tasks.clock import Clock
from tasks.health import BAD_IN_A_ROW
from tasks.invocation import State
from tasks.outcome import Failure
from tasks.wire_trouble import CircuitView

log = structlog.get_logger("mcpfleet.health")
WHOLE_NODE = ""
SERVER_FAULTS = frozenset({"connection_lost", "server_error", "silent"})
"""Not `tool_timeout`: callers choose timeouts, and one in a hurry must not close a server for all. Not
`server_unavailable`: nothing was started, retries come again, and a restart of a second must not cost a minute."""
NODE_FAULTS = frozenset({"node_error"})
"""Not `blob_unavailable`: the store is the orchestrator's, and would close every node at once."""
ANSWERS = frozenset({Failure.TOOL_ERROR, Failure.PERMANENT})
"""The server spoke: whatever it said, it is there."""
DISOWNED = "disowned"
"""How an attempt ends that was sent to a node and never arrived there."""
EAR_RETRY_S = 15.0
"""A probe that is not taken costs its call some seconds and no try: it may go sooner than others."""
TAKEN = frozenset({"succeeded", "failed", "cancelled", "expired", "handed_back"})
"""How attempts end that did arrive."""


class Place(NamedTuple):
    """What a circuit protects: a server on one process of a node, or the process itself."""

    node: str
    incarnation: str
    server: str
    is_ear: bool = False
    """For what the process should take from its queues, not for how it ends."""


class Circuits:
    """All breakers."""

    def __init__(
        self, *, incarnation_of: Callable[[str], str | None], broker_down: Callable[[], str | None], clock: Clock
    ) -> None:
        self._incarnation_of, self._broker_down, self._clock = incarnation_of, broker_down, clock
        self._breakers: dict[Place, Breaker] = {}
        self._counted_at: dict[Place, float] = {}
        """Wall clock of the last failure that counted."""
        self._errors: dict[Place, str] = {}
        """Of that failure."""
        self.on_change: Callable[[], None] = _nobody
        """Told when what may be used changed."""

    def hear(self, happening: Happening) -> None:
        """An attempt ended, or runs."""
        if isinstance(happening, AttemptRunning):
            self._taken(happening.node)
        if not isinstance(happening, AttemptEnded) or happening.node is None:
            return
        if happening.ending == DISOWNED:
            self._not_taken(happening.node, happening)
            return
        self._taken(happening.node, is_sure=happening.ending in TAKEN)
        server = happening.tool.partition(".")[0]
        blamed = _blamed(happening, server)
        if blamed is None and not self._breakers:
            return
        incarnation = self._incarnation_of(happening.node)
        if incarnation is None:
            return
        if blamed is not None:
            self._failed(Place(happening.node, incarnation, blamed), happening)
        for each in {server, WHOLE_NODE} - {blamed}:
            self._not_failed(Place(happening.node, incarnation, each), has_answered=_has_answered(happening))

    def placed(self, node: str, tool: str) -> None:
        """A call goes there; through a half-open circuit it is the probe, and nothing follows it."""
        if not self._breakers:
            return
        incarnation = self._incarnation_of(node) or ""
        whole = Place(node, incarnation, WHOLE_NODE)
        for place in (Place(node, incarnation, tool.partition(".")[0]), whole, whole._replace(is_ear=True)):
            breaker = self._breakers.get(place)
            if breaker is not None and breaker.placed(self._clock.mono_s()):
                self.on_change()

    async def look(self) -> None:
        """Half-open what is due, forget what is gone. Called about once a second."""
        now_s = self._clock.mono_s()
        gone = [place for place in self._breakers if self._incarnation_of(place.node) != place.incarnation]
        for place in gone:
            self._forget(place)
        due = [place for place, breaker in self._breakers.items() if breaker.half_opened(now_s)]
        for place in due:
            log.info("circuit_half_open", node=place.node, server=place.server or "all", is_ear=place.is_ear)
        if due or gone:
            self.on_change()

    def open_at(self, node: str, incarnation: str) -> Mapping[str, str]:
        """Server → why nothing goes there now; `""` stands for all of the node's servers."""
        now_s = self._clock.mono_s()
        return {
            place.server: _why(breaker, now_s, is_ear=place.is_ear)
            for place, breaker in self._breakers.items()
            if place.node == node and place.incarnation == incarnation and breaker.is_open(now_s)
        }

    def listing(self) -> list[CircuitView]:
        """Every one that something failed behind, by node and server."""
        now_s = self._clock.mono_s()
        ago_s = self._clock.wall_s() - now_s
        return [self._view(place, breaker, now_s, ago_s) for place, breaker in sorted(self._breakers.items())]

    def _view(self, place: Place, breaker: Breaker, now_s: float, to_wall_s: float) -> CircuitView:
        opened_at = breaker.opened_at_s
        return CircuitView(
            node=place.node,
            server=place.server,
            watches="deliveries" if place.is_ear else "results",
            state=breaker.state(now_s),
            failures=breaker.failures,
            opens_at_failures=breaker.threshold,
            failed_at=self._counted_at.get(place),
            opened_at=None if opened_at is None else opened_at + to_wall_s,
            probe_at=None if opened_at is None else now_s + breaker.left_s(now_s) + to_wall_s,
            is_probing=breaker.is_probing,
            error=self._errors.get(place, ""),
            why=_standing(breaker, now_s, is_ear=place.is_ear),
        )

    def _not_taken(self, node: str, ended: AttemptEnded) -> None:
        """It was sent, and the node says that it never came."""
        incarnation = self._incarnation_of(node)
        if incarnation is None:
            return
        ear = Place(node, incarnation, WHOLE_NODE, is_ear=True)
        if self._broker_down() is None:
            self._failed(ear, ended)
        for each in (Place(node, incarnation, ended.tool.partition(".")[0]), Place(node, incarnation, WHOLE_NODE)):
            self._not_failed(each, has_answered=False)

    def _taken(self, node: str, *, is_sure: bool = True) -> None:
        """Something that was sent to this node arrived there; or its end does not say whether it did."""
        if self._breakers:
            ear = Place(node, self._incarnation_of(node) or "", WHOLE_NODE, is_ear=True)
            self._not_failed(ear, has_answered=is_sure)

    def _failed(self, place: Place, ended: AttemptEnded) -> None:
        breaker = self._breakers.setdefault(place, _breaker_of(place))
        if ended.released_at <= self._counted_at.get(place, -1.0) and not breaker.is_probing:
            return  # it was there already when the last one failed: one crash takes many calls, and counts once
        self._counted_at[place] = self._clock.wall_s()
        self._errors[place] = ended.error.message if ended.error else f"the delivery was {ended.ending}"
        if breaker.failed(self._clock.mono_s()):
            code = ended.error.code if ended.error else ended.ending
            log.warning("circuit_opened", node=place.node, server=place.server or "all", error=code)
            self.on_change()

    def _not_failed(self, place: Place, *, has_answered: bool) -> None:
        breaker = self._breakers.get(place)
        if breaker is None:
            return
        if has_answered:
            self._forget(place)
            if breaker.opened_at_s is not None:
                log.info("circuit_closed", node=place.node, server=place.server or "all")
                self.on_change()
        elif breaker.said_nothing():
            self.on_change()

    def _forget(self, place: Place) -> None:
        del self._breakers[place]
        self._counted_at.pop(place, None)
        self._errors.pop(place, None)


def _nobody() -> None:
    """Nobody listens yet."""


def _breaker_of(place: Place) -> Breaker:
    return Breaker(BAD_IN_A_ROW, EAR_RETRY_S) if place.is_ear else Breaker()


def _blamed(ended: AttemptEnded, server: str) -> str | None:
    """Which circuit this end speaks against; a server that asks us to wait is busy, not broken."""
    error = ended.error
    if error is None or ended.ending != "failed" or error.failure in ANSWERS or error.retry_after_s is not None:
        return None
    if error.code in NODE_FAULTS:
        return WHOLE_NODE
    return server if error.code in SERVER_FAULTS else None


def _has_answered(ended: AttemptEnded) -> bool:
    return ended.to is State.SUCCEEDED or (ended.error is not None and ended.error.failure in ANSWERS)


def _standing(breaker: Breaker, now_s: float, *, is_ear: bool) -> str:
    state = breaker.state(now_s)
    if state == "closed":
        return f"calls go there; {breaker.threshold} failures in a row open it"
    if state == "half-open" and not breaker.is_probing:
        return "the next call that goes there is the probe: if it ends well the circuit closes, else it opens again"
    return _why(breaker, now_s, is_ear=is_ear)


def _why(breaker: Breaker, now_s: float, *, is_ear: bool) -> str:
    count = max(breaker.failures, breaker.threshold)
    what = f"after it took none of {count} deliveries in a row" if is_ear else f"after {count} failures in a row"
    if breaker.is_probing:
        return f"its circuit is open {what}; a probe is on its way"
    return f"its circuit is open {what}; a probe may go in {breaker.left_s(now_s):.0f} s"
