"""In what word a claim is shown: its state, or what is truer of it at this moment. Pure.

Refuses to decide by it: a claim whose node leaves counts towards the target until its machine is given up,
because an upgrade brings such a node back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from orchestrator.autoscaler.act.ladder import was_refused
from orchestrator.autoscaler.values import ClaimState, NodeClaim
from tasks.node import NodeState

REFUSED = "refused"
"""The cloud said no: there is no machine, and none was paid for."""
LEAVING = "leaving"
"""READY, and its node drains though the autoscaler did not tell it to."""
LEFT = "left"
"""READY, and its node is not joined."""
OF_MACHINES = (
    ClaimState.BOOTING.value,
    ClaimState.PROVISIONING.value,
    ClaimState.READY.value,
    LEAVING,
    LEFT,
    ClaimState.DRAINING.value,
    ClaimState.TERMINATING.value,
)


def standing(claim: NodeClaim, node: NodeState | None) -> str:
    """One claim's word. `node`: how its node stands; None where it is not joined."""
    if was_refused(claim) and claim.state is ClaimState.TERMINATING:
        return REFUSED
    if claim.state is ClaimState.READY and node is NodeState.DRAINING:
        return LEAVING
    if claim.state is ClaimState.READY and node is None:
        return LEFT
    return claim.state.value


def by_word(words: Iterable[str]) -> dict[str, int]:
    """How many machines in each, in the order of a claim's life; none that is gone or was never made."""
    counted = Counter(words)
    return {word: counted[word] for word in OF_MACHINES if counted[word]}
