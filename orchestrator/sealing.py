"""The orchestrator's end of sealed messages: every node's keys, and what is sealed and opened with them.

A node's key is derived from the fleet's secret and from what the ledger keeps of the node, so that neither a
copy of the ledger nor a dump of the broker opens anything, and every replica has it. Refuses to choose nodes,
and to judge what they say. Source: docs/adr/0020-untrusted-broker.md.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.registry.member import Member
from tasks.clock import Clock
from tasks.envelope import Delivery
from tasks.ledger_events import FIELD
from tasks.node import Control, SealTerms
from tasks.sealing import (
    SEALED_FIELD,
    Box,
    NotSealedForUs,
    control_box,
    derive,
    events_box,
    node_box,
    pool_box,
    public_hex,
    seal_delivery,
    seal_late,
    signer_of,
    terms_id,
)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Of one incarnation."""

    made_of: tuple[str, str, bytes]
    terms: SealTerms
    id: str
    deliveries: Box
    events: Box
    control: Box


class Seals:
    """Of all nodes of a fleet."""

    def __init__(
        self, secret: bytes, *, find: Callable[[str], Member | None], clock: Clock, is_demanded: bool = True
    ) -> None:
        """`secret`: of the whole fleet; no node has it, and no database."""
        self.is_demanded = is_demanded
        self._secret = hmac.digest(b"mcpfleet sealing 1", secret, hashlib.sha256)
        self._signer = signer_of(self._secret)
        self._public = public_hex(self._signer)
        self._find, self._clock = find, clock
        self._keys: dict[str, _Keys] = {}
        self._before: dict[str, _Keys] = {}
        """Of the incarnation before: what it told last may not have been read."""
        self._pools: dict[str, Box] = {}

    def terms(self, member: Member) -> SealTerms:
        """What a node is told at its join."""
        return self._of(member).terms

    def news(self, member: Member, known: str) -> SealTerms | None:
        """What it is told with a renewal: something, where it has other terms."""
        keys = self._of(member)
        return None if known == keys.id else keys.terms

    def takes(self, *, is_able: bool) -> bool:
        """Whether a node may be a member that can open what is sealed, or cannot."""
        return is_able or not self.is_demanded

    def delivery(self, delivery: Delivery, member: Member | None, pool: str) -> tuple[str, str] | None:
        """Sealed; None where this fleet's are plain."""
        if not self.is_demanded:
            return None
        now = self._clock.wall_s()
        if member is not None:
            return seal_delivery(delivery, self._of(member).deliveries, now)
        box = self._pools.get(pool)
        if box is None:
            box = self._pools[pool] = pool_box(self._pool_key(pool), pool)
        return seal_late(delivery, box, self._signer, now)

    def opened(self, node: str, fields: Mapping[bytes, bytes]) -> bytes:
        """What an entry of a node's stream says.

        Raises:
            NotSealedForUs: nobody but somebody else can have written it, or it is of long ago.
            KeyError: it has no field of ours.
        """
        sealed = fields.get(SEALED_FIELD)
        if sealed is None and not self.is_demanded:
            return fields[FIELD]
        member = self._find(node)
        if sealed is None or member is None:
            raise NotSealedForUs
        keys = self._of(member)
        try:
            return keys.events.open(sealed)
        except NotSealedForUs:
            before = self._before.get(node)
            if before is None:
                raise
            return before.events.open(sealed)

    def control(self, node: str, control: Control) -> dict[bytes, bytes]:
        """Fields of an entry of a node's control stream; none where there is no such node."""
        said = control.model_dump_json().encode()
        if not self.is_demanded:
            return {FIELD: said}
        member = self._find(node)
        return {} if member is None else {SEALED_FIELD: self._of(member).control.seal(said)}

    def forget(self, node: str) -> None:
        """It left."""
        self._keys.pop(node, None)
        self._before.pop(node, None)

    def _of(self, member: Member) -> _Keys:
        known = self._keys.get(member.name)
        if known is not None and known.made_of == _of_what(member):
            return known
        if known is not None:
            self._before[member.name] = known
        keys = self._keys[member.name] = self._made(member)
        return keys

    def _made(self, member: Member) -> _Keys:
        name = member.name
        what = f"node {name} {member.incarnation} {member.delivery_key.hex()}"
        key = derive(self._secret, what)
        terms = SealTerms(
            key=key.hex(),
            pool_key=self._pool_key(member.offer.pool).hex(),
            signer=self._public,
            is_demanded=self.is_demanded,
        )
        return _Keys(
            _of_what(member),
            terms,
            terms_id(terms),
            node_box(key, name),
            events_box(key, name),
            control_box(key, name),
        )

    def _pool_key(self, pool: str) -> bytes:
        return derive(self._secret, f"pool {pool}")


def _of_what(member: Member) -> tuple[str, str, bytes]:
    return member.incarnation, member.offer.pool, member.delivery_key
