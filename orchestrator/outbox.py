"""Seals a release for the node it is addressed to and hands it to the sender.

The one place where delivery keys meet deliveries. Refuses to choose a node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from orchestrator.dispatch.records import Address
from orchestrator.dispatch.send import Letter
from orchestrator.ledger.values import Outstanding, Released
from orchestrator.registry.roster import Roster
from orchestrator.sealing import Seals
from tasks.envelope import Delivery, Number, seal
from tasks.invocation import Lane
from tasks.tool import TIMEOUT_TOOLS_S, OnNodeLoss
from tasks.tracing import is_sampled, parent_of


class Sender(Protocol):
    """Publishes."""

    @property
    def down_because(self) -> str | None: ...
    def send(self, letter: Letter) -> None: ...


class Outbox:
    """Satisfies the dispatcher's Outbox."""

    def __init__(
        self,
        *,
        roster: Roster,
        sender: Sender,
        pool_key: Callable[[str], bytes],
        seals: Seals,
        grace_agents_s: float,
        trace_ratio: float | None = None,
    ) -> None:
        """`trace_ratio`: the share of traces kept here; None: no spans are made, and nothing is decided for nodes."""
        self._roster, self._sender, self._pool_key, self._seals = roster, sender, pool_key, seals
        self._grace_agents_s, self._trace_ratio = grace_agents_s, trace_ratio

    @property
    def down_because(self) -> str | None:
        """Why nothing can be published; None while the broker answers."""
        return self._sender.down_because

    def address(self, node: str) -> Address | None:
        """The node's process and term; None if it is gone."""
        member = self._roster.find(node)
        return None if member is None else Address(member.incarnation, member.lease.term)

    def post(self, attempt: Outstanding, released: Released, queue: str, number: Number) -> None:
        """Seal and send. A node that joined anew meanwhile refuses it, and it is released again."""
        member = None if attempt.node is None else self._roster.find(attempt.node)
        if attempt.node is not None and member is None:
            return
        delivery = self._delivery(attempt, released, number)
        sealed = self._seals.delivery(delivery, member, attempt.pool)
        if sealed is not None:
            self._sender.send(Letter(attempt.invocation_id, queue, None, None, *sealed))
            return
        key = member.delivery_key if member is not None else self._pool_key(attempt.pool)
        self._sender.send(Letter(attempt.invocation_id, queue, attempt.tool, attempt.project, *seal(delivery, key)))

    def _is_sampled(self, released: Released) -> bool | None:
        if self._trace_ratio is None or released.trace_id is None:
            return parent_of(released.trace_parent)[1]
        return is_sampled(released.trace_id, released.trace_parent, self._trace_ratio)

    def _delivery(self, attempt: Outstanding, released: Released, number: Number) -> Delivery:
        goes_on = attempt.lane is Lane.AGENTS and attempt.declared.on_node_loss is OnNodeLoss.RESUME
        return Delivery(
            invocation=attempt.invocation_id,
            fence=released.fence,
            node=attempt.node,
            incarnation=attempt.incarnation,
            term=attempt.term,
            tool=released.tool,
            lane=attempt.lane,
            timeout_s=released.timeout_s or TIMEOUT_TOOLS_S,
            arguments_json=None if released.arguments_blob else released.arguments_json or "{}",
            arguments_blob=released.arguments_blob,
            project=released.project,
            expires_at=released.expires_at,
            trace_id=released.trace_id,
            meta_json=released.meta_json,
            tries=released.tries,
            tenant=released.tenant,
            capsule=released.capsule,
            spent_usd=released.spent_usd,
            handover_s=self._grace_agents_s if goes_on else None,
            number=number,
            caller=released.principal,
            is_sampled=self._is_sampled(released),
        )
