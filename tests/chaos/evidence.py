"""What a run left behind beside what callers know: marks of the tools, and the faults as they were. Values only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EFFECT, ANSWER = "effect", "answer"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line that a tool wrote.

    Attributes:
        key: of the call, as its arguments say.
        what: its effect happened, or it is about to answer.
        invocation: the id its server was told.
        at: wall clock of the server's machine.
        after: what it was handed of the result before it in a chain, its beginning.
    """

    key: str
    what: str
    invocation: str | None
    at: float
    after: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault as it was. Times are wall clock.

    Attributes:
        target: a node's name, or what else was hurt.
        is_node: the target is a node. Anything else is shared by all of them.
        is_loss: the node was away past its lease from the beginning.
    """

    target: str
    name: str
    began_at: float
    ended_at: float
    is_node: bool = True
    is_loss: bool = False

    def touches(self, from_: float, to: float, linger_s: float) -> bool:
        """It, or what it leads to for so long after its end, overlaps this time."""
        return self.began_at <= to and self.ended_at + linger_s >= from_


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one run.

    Attributes:
        marks: everything the tools wrote.
        troubles: every fault.
        linger_s: how long after its end a fault may still be the cause of something: the lease and the grace.
        lease_s: after a fault of what nodes share, every node may be given a whole lease again.
        letters: invocation id → its dead letters; None where nobody looked.
        replays: dead letter → ids of the new calls that those were told who replayed it.
        is_clock_true: nobody set a clock, so times of different processes may be compared.
    """

    marks: Sequence[Mark] = ()
    troubles: Sequence[Trouble] = ()
    linger_s: float = 17.0
    lease_s: float = 7.0
    letters: Mapping[str, int] | None = None
    replays: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_clock_true: bool = True


def read_marks(file: Path) -> list[Mark]:
    """All of them."""
    forms = (json.loads(line) for line in file.read_text().splitlines())
    return [Mark(form["key"], form["what"], form["invocation"], form["at"], form.get("after", "")) for form in forms]
