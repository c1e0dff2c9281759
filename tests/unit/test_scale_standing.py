"""In what words machines are shown, where their claim's state alone would mislead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.autoscaler.act.ladder import was_refused
from orchestrator.autoscaler.cloud.errors import CloudDown, QuotaReached
from orchestrator.autoscaler.show.shown import seen_view
from orchestrator.autoscaler.show.standing import by_word, standing
from orchestrator.autoscaler.values import ClaimState, MachineSeen, NodeClaim, Observation, Rung
from orchestrator.testing.scaling import POOL, scale_views
from tasks.node import NodeState
from tasks.testing.clock import FakeClock

READY = NodeClaim("a", POOL, f"{POOL}-a", Rung("near"), ClaimState.READY, 1.0, 2.0, machine_id="4711", ready_at=2.0)
REFUSED = NodeClaim(
    "b", POOL, f"{POOL}-b", Rung("near"), ClaimState.TERMINATING, 1.0, 2.0,
    failed_with=QuotaReached.code, failed_at=2.0, error="no more",
)  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "node", "word"),
    [
        (READY, NodeState.ACTIVE, "ready"),
        (READY, NodeState.CORDONED, "ready"),
        (READY, NodeState.DRAINING, "leaving"),
        (READY, None, "left"),
        (replace(READY, state=ClaimState.DRAINING), NodeState.DRAINING, "draining"),
        (replace(READY, state=ClaimState.BOOTING), None, "booting"),
        (REFUSED, None, "refused"),
        (replace(REFUSED, failed_with=CloudDown.code), None, "terminating"),
        (replace(REFUSED, machine_id="4711"), None, "terminating"),
        (replace(REFUSED, state=ClaimState.GONE), None, "gone"),
    ],
)
def test_a_machine_is_shown_for_what_it_is(claim: NodeClaim, node: NodeState | None, word: str) -> None:
    """Nobody is told `ready` of a machine whose node leaves, nor of a machine where none was made."""
    assert standing(claim, node) == word


def test_what_was_refused_is_no_machine() -> None:
    """It is counted with none of them."""
    assert by_word(["refused", "leaving", "ready"]) == {"ready": 1, "leaving": 1}


async def test_a_refused_order_is_counted_apart_and_costs_no_unknown_price() -> None:
    """`refused` says how many; the machines of the pool and those without a price are as they were."""
    views = scale_views(FakeClock())
    before = (await views.scale()).pools[0]
    views._claims.claims.append(REFUSED)  # type: ignore[attr-defined]
    after = (await views.scale()).pools[0]
    assert (after.machines, after.unpriced, after.refused) == (before.machines, before.unpriced, 1)
    assert [view.standing for view in views.machines() if view.claim == "b"] == ["refused"]


def test_an_explanation_names_the_refusal() -> None:
    """What the cloud said is there while the claim stands, and its machine is not counted."""
    machines = (
        MachineSeen("a", "p-a", ClaimState.READY),
        MachineSeen("b", "p-b", ClaimState.TERMINATING, refused="no more"),
    )
    view = seen_view(Observation("p", 1.0, machines=machines))
    assert (view.machines, view.refused) == ({"ready": 1}, ["no more"])
    assert was_refused(REFUSED)
    assert not was_refused(READY)
