"""The autoscaler's values as text: what is stored comes back as it was."""

from __future__ import annotations

import json

import pytest

from orchestrator.autoscaler.book.wire import UnreadableRecord, dumps, dumps_short, loads
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.decide.season import Season
from orchestrator.autoscaler.values import (
    ClaimState,
    Decision,
    LaneSeen,
    MachineSeen,
    NodeClaim,
    Observation,
    Override,
    Reason,
    Rung,
)
from tasks.invocation import Lane

VALUES = (
    Observation(
        "b",
        12.5,
        {Lane.TOOLS: LaneSeen(waiting=3, service_mean_s=1.5), Lane.AGENTS: LaneSeen()},
        (MachineSeen("c1", "b-c1", ClaimState.READY, price_eur_h=0.01),),
        missing=("node b-1 has not reported for 21 s",),
    ),
    Decision("b", 1.0, 1, 2, ("c1",), ("c2",), (Reason("slo", "why", 2), Reason("note", "so")), ("look",), is_dry=True),
    History(
        ((1.0, 2),),
        0.5,
        1.0,
        {"cpu": 0.5},
        0.7,
        0.2,
        Season().learn(0.0, {Lane.TOOLS: 2.0}).learn(300.0, {Lane.TOOLS: 1.0}),
    ),
    NodeClaim("abc", "b", "b-abc", Rung("p", is_spot=True), ClaimState.BOOTING, 1.0, 2.0),
    Override(3, 99.0, "ann"),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_stored_comes_back_as_it_was(value: object) -> None:
    """Every value goes to text and back without loss, states and lanes by their words."""
    assert loads(type(value), dumps(value)) == value


@pytest.mark.parametrize("value", VALUES[:2], ids=lambda value: type(value).__name__)
def test_a_short_record_is_the_same_value(value: Observation | Decision) -> None:
    """What is as by default is left out of the log, also inside of lanes and machines, and is there when it is read."""
    text = dumps_short(value)
    assert loads(type(value), text) == value
    assert len(text) < len(dumps(value))
    assert "null" not in text


def test_a_row_of_a_newer_release_is_readable() -> None:
    """A member that this release does not know is passed by: a rollback does not stop the loop."""
    row = json.loads(dumps(Override(3, 99.0))) | {"colour": "blue"}
    assert loads(Override, json.dumps(row)) == Override(3, 99.0)


def test_a_spoilt_row_says_what_to_do() -> None:
    """Text that is no Observation is refused with its place and the remedy."""
    with pytest.raises(UnreadableRecord, match=r"stored Observation cannot be read: at: .*delete that row"):
        loads(Observation, '{"pool": "b", "at": "noon"}')
