"""Turns by node name: who joins, is expelled or trades a certificate waits for the others of that name alone.

And who may take a name that somebody has.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from orchestrator.registry.member import Member
from tasks.errors import Late, NameHeld
from tasks.node import JoinRequest, NodeState


class Turns:
    """Locks by name, each kept while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __contains__(self, name: object) -> bool:
        return name in self._locks

    def of(self, name: str) -> asyncio.Lock:
        """The lock of this name."""
        return self._locks.setdefault(name, asyncio.Lock())


def may_follow(request: JoinRequest, before: Member | None) -> None:
    """Whether a process may join where `before` is known under its name.

    The newest wins, so that a node which was started again need not wait for its own lease. One that lost the name
    once gets it back from nobody who lives, or two machines of one name would take it from each other for ever; from
    a ledger that was restored, and knows of no such process or counts it as lost, it does.

    Raises:
        Late: a later try of the same process was admitted already.
        NameHeld: it was superseded, by this one for all that is known.
    """
    if before is None:
        return
    if before.incarnation == request.incarnation:
        if 0 < request.number <= before.join_number:
            raise Late("join", before.name)
    elif request.yields and before.state is not NodeState.LOST:
        raise NameHeld(before.name)
