"""Whether a server is still heard of while calls run on it. Pure: time is passed in.

Anything the server says is life: an answer, progress, a message, the answer to a heartbeat. Silence counts
for a call from when it began. A server that does one thing at a time cannot answer while it works, and
must not be killed for it: so without a declared limit silence counts only for tools during which the
server has been seen to answer heartbeats, and only while no other kind of tool runs beside them. A declared
limit always counts. Refuses to send and to end anything: `remote.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STALL_FACTOR = 3.0
"""A look that comes so many times too late means that nothing here ran meanwhile: nobody listened either."""


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """One call under way."""

    tool: str
    began_s: float


class Pulse:
    """Of one session.

    Attributes:
        heard_s: monotonic time of the last word of the server.
        flights: the calls under way.
    """

    def __init__(self, now_s: float, *, every_s: float, default_limit_s: float, proven: set[str]) -> None:
        self.heard_s = now_s
        self.flights: set[Flight] = set()
        self.declared: Mapping[str, float] = {}
        """Tool → declared limit in seconds; 0 means that its silence never counts."""
        self._every_s, self._default_limit_s, self._proven = every_s, default_limit_s, proven
        self._looked_s = now_s
        self._answering: frozenset[Flight] = frozenset()

    @property
    def tick_s(self) -> float:
        """Seconds between two looks: three in the shortest limit."""
        return min([self._every_s, *(limit_s / 3 for limit_s in self.declared.values() if limit_s > 0)])

    def began(self, tool: str, now_s: float) -> Flight:
        """A call is being sent."""
        flight = Flight(tool, now_s)
        self.flights.add(flight)
        return flight

    def heard(self, now_s: float) -> None:
        """The server said something."""
        self.heard_s = now_s

    def answered(self, asked_during: frozenset[Flight]) -> None:
        """A heartbeat that was sent while these ran has its answer.

        It counts for those that still run at the next look: a server that was blocked answers the heartbeat and the
        call that blocked it in one breath.
        """
        self._answering = asked_during & self.flights

    def look(self, now_s: float) -> Flight | None:
        """A call during which the server has been silent for too long, if there is one. Called every `tick_s`."""
        late_s = now_s - self._looked_s - self.tick_s
        if late_s > STALL_FACTOR * self.tick_s:
            self.heard_s += late_s
        self._looked_s = now_s
        self._proven.update(flight.tool for flight in self._answering & self.flights)
        self._answering = frozenset()
        return next((flight for flight in self.flights if self._is_over(flight, now_s)), None)

    def quiet_s(self, now_s: float) -> float:
        """Seconds since it was last heard of."""
        return max(0.0, now_s - self.heard_s)

    def limit_s(self, tool: str) -> float:
        """Seconds of silence that a call of this tool bears now; 0: any."""
        declared_s = self.declared.get(tool)
        if declared_s is not None:
            return declared_s
        others = {flight.tool for flight in self.flights} | {tool}
        return self._default_limit_s if others <= self._proven else 0.0

    def _is_over(self, flight: Flight, now_s: float) -> bool:
        limit_s = self.limit_s(flight.tool)
        return 0 < limit_s <= now_s - max(self.heard_s, flight.began_s)
