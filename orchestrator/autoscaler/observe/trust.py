"""Whether what is seen of a pool can be trusted, and if not, why. Pure.

Whoever reads "missing" may let a pool grow, and never shrinks it. Refuses to guess what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tasks.node import Load, NodeState, Offer

WINDOW_S = 60.0
"""Rates and waiting times are of the last minute: who has watched for less knows less."""
RENEWALS_MISSED = 3
LOST_HOLD_S = 120.0
"""A node that fell silent may come back with what it runs; after this long it is counted as gone."""


class Node(Protocol):
    """A joined node. `orchestrator.registry.member.Member` satisfies it."""

    reported_at_s: float | None
    """Monotonic clock; None: not to this process."""
    known_since_s: float
    """Monotonic clock: when it joined, or was remembered by a new leader."""
    joined_at: float
    state: NodeState
    load: Load
    offer: Offer

    @property
    def name(self) -> str: ...
    def is_open(self, now_s: float) -> bool: ...
    def unhealthy(self) -> dict[str, str]: ...


def is_fresh(node: Node, now_s: float, renew_every_s: float) -> bool:
    """Its last report is not older than three renewals."""
    return node.reported_at_s is not None and now_s - node.reported_at_s <= RENEWALS_MISSED * renew_every_s


def missing(
    nodes: Iterable[Node],
    *,
    now_s: float,
    watched_s: float,
    renew_every_s: float,
    leads: bool,
    broker_down: str | None,
) -> tuple[str, ...]:
    """Why this pool's numbers cannot be trusted, in sentences; empty if they can.

    Args:
        nodes: of the pool.
        now_s: monotonic clock.
        watched_s: for how long somebody has listened.
        renew_every_s: how often nodes report.
        leads: nobody else can lead now.
        broker_down: why nothing can be sent.
    """
    said = [text for node in nodes if (text := _silent(node, now_s, renew_every_s)) is not None]
    if watched_s < WINDOW_S:
        said.insert(0, f"watching for {watched_s:.0f} s only: rates and waiting times are of {WINDOW_S:.0f} s")
    if not leads:
        said.insert(0, "this orchestrator cannot prove that it leads: another one may know better")
    if broker_down is not None:
        said.insert(0, f"the broker does not answer ({broker_down}): nothing is released, whoever has room")
    return tuple(said)


def _silent(node: Node, now_s: float, renew_every_s: float) -> str | None:
    silent_s = now_s - (node.known_since_s if node.reported_at_s is None else node.reported_at_s)
    if silent_s <= RENEWALS_MISSED * renew_every_s:
        return None
    if node.state is NodeState.LOST:
        if silent_s >= LOST_HOLD_S:
            return None
        left_s = LOST_HOLD_S - silent_s
        return (
            f"node {node.name} fell silent {silent_s:.0f} s ago and may come back with what it ran "
            f"(counted as gone in {left_s:.0f} s)"
        )
    return f"node {node.name} has not reported for {silent_s:.0f} s"
