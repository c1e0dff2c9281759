"""What the settler tells of an end, where the ledger wrote another one than was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.happenings import Ended, Happening
from orchestrator.ledger.values import Outstanding, Settled, Settlement
from orchestrator.settling.settler import Settler
from tasks.invocation import Lane, State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.retry import RetryPolicy
from tasks.testing.clock import FakeClock

WRITTEN = Outcome("cancelled", error=ErrorInfo("cancelled", "it was not tried again", Failure.PERMANENT))
ATTEMPT = Outstanding(
    "i", 1, "n1", "x", 1, "default", Lane.TOOLS, "s.t", None, State.RELEASED, 1.0, None, None, cancel_requested=True
)


class CancelledMeanwhile:
    """A ledger in which the call was to be cancelled, so it does not wait again; and the other collaborators."""

    async def settle(self, wanted: Sequence[Settlement]) -> list[Settled]:
        """Cancelled instead."""
        return [Settled(one.invocation_id, 1, took=True, state=State.CANCELLED, outcome=WRITTEN) for one in wanted]

    def remove(self, *_ref: object) -> Outstanding:
        """It was open."""
        return ATTEMPT

    def credit_returned(self, attempt: Outstanding) -> None:
        """Its slot is free."""


async def test_whoever_waits_is_told_what_the_ledger_wrote() -> None:
    """Asked for another try, it ended the call as cancelled and said why: nobody hears of an end without it."""
    told: list[Happening] = []
    around: Any = CancelledMeanwhile()
    settler = Settler(
        books=around, attempts=around, backlog=around, tool=lambda _: None, declared=lambda _: None, doubts=around,
        successors=around, default_policy=RetryPolicy(), clock=FakeClock(), draw=lambda: 0.5, tell=told.append,
    )  # fmt: skip
    await settler.disowned([ATTEMPT], why="disowned")
    (ended,) = [each for each in told if isinstance(each, Ended)]
    assert (ended.state, ended.outcome) == (State.CANCELLED, WRITTEN)
