"""When a signing key signs, when its successor is made, when it goes. Pure.

    made ── published ──▶ signs ───────────────▶ its successor signs ── last token over ──▶ gone
         publish_s              rotate_s                              token_s

Verifiers that keep a key set for an hour have seen the new key before it signs: RFC 7517 says nothing of it,
operators of issuers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

SLACK_S = 60.0
"""A key is kept this much longer than its last token is good: clocks differ."""


class Dated(Protocol):
    """A signing key, or its row."""

    @property
    def kid(self) -> str: ...
    @property
    def signs_from(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """Durations, seconds.

    Attributes:
        token_s: an access token's.
        rotate_s: how long a key signs.
        publish_s: how long before it signs it is published.
    """

    token_s: float = 300.0
    rotate_s: float = 30 * 86_400.0
    publish_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now.

    Attributes:
        make_from: wall clock from which a key that is to be made signs; None: none is to be made.
        forget: kids whose last token is over.
    """

    make_from: float | None = None
    forget: tuple[str, ...] = ()


def signer(keys: Sequence[Dated], now_s: float) -> Dated | None:
    """The key that signs now: the newest that has begun."""
    begun = [key for key in keys if key.signs_from <= now_s]
    return max(begun, key=lambda key: (key.signs_from, key.kid)) if begun else None


def plan(keys: Sequence[Dated], now_s: float, terms: Terms) -> Plan:
    """What the keys need at this moment."""
    current = signer(keys, now_s)
    if current is None:
        return Plan(make_from=now_s)
    in_order = sorted(keys, key=lambda key: (key.signs_from, key.kid))
    over = tuple(
        key.kid for key, successor in pairwise(in_order) if successor.signs_from + terms.token_s + SLACK_S <= now_s
    )
    if in_order[-1] is not current:
        return Plan(forget=over)
    due_s = current.signs_from + terms.rotate_s
    return Plan(
        make_from=max(due_s, now_s + terms.publish_s) if now_s >= due_s - terms.publish_s else None, forget=over
    )
