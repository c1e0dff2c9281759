"""Secrets over a ledger in memory, sealed with a key that was made just now."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from orchestrator.ledger.secret_values import SecretRow
from orchestrator.secrets.desk import Secrets
from orchestrator.secrets.keyring import KEY_BYTES, KeyRing
from orchestrator.secrets.sources import ValueSource
from tasks.clock import Clock, SystemClock
from tasks.erasure_wire import ErasureView
from tasks.invocation import Principal

Key = tuple[str, str, str]


class MemorySecretBooks:
    """The ledger's part of it."""

    def __init__(self) -> None:
        self.rows: dict[Key, SecretRow] = {}

    async def secrets(self, *named: str | None) -> list[SecretRow]:
        """Those of a tenant, an owner, a name."""
        keys = [key for key in sorted(self.rows) if all(w in (None, k) for w, k in zip(named, key, strict=False))]
        return [self.rows[key] for key in keys]

    async def save_secrets(self, rows: Sequence[SecretRow]) -> None:
        """Replace."""
        self.rows.update({(row.tenant, row.owner, row.name): row for row in rows})

    async def forget_secret(self, tenant: str, owner: str, name: str) -> bool:
        """Whether it was there."""
        return self.rows.pop((tenant, owner, name), None) is not None


class NoErasure:
    """Nothing is kept of any project."""

    async def erase(self, project: str, principal: Principal) -> ErasureView:  # noqa: ARG002 - the port's
        """Nothing is gone."""
        return ErasureView(project=project, calls=0, blobs=0, secrets=0, still_open=0, kept=())


def new_ring(*kids: str) -> KeyRing:
    """Fresh keys of these names; the first seals."""
    kids = kids or ("k1",)
    return KeyRing({kid: secrets.token_bytes(KEY_BYTES) for kid in kids}, newest=kids[0])


def memory_secrets(
    books: MemorySecretBooks | None = None,
    *,
    keys: KeyRing | None = None,
    sources: Mapping[str, ValueSource] | None = None,
    pool_of: Callable[[str], str | None] = lambda _: "general",
    clock: Clock | None = None,
) -> Secrets:
    """A desk; every node is of the pool `general`."""
    return Secrets(
        books=books or MemorySecretBooks(),
        keys=keys or new_ring(),
        sources=sources or {},
        pool_of=pool_of,
        clock=clock or SystemClock(),
    )
