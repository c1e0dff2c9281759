"""What the autoscaler refuses of itself. Clouds' answers are in `cloud/errors.py`."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import NotFound, Permanent, near


class ClaimMoveRefused(Permanent):
    """`values.MOVES` does not allow it."""

    code = "claim_move_refused"
    http_status = 409

    def __init__(self, claim: str, state: str, wanted: str) -> None:
        super().__init__(
            f"the claim {claim} is {state} and cannot become {wanted}; it was moved meanwhile, and is looked at again"
        )
        self.claim, self.state, self.wanted = claim, state, wanted


class NotSized(NotFound):
    """A pool of which the pools file gives no ladder, whether or not nodes are in it."""

    def __init__(self, pool: str, sized: Sequence[str]) -> None:
        Permanent.__init__(
            self, f"pool {pool!r} is not sized: it has no ladder{near(pool, sized)}; sized are: {', '.join(sized)}"
        )
