"""What one inventory changes: tables of named cases over `orchestrator.registry.inventory.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from orchestrator.ledger.values import Outstanding
from orchestrator.registry.inventory import Comparison, compare
from tasks.invocation import Lane, State
from tasks.node import Held, Phase

EARLIER, LATER, NOW = 100.0, 200.0, 300.0


def attempt(
    name: str, fence: int = 1, *, at: float = EARLIER, term: int = 1, state: State = State.RELEASED
) -> Outstanding:
    """An open attempt on the node."""
    return Outstanding(
        invocation_id=name,
        fence=fence,
        node="a1",
        incarnation="i",
        term=term,
        pool="general",
        lane=Lane.TOOLS,
        tool="t.x",
        project=None,
        state=state,
        released_at=at,
        started_at=None,
        expires_at=None,
        cancel_requested=False,
    )


def held(name: str, phase: Phase, fence: int = 1) -> Held:
    """One line of an inventory."""
    return Held(invocation=name, fence=fence, phase=phase)


@dataclass(frozen=True)
class Case:
    """A renewal and what it must change."""

    name: str
    inventory: tuple[Held, ...] = ()
    released: tuple[Outstanding, ...] = ()
    suspects: frozenset[tuple[str, int]] = frozenset()
    previous_at: float | None = LATER
    heard_term: int = 1
    doubtful: frozenset[str] = frozenset()
    void: set[tuple[str, int]] = field(default_factory=set)
    disowned: set[str] = field(default_factory=set)
    running: set[tuple[str, int]] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    forgotten: set[tuple[str, int]] = field(default_factory=set)


CASES = [
    Case("nothing held, nothing released"),
    Case("missing once: voided and suspected, not given up", released=(attempt("x"),), void={("x", 1)}),
    Case(
        "missing twice: surely never started",
        released=(attempt("x"),),
        suspects=frozenset({("x", 1)}),
        disowned={"x"},
    ),
    Case("released after the previous renewal: may be on its way", released=(attempt("x", at=LATER + 1),)),
    Case(
        "released in the future, so the clock was set back: as good as released before",
        released=(attempt("x", at=NOW + 1),),
        void={("x", 1)},
    ),
    Case("first renewal after a restart judges nothing", released=(attempt("x"),), previous_at=None),
    Case(
        "a reply that was not heard proves nothing",
        released=(attempt("x"),),
        suspects=frozenset(),
        previous_at=None,
    ),
    Case(
        "a fence that was suspected is not another fence's proof",
        released=(attempt("x", 2),),
        suspects=frozenset({("x", 1)}),
        void={("x", 2)},
    ),
    Case(
        "an older term can never start, once the node knows the newer one",
        released=(attempt("x", term=0, at=LATER + 1),),
        disowned={"x"},
    ),
    Case(
        "an older term may have started after the inventory was written, where the newer one was not heard",
        released=(attempt("x", term=0, at=LATER + 1),),
        heard_term=0,
    ),
    Case(
        "unreachable and not held: its delivery is void by its term",
        released=(attempt("x", term=0, state=State.UNREACHABLE),),
        disowned={"x"},
    ),
    Case(
        "the ledger is being asked: nothing is said of it",
        inventory=(held("x", Phase.FINISHED), held("y", Phase.RUNNING)),
        doubtful=frozenset({"x", "y"}),
    ),
    Case(
        "unreachable and held: it came back",
        inventory=(held("x", Phase.RUNNING),),
        released=(attempt("x", term=0, state=State.UNREACHABLE),),
        running={("x", 1)},
        returned={"x"},
    ),
    Case(
        "running, and the ledger did not know",
        inventory=(held("x", Phase.RUNNING),),
        released=(attempt("x"),),
        running={("x", 1)},
    ),
    Case("running, and the ledger knew", (held("x", Phase.RUNNING),), (attempt("x", state=State.RUNNING),)),
    Case("waiting at the node is fine", (held("x", Phase.WAITING),), (attempt("x"),)),
    Case("finished and not settled yet is fine", (held("x", Phase.FINISHED),), (attempt("x"),)),
    Case("waiting there, superseded here: void", (held("x", Phase.WAITING),), void={("x", 1)}),
    Case("running there, superseded here: void", (held("x", Phase.RUNNING),), void={("x", 1)}),
    Case("finished there, settled here: forget it", (held("x", Phase.FINISHED),), forgotten={("x", 1)}),
    Case(
        "an old fence runs there while a newer one is open here",
        inventory=(held("x", Phase.RUNNING, 1),),
        released=(attempt("x", 2, at=LATER + 1),),
        void={("x", 1)},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inventory_changes_what_it_proves_and_no_more(case: Case) -> None:
    """Nothing is released again unless its node surely never started it."""
    seen: Comparison = compare(
        case.inventory,
        case.released,
        heard_term=case.heard_term,
        suspects=case.suspects,
        previous_at=case.previous_at,
        is_doubtful=case.doubtful.__contains__,
        now=NOW,
    )
    assert set(seen.void) == case.void
    assert {a.invocation_id for a in seen.disowned} == case.disowned
    assert set(seen.running) == case.running
    assert {a.invocation_id for a in seen.returned} == case.returned
    assert set(seen.forgotten) == case.forgotten
    assert seen.suspects == frozenset(case.void & {(a.invocation_id, a.fence) for a in case.released})
