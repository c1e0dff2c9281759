"""Lists of a cloud against the claims: pure. Lists lag, so nothing is believed at once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.autoscaler.act.looks import Look
from orchestrator.autoscaler.act.reconcile import LAG_S, Findings, Sightings, compare
from orchestrator.autoscaler.cloud.provider import Machine, Power
from orchestrator.autoscaler.values import ClaimState, NodeClaim, Rung

AT = 1_000_000.0
RUNG = Rung("near")
CLAIM = NodeClaim("a", "p", "p-a", RUNG, ClaimState.READY, AT - 900, AT - 900, machine_id="m-a")
OWN = Machine("m-a", "p-a", "a", Power.RUNNING, created_at=AT - 900)
STRANGER = Machine("m-x", "p-x", "x", Power.RUNNING, created_at=AT - 900)


def looks(machines: list[Machine], claims: list[NodeClaim], number: int, *, every_s: float = 30.0) -> list[Findings]:
    """So many in a row."""
    found, before = [], Sightings()
    for index in range(number):
        findings = compare(Look("near", index, AT + index * every_s, tuple(machines)), claims, before)
        before = findings.sightings
        found.append(findings)
    return found


def test_what_is_claimed_and_listed_is_left_alone() -> None:
    """Nothing is found where both agree."""
    last = looks([OWN], [CLAIM], 5)[-1]
    assert (last.orphans, last.found, last.vanished, last.never_made) == ((), (), (), ())


def test_an_unknown_machine_is_an_orphan_at_the_second_look() -> None:
    """One look proves nothing."""
    one, two = looks([OWN, STRANGER], [CLAIM], 2)
    assert one.orphans == ()
    assert [(o.machine.id, o.why) for o in two.orphans] == [("m-x", "unknown_claim")]


def test_a_machine_ordered_through_another_table_of_the_same_account_is_no_orphan() -> None:
    """Two providers of the file may see one account, and one may be renamed: neither ends the other's machines."""
    elsewhere = replace(CLAIM, id="x", machine_id="m-x", rung=Rung("far"))
    last = looks([OWN, STRANGER], [CLAIM, elsewhere], 4)[-1]
    assert (last.orphans, last.found, last.vanished, last.never_made) == ((), (), (), ())
    gone = replace(elsewhere, state=ClaimState.GONE)
    assert [o.why for o in looks([OWN, STRANGER], [CLAIM, gone], 2)[-1].orphans] == ["gone_claim"]


def test_a_young_unknown_machine_is_not_touched() -> None:
    """Not within two minutes of its making; where that is not known, of its first sight."""
    young = replace(STRANGER, created_at=AT)
    assert [bool(f.orphans) for f in looks([young], [], 6)] == [False] * 5 + [True]
    unknown = replace(STRANGER, created_at=0.0)
    assert [bool(f.orphans) for f in looks([unknown], [], 6)] == [False] * 5 + [True]


def test_a_machine_that_is_still_listed_after_its_end_is_no_leak() -> None:
    """A list that lags shows it for a while; after that it is one."""
    gone = replace(CLAIM, state=ClaimState.GONE, state_at=AT)
    assert [len(f.orphans) for f in looks([OWN], [gone], 4)] == [0, 0, 0, 0]
    late = replace(gone, state_at=AT - LAG_S - 1)
    assert [o.why for o in looks([OWN], [late], 2)[-1].orphans] == ["gone_claim"]


def test_a_second_machine_of_a_claim_is_an_orphan() -> None:
    """The one that the claim knows is kept."""
    twin = replace(OWN, id="m-b")
    assert [(o.machine.id, o.why) for o in looks([OWN, twin], [CLAIM], 2)[-1].orphans] == [("m-b", "second_machine")]


def test_a_machine_whose_answer_was_lost_is_found() -> None:
    """Of two the oldest, whatever the order of the list; the other one is a leak."""
    asked = replace(CLAIM, state=ClaimState.BOOTING, machine_id=None)
    younger = replace(OWN, id="m-0", created_at=AT - 800)
    for machines in ([OWN, younger], [younger, OWN]):
        last = looks(machines, [asked], 2)[-1]
        assert [(claim, machine.id) for claim, machine in last.found] == [("a", "m-a")]
        assert [o.machine.id for o in last.orphans] == ["m-0"]


def test_a_machine_has_vanished_at_the_third_look() -> None:
    """And not while it is so young that lists may not know it yet."""
    assert [f.vanished for f in looks([], [CLAIM], 3)] == [(), (), ("a",)]
    young = replace(CLAIM, created_at=AT - 10)
    assert looks([], [young], 4)[-1].vanished == ()
    ready = replace(young, state=ClaimState.READY, ready_at=AT)
    assert looks([], [ready], 3)[-1].vanished == ("a",)
    ending = replace(CLAIM, state=ClaimState.TERMINATING)
    assert looks([], [ending], 5)[-1].vanished == ()


def test_a_machine_that_comes_back_is_counted_anew() -> None:
    """Three looks in a row, not three in all."""
    before = Sightings()
    for index, listed in enumerate([[], [], [OWN], [], []]):
        findings = compare(Look("near", index, AT + index, tuple(listed)), [CLAIM], before)
        before = findings.sightings
    assert findings.vanished == ()


def test_what_was_never_made_is_known_only_when_lists_had_time() -> None:
    """A claim that ends without having heard of a machine waits for two looks, both after the lag."""
    ends = replace(CLAIM, state=ClaimState.TERMINATING, machine_id=None, state_at=AT)
    assert [bool(f.never_made) for f in looks([], [ends], 7)] == [False] * 5 + [True, True]


def test_what_is_already_ending_is_not_ended_again() -> None:
    """Its cloud has begun."""
    assert looks([replace(STRANGER, power=Power.ENDING)], [], 3)[-1].orphans == ()


@given(
    listed=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=8),
    states=st.lists(st.sampled_from(list(ClaimState)), min_size=4, max_size=4),
    ages=st.lists(st.floats(0, 1000), min_size=4, max_size=4),
)
def test_a_claim_that_stands_never_loses_its_machine_to_the_sweep(
    listed: list[list[bool]], states: list[ClaimState], ages: list[float]
) -> None:
    """However lists lag and flicker, what a standing claim knows as its machine is no orphan."""
    claims = [
        replace(CLAIM, id=f"c{n}", machine_id=f"m{n}", state=states[n], created_at=AT - ages[n], state_at=AT - ages[n])
        for n in range(4)
    ]
    before = Sightings()
    for index, row in enumerate(listed):
        machines = [replace(OWN, id=f"m{n}", claim=f"c{n}", created_at=AT - ages[n]) for n in range(4) if row[n]]
        findings = compare(Look("near", index, AT + 30 * index, tuple(machines)), claims, before)
        before = findings.sightings
        standing = {c.machine_id for c in claims if c.state is not ClaimState.GONE}
        assert not standing & {orphan.machine.id for orphan in findings.orphans}
