"""Compare what a node says it holds with what the ledger released to it. Pure.

The answer names what to void, what surely never started, what runs, and what came back. The
argument why two inventories are needed is docs/adr/0003-leases.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.ledger.values import Outstanding
from tasks.invocation import State
from tasks.node import Held, JoinRequest, Phase

Ref = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one inventory changes.

    Attributes:
        void: tell the node never to start these, and to stop them where they run.
        disowned: they surely never started: release them again.
        running: the node runs them; the ledger did not know yet.
        returned: unreachable ones the node still holds.
        forgotten: finished entries that were settled: the journal may forget them.
        suspects: disowned once; the void just sent makes a second disowning conclusive.
    """

    void: tuple[Ref, ...] = ()
    disowned: tuple[Outstanding, ...] = ()
    running: tuple[Ref, ...] = ()
    returned: tuple[Outstanding, ...] = ()
    forgotten: tuple[Ref, ...] = ()
    suspects: frozenset[Ref] = field(default_factory=frozenset)


def compare(
    inventory: Iterable[Held],
    released: Iterable[Outstanding],
    *,
    heard_term: int,
    suspects: frozenset[Ref],
    previous_at: float | None,
    is_doubtful: Callable[[str], bool] = lambda _invocation: False,
    now: float = math.inf,
) -> Comparison:
    """Compare one renewal's inventory with the open attempts of that node.

    Args:
        inventory: everything the node holds.
        released: open attempts of this node.
        heard_term: the term of its lease that the node surely knew when it wrote this; 0 where that is not
            sure. From then on a delivery of an older term cannot start there. Before it could: an inventory
            may be written just before the lease ends, and arrive after.
        suspects: refs that the reply to the previous renewal voided as missing.
        previous_at: when that previous renewal was received, same clock as `released_at`; attempts
            released after it may still be on their way and are not judged.
        is_doubtful: whether the ledger is being asked about an Invocation; nothing is said of it until then.
        now: same clock. What was released in the future was released before the clock was set back, or by
            a leader whose clock is fast: long ago.
    """
    held = {(line.invocation, line.fence): line.phase for line in inventory}
    open_refs = {(attempt.invocation_id, attempt.fence): attempt for attempt in released}
    missing = [attempt for ref, attempt in open_refs.items() if ref not in held]
    stale = [a for a in missing if a.term < heard_term]
    unheard = [
        a for a in missing if a not in stale and previous_at is not None and not previous_at <= a.released_at <= now
    ]
    conclusive = [a for a in unheard if (a.invocation_id, a.fence) in suspects]
    doubtful = frozenset((a.invocation_id, a.fence) for a in unheard if a not in conclusive)
    not_ours = [ref for ref in held if ref not in open_refs and not is_doubtful(ref[0])]
    return Comparison(
        void=(*doubtful, *(ref for ref in not_ours if held[ref] is not Phase.FINISHED)),
        disowned=(*stale, *conclusive),
        running=tuple(_newly_running(held, open_refs)),
        returned=tuple(a for ref, a in open_refs.items() if ref in held and a.state is State.UNREACHABLE),
        forgotten=tuple(ref for ref in not_ours if held[ref] is Phase.FINISHED),
        suspects=doubtful,
    )


def _newly_running(held: Mapping[Ref, Phase], open_refs: Mapping[Ref, Outstanding]) -> list[Ref]:
    return [
        ref
        for ref, attempt in open_refs.items()
        if held.get(ref) is Phase.RUNNING and attempt.state in (State.RELEASED, State.UNREACHABLE)
    ]


def speaks_for(request: JoinRequest, incarnation: str) -> bool:
    """What this join says of a journal is all there is to say of that incarnation."""
    if incarnation == request.incarnation:
        return True
    return request.resumes is not None and incarnation in {request.resumes, *request.unstarted}
