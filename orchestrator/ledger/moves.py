"""The one place where a move of an Invocation's state is judged. Pure.

Every statement that changes `state` takes the states it may start from out of `sources`, so a move
that `tasks.invocation.TRANSITIONS` does not have cannot be written. Refuses to know SQL.
"""

from __future__ import annotations

from tasks.invocation import OUTSTANDING, TERMINAL, TRANSITIONS, State

ENDS = tuple(sorted(TERMINAL))
"""Every terminal state, in a fixed order."""


def sources(to: State, *, among: frozenset[State] = frozenset(State)) -> tuple[State, ...]:
    """The states from which `to` may be reached, in a fixed order.

    Args:
        to: the wanted state.
        among: only these are considered.
    """
    return tuple(sorted(state for state in among if to in TRANSITIONS[state]))


def settle_sources(to: State) -> tuple[State, ...]:
    """The states from which a settlement may lead to `to`: an attempt must be outstanding."""
    return sources(to, among=OUTSTANDING)
