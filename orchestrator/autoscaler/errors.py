"""What the autoscaler refuses of itself. Clouds' answers are in `cloud/errors.py`."""

from __future__ import annotations

from tasks.errors import Permanent


class ClaimMoveRefused(Permanent):
    """`values.MOVES` does not allow it."""

    code = "claim_move_refused"
    http_status = 409

    def __init__(self, claim: str, state: str, wanted: str) -> None:
        super().__init__(
            f"the claim {claim} is {state} and cannot become {wanted}; it was moved meanwhile, and is looked at again"
        )
        self.claim, self.state, self.wanted = claim, state, wanted
