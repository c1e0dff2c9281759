"""Secrets as the ledger keeps them: sealed by whoever asks, opened by nobody here.

Rare beside calls, so each is one small operation. Refuses to interpret any of it: `orchestrator/secrets` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol, TypeVar

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.readers import Reader
from orchestrator.ledger.secret_values import SecretRow
from orchestrator.ledger.tables import SECRETS
from orchestrator.ledger.transaction import Hot, Tx

T = TypeVar("T")
_S = SECRETS.c
_NAMES = tuple(column.name for column in SECRETS.columns)
_KEY = ("tenant", "owner", "name")
_THIS = (_S.tenant == bindparam("p_tenant"), _S.owner == bindparam("p_owner"), _S.name == bindparam("p_name"))
_new = insert(SECRETS)
_SAVE = Hot(
    _new.on_conflict_do_update(
        index_elements=list(_KEY), set_={name: _new.excluded[name] for name in _NAMES if name not in _KEY}
    ).inline(),
    _NAMES,
)
_FORGET = Hot(delete(SECRETS).where(*_THIS))


class Books(Protocol):
    """The ledger."""

    async def write(self, operation: Callable[[Tx], T]) -> T: ...
    async def read(self, question: Callable[[Reader], T]) -> T: ...


class SecretRows:
    """Secrets of a ledger."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def save_secrets(self, rows: Sequence[SecretRow]) -> None:
        """Insert or replace; all or none."""
        wanted = [asdict(row) for row in rows]
        await self._books.write(lambda tx: tx.put(_SAVE, wanted))

    async def forget_secret(self, tenant: str, owner: str, name: str) -> bool:
        """Delete one; whether it was there."""
        wanted = {"p_tenant": tenant, "p_owner": owner, "p_name": name}
        return await self._books.write(lambda tx: bool(tx.counts(_FORGET, [wanted])[0]))

    async def secrets(self, *named: str | None) -> list[SecretRow]:
        """Those of a tenant, of an owner, of a name; what is None or left out does not narrow."""
        query = select(SECRETS).order_by(*(SECRETS.c[part] for part in _KEY))
        for column, wanted in zip((_S.tenant, _S.owner, _S.name), named, strict=False):
            query = query if wanted is None else query.where(column == wanted)
        return await self._books.read(
            lambda reader: [SecretRow(**row) for row in reader.core.execute(query).mappings()]
        )
