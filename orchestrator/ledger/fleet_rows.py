"""What the ledger remembers of the fleet itself: who leads, nodes, affinity, pauses, dead letters' fate.

All of it is rare beside calls, so each is one small operation of its own. Refuses to interpret any of
it: `orchestrator/registry` and `orchestrator/dispatch` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import bindparam, delete, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.tables import AFFINITY, DEAD_LETTERS, EPOCH, NODES, PAUSES
from orchestrator.ledger.transaction import Hot, Tx
from orchestrator.ledger.values import NodeRow

_E = EPOCH.c
_ONLY = _E.id == literal_column("1")
_LEADER = Hot(select(_E.epoch, _E.holder, _E.expires_at).where(_ONLY).with_for_update())
_LEAD = Hot(
    update(EPOCH)
    .where(_ONLY)
    .values(epoch=bindparam("p_epoch"), holder=bindparam("p_holder"), expires_at=bindparam("p_expires_at"))
)
_RENEW = Hot(
    update(EPOCH)
    .where(_ONLY, _E.holder == bindparam("p_holder"), _E.epoch == bindparam("p_epoch"))
    .values(expires_at=bindparam("p_expires_at"))
)

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


def take_epoch(tx: Tx, holder: str, now: float, ttl_s: float) -> int | None:
    """Lead, unless another holder's lease is good. The epoch grows by one whenever the holder changes.

    Two clocks decide here, so the lease only spares a fight: what keeps two leaders apart is the
    epoch, which every release compares.
    """
    epoch, leader, expires_at = tx.all(_LEADER, {})[0]
    if leader != holder:
        if leader is not None and expires_at > now:
            return None
        epoch += 1
    tx.put(_LEAD, [{"p_epoch": epoch, "p_holder": holder, "p_expires_at": now + ttl_s}])
    return int(epoch)


def renew_epoch(tx: Tx, holder: str, epoch: int, now: float, ttl_s: float) -> bool:
    """Lead on. False once another holder took over; a lapsed lease that nobody took is good again."""
    return bool(tx.counts(_RENEW, [{"p_holder": holder, "p_epoch": epoch, "p_expires_at": now + ttl_s}])[0])


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
