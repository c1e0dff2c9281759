"""What a strategy wants, before any limit: a number of machines, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.autoscaler.values import Reason


@dataclass(frozen=True, slots=True)
class Wish:
    """Of one strategy.

    Attributes:
        machines: ready and on the way.
        reasons: in the order in which they were weighed; the last one with `machines` decided.
        must: paid time does not hold a machine that should go.
    """

    machines: int
    reasons: tuple[Reason, ...] = ()
    must: bool = False


def count(machines: int) -> str:
    """`1 machine`, `2 machines`."""
    return "1 machine" if machines == 1 else f"{machines} machines"
