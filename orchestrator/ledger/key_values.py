"""What the ledger keeps of an API key. Refuses to know the key itself."""

from __future__ import annotations

from dataclasses import dataclass

DUE_AT = 0.9
"""Of its lifetime: from then on a key may be traded for its successor by whoever holds it."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key: who it stands for, and its digest. Sets are words with blanks between them."""

    id: str
    name: str
    """For people."""
    tenant: str
    principal: str
    roles: str
    scopes: str | None
    groups: str
    networks: str
    """From where it may be used, as CIDR; empty: from anywhere."""
    digest: str | None
    """None: it signs challenges, and is no bearer of anything."""
    public_key: str | None
    """Ed25519, base64url."""
    created_at: float
    created_by: str
    expires_at: float | None
    lifetime_s: float | None
    """A successor's; None: it does not expire."""
    succeeds: str | None = None
    """Id of the key that it was made from."""
    used_at: float | None = None
    used_from: str | None = None

    @property
    def due_at(self) -> float | None:
        """From when on its holder may trade it, wall clock; None for one that does not expire."""
        return None if self.lifetime_s is None else self.created_at + DUE_AT * self.lifetime_s


@dataclass(frozen=True, slots=True)
class WantedKey:
    """A key that somebody asks for."""

    name: str
    principal: str | None
    """None: the key's own id."""
    tenant: str
    roles: frozenset[str]
    scopes: frozenset[str] | None
    groups: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    public_key: str | None = None
    lifetime_s: float | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key, the one time that it is there to be seen; None for one that only signs."""

    row: KeyRow
    key: str | None
