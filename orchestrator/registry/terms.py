"""What every node is told at join."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from orchestrator.registry.member import Member
from tasks.node import SealTerms


class Seals(Protocol):
    """The keys of sealed messages."""

    def terms(self, member: Member) -> SealTerms: ...
    def news(self, member: Member, known: str) -> SealTerms | None: ...
    def takes(self, *, is_able: bool) -> bool: ...


class Broker(Protocol):
    """Who may do what in Redis."""

    def url_for(self, member: Member) -> str: ...
    async def admit(self, member: Member) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What every node is told at join.

    Attributes:
        redis_url: broker and streams, as the nodes reach it.
        lease_ttl_s: seconds a lease is good for.
        renew_every_s: seconds between renewals.
        inline_limit_bytes: a larger result goes to the blob store.
        result_limit_bytes: a larger result is refused.
        capsule_limit_bytes: a larger session capsule is not saved; 0: none is.
        pool_secret: pool keys are derived from it.
    """

    redis_url: str
    lease_ttl_s: float
    renew_every_s: float
    inline_limit_bytes: int
    result_limit_bytes: int
    pool_secret: bytes
    capsule_limit_bytes: int = 0

    def pool_key(self, pool: str) -> bytes:
        """The key of late-bound deliveries of one pool."""
        return hmac.digest(self.pool_secret, pool.encode(), sha256)
