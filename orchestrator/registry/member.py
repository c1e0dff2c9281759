"""One joined node, as the orchestrator knows it in memory.

Owns the lease's arithmetic; refuses to talk to the ledger or to the node.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from tasks.health import GOOD_IN_A_ROW, HEALTHY, Health
from tasks.invocation import Lane
from tasks.node import Held, Load, NodeState, Offer
from tasks.tool import ToolSpec

Ref = tuple[str, int]


@dataclass(slots=True)
class Lease:
    """Counted from the receipt of a renewal; the node counts from its sending, so it ends there first."""

    term: int
    until_s: float
    """Monotonic seconds."""

    def is_good(self, now_s: float) -> bool:
        """The node may start work."""
        return now_s < self.until_s


@dataclass
class Member:
    """A node. Mutable: changed by its own renewals and by operators only."""

    offer: Offer
    incarnation: str
    delivery_key: bytes
    token_digest: str
    lease: Lease
    joined_at: float
    known_since_s: float
    """Monotonic clock: when it joined this process, or this process remembered it. Its silence counts from then."""
    state: NodeState = NodeState.ACTIVE
    load: Load = field(default_factory=Load)
    wish: NodeState = NodeState.ACTIVE
    """An operator's; a lapse does not forget it."""
    join_number: int = 0
    renewal_number: int = 0
    reply_number: int = field(default_factory=lambda: secrets.randbelow(2**31) + 1)
    """Not from 1 under every leader: a node repeats the last one it heard, from whomever."""
    reply_term: int = 0
    """Of the lease, in the last reply."""
    suspects: frozenset[Ref] = frozenset()
    previous_renewal_at: float | None = None
    reported_at_s: float | None = None
    """Monotonic clock of the last renewal, which is what `load` says; None: none came to this process."""
    health: Health = HEALTHY
    """Of its lease: a lapse is three missed renewals, and two in a row make up for it."""

    earlier_token_digest: str = ""
    """Bound to the certificate before: requests with it may be under way. In memory only."""
    heard_at: dict[Ref, float] = field(default_factory=dict)
    """What runs on it → wall clock of the last word of its MCP server, as the last inventory says."""

    def hear(self, inventory: Iterable[Held], now_s: float) -> None:
        """A renewal's inventory came."""
        self.heard_at = {(h.invocation, h.fence): now_s - h.quiet_s for h in inventory if h.quiet_s is not None}

    @property
    def token_digests(self) -> tuple[str, ...]:
        """What its token may have: none, where it was voided."""
        return (self.token_digest, self.earlier_token_digest) if self.token_digest else ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.offer.name

    @cached_property
    def tools(self) -> dict[str, ToolSpec]:
        """What it offers, by `server.tool`. Dropped by `take_offer`."""
        return {tool.name: tool for tool in self.offer.tools}

    @cached_property
    def capabilities(self) -> frozenset[str]:
        """Its declared labels and the names of its servers."""
        return self.offer.capabilities | {tool.server for tool in self.offer.tools}

    def take_offer(self, offer: Offer) -> None:
        """The node changed what it offers."""
        self.offer = offer
        self.__dict__.pop("tools", None)
        self.__dict__.pop("capabilities", None)

    def is_open(self, now_s: float) -> bool:
        """Work may be placed on it."""
        return self.state is NodeState.ACTIVE and self.lease.is_good(now_s)

    def unhealthy(self) -> dict[str, str]:
        """Server → why nothing is placed on it now, as the node says; `""` is the whole node, as its lease says too."""
        if self.health.is_healthy:
            return self.offer.unhealthy
        renewed = GOOD_IN_A_ROW - self.health.missing
        why = f"its lease had lapsed; it has renewed {renewed} of {GOOD_IN_A_ROW} times in a row since"
        return {**self.offer.unhealthy, "": why}

    def slots(self, lane: Lane) -> int:
        """How many attempts of a lane it runs at once."""
        return self.offer.slots.get(lane, 0)
