"""What is remembered of a call from its acceptance to its end, for exemplars and objectives.

In memory, and of this process only: what an earlier one accepted has no entry here, and then no exemplar and no
sample. An entry is a small tuple; it goes with the end of its call.
"""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.happenings import Accepted, Ended, Happening
from tasks.clock import Clock
from tasks.tracing import is_trace_id

CALLS_MAX = 200_000
"""Past it new calls are not measured; more than the largest backlog that is accepted by default."""


class Live(NamedTuple):
    """One call that was accepted here and has not ended."""

    trace_id: str | None
    accepted_s: float
    """Monotonic clock."""
    is_delayed: bool
    """Its caller asked that it begin later: how long it took says nothing of us."""


class LiveCalls:
    """Told first of what begins, and last of what ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[str, Live] = {}

    def __len__(self) -> int:
        return len(self._live)

    def begin(self, happening: Happening) -> None:
        """Hear of it before the others do."""
        if isinstance(happening, Accepted) and len(self._live) < CALLS_MAX:
            call = happening.invocation.call
            is_delayed = call.not_before is not None
            trace_id = call.trace_id if call.trace_id is not None and is_trace_id(call.trace_id) else None
            self._live[happening.invocation.id] = Live(trace_id, self._clock.mono_s(), is_delayed)

    def end(self, happening: Happening) -> None:
        """Hear of it after the others did."""
        if isinstance(happening, Ended):
            self._live.pop(happening.invocation_id, None)

    def get(self, invocation_id: str) -> Live | None:
        """What is known of it."""
        return self._live.get(invocation_id)

    def exemplar(self, invocation_id: str) -> dict[str, str] | None:
        """Labels of an exemplar. Source: OpenMetrics 1.0, exemplars; `trace_id` is what Grafana looks for."""
        live = self._live.get(invocation_id)
        return None if live is None or live.trace_id is None else {"trace_id": live.trace_id}
