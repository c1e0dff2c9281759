"""What the ledger remembers for the authorization server: clients, sealed keys, ids that are spent.

Rare beside calls, so each is one small operation. Refuses to interpret any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.oauth_tables import OAUTH_CLIENTS, OAUTH_KEYS, OAUTH_SPENT
from orchestrator.ledger.oauth_values import ClientRow, SigningKeyRow, SpentRow
from orchestrator.ledger.readers import Reader
from orchestrator.ledger.transaction import Hot, Tx

_CLIENT_COLUMNS = tuple(column.name for column in OAUTH_CLIENTS.columns)
_client = insert(OAUTH_CLIENTS)
_SAVE_CLIENT = Hot(
    _client.on_conflict_do_update(
        index_elements=["id"], set_={name: _client.excluded[name] for name in _CLIENT_COLUMNS if name != "id"}
    ).inline(),
    _CLIENT_COLUMNS,
)
_SAVE_KEY = Hot(insert(OAUTH_KEYS).inline(), tuple(column.name for column in OAUTH_KEYS.columns))
_FORGET_KEY = Hot(delete(OAUTH_KEYS).where(OAUTH_KEYS.c.kid == bindparam("p_kid")))
_S = OAUTH_SPENT.c
_SPEND = Hot(
    insert(OAUTH_SPENT).on_conflict_do_nothing(index_elements=["kind", "id"]).inline(), ("kind", "id", "expires_at")
)
_FADE = Hot(delete(OAUTH_SPENT).where(_S.expires_at < bindparam("p_now")))


def save_client(tx: Tx, row: ClientRow) -> None:
    """Insert or replace one client."""
    tx.put(_SAVE_CLIENT, [asdict(row)])


def save_key(tx: Tx, row: SigningKeyRow, forget: Sequence[str]) -> None:
    """Add one key, and delete others with it."""
    tx.put(_SAVE_KEY, [asdict(row)])
    forget_keys(tx, forget)


def forget_keys(tx: Tx, kids: Sequence[str]) -> None:
    """Delete keys; nothing that they signed is good any more."""
    if kids:
        tx.put(_FORGET_KEY, [{"p_kid": kid} for kid in kids])


def spend(tx: Tx, row: SpentRow, now_s: float) -> bool:
    """Spend an id; False where it was spent before. Those whose time is over are forgotten with it."""
    tx.put(_FADE, [{"p_now": now_s}])
    return bool(tx.counts(_SPEND, [asdict(row)])[0])


def clients(reader: Reader) -> list[ClientRow]:
    """Every client, the oldest first."""
    order = (OAUTH_CLIENTS.c.created_at, OAUTH_CLIENTS.c.id)
    return [ClientRow(**row) for row in reader.core.execute(select(OAUTH_CLIENTS).order_by(*order)).mappings()]


def keys(reader: Reader) -> list[SigningKeyRow]:
    """Every key, the oldest first."""
    order = (OAUTH_KEYS.c.signs_from, OAUTH_KEYS.c.kid)
    return [SigningKeyRow(**row) for row in reader.core.execute(select(OAUTH_KEYS).order_by(*order)).mappings()]


def spent(reader: Reader, kind: str) -> list[SpentRow]:
    """What is spent of one kind."""
    query = select(OAUTH_SPENT).where(_S.kind == kind)
    return [SpentRow(**row) for row in reader.core.execute(query).mappings()]
