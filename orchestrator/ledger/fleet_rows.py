"""What the ledger remembers of the fleet itself: who leads, nodes, affinity, pauses, dead letters' fate.

All of it is rare beside calls, so each is one small operation of its own. Refuses to interpret any of
it: `orchestrator/registry` and `orchestrator/dispatch` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Double, bindparam, delete, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.dbtime import database_time
from orchestrator.ledger.tables import AFFINITY, DEAD_LETTERS, EPOCH, NODES, PAUSES
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import NodeRow

_E = EPOCH.c
_ONLY = _E.id == literal_column("1")
_NOW, _ENDS = database_time(), database_time() + bindparam("p_ttl_s", type_=Double())
# FOR SHARE, where the database has it: nobody takes the epoch between this and the commit.
CURRENT = Hot(select(_E.epoch).where(_ONLY).with_for_update(read=True))
_LEADER = Hot(select(_E.epoch, _E.holder, _E.expires_at > _NOW).where(_ONLY).with_for_update())
_LEAD = Hot(
    update(EPOCH)
    .where(_ONLY)
    .values(epoch=bindparam("p_epoch"), holder=bindparam("p_holder"), expires_at=_ENDS, address=bindparam("p_address"))
)
_RENEW = Hot(
    update(EPOCH)
    .where(_ONLY, _E.holder == bindparam("p_holder"), _E.epoch == bindparam("p_epoch"))
    .values(expires_at=_ENDS)
)
_ADDRESS = Hot(select(_E.address).where(_ONLY, _E.expires_at > _NOW))

_NODE_COLUMNS = tuple(column.name for column in NODES.columns)
_node = insert(NODES)
_SAVE_NODE = Hot(
    _node.on_conflict_do_update(
        index_elements=["name"], set_={name: _node.excluded[name] for name in _NODE_COLUMNS if name != "name"}
    ).inline(),
    _NODE_COLUMNS,
)
_FORGET_NODE = Hot(delete(NODES).where(NODES.c.name == bindparam("p_name")))

_bind = insert(AFFINITY)
_BIND = Hot(
    _bind.on_conflict_do_update(
        index_elements=["project"], set_={"node": _bind.excluded.node, "expires_at": _bind.excluded.expires_at}
    ).inline(),
    ("project", "node", "expires_at"),
)
_FADE = Hot(delete(AFFINITY).where(AFFINITY.c.expires_at <= bindparam("p_now")))

_PAUSE = Hot(insert(PAUSES).on_conflict_do_nothing().inline(), ("kind", "name"))
_RESUME = Hot(delete(PAUSES).where(PAUSES.c.kind == bindparam("p_kind"), PAUSES.c.name == bindparam("p_name")))

_D = DEAD_LETTERS.c
_DISCARD = Hot(delete(DEAD_LETTERS).where(_D.invocation_id == bindparam("p_id")))


def current_epoch(tx: Tx) -> int:
    """Who leads now; it stays so until this transaction ends."""
    return int(tx.all(CURRENT, {})[0][0])


def take_epoch(tx: Tx, holder: str, ttl_s: float, address: str | None) -> int | None:
    """Lead, unless another holder's lease is good. The epoch grows by one whenever the holder changes.

    The database's clock decides, so replicas need not agree on the time.
    """
    epoch, leader, is_good = tx.all(_LEADER, {})[0]
    if leader != holder:
        if leader is not None and is_good:
            return None
        epoch += 1
    tx.put(_LEAD, [{"p_epoch": epoch, "p_holder": holder, "p_ttl_s": ttl_s, "p_address": address}])
    return int(epoch)


def renew_epoch(tx: Tx, holder: str, epoch: int, ttl_s: float) -> bool:
    """Lead on. False once another holder took over; a lapsed lease that nobody took is good again."""
    return bool(tx.counts(_RENEW, [{"p_holder": holder, "p_epoch": epoch, "p_ttl_s": ttl_s}])[0])


def leader_address(tx: Tx) -> str | None:
    """Where the one is whose lease is good."""
    found = tx.all(_ADDRESS, {})
    return found[0][0] if found else None


def save_node(tx: Tx, row: NodeRow) -> None:
    """Insert or replace one node."""
    tx.put(_SAVE_NODE, [asdict(row)])


def forget_node(tx: Tx, name: str) -> None:
    """Delete one node; its attempts stay in the history."""
    tx.put(_FORGET_NODE, [{"p_name": name}])


def bind_affinity(tx: Tx, bindings: Sequence[tuple[str, str, float]], now: float) -> None:
    """Save project → node bindings, and drop those that faded."""
    tx.put(_BIND, [{"project": project, "node": node, "expires_at": at} for project, node, at in bindings])
    tx.put(_FADE, [{"p_now": now}])


def set_paused(tx: Tx, kind: str, name: str, *, is_paused: bool) -> None:
    """Pause or resume; saying it twice is the same as once."""
    if is_paused:
        tx.put(_PAUSE, [{"kind": kind, "name": name}])
    else:
        tx.put(_RESUME, [{"p_kind": kind, "p_name": name}])


def discard_dead(tx: Tx, ids: Sequence[str]) -> int:
    """Delete dead letters, not their Invocations; how many there were."""
    return sum(tx.counts(_DISCARD, [{"p_id": one} for one in ids]))
