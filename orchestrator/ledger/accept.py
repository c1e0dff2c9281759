"""Accepting: new rows, or the rows that already stand for the same calls.

Owns idempotency, and the link from a dead letter to its replay. One set of rows is accepted whole or
refused whole, and a refused set leaves its neighbours in the same commit alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, false, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from orchestrator.ledger.rows import NEW, new_row
from orchestrator.ledger.tables import DEAD_LETTERS, INVOCATIONS
from orchestrator.ledger.transaction import Found, Hot, Tx
from orchestrator.ledger.values import Accepted, NewInvocation
from tasks.errors import FleetError, IdempotencyConflict, SpawnLimit, WrongState
from tasks.invocation import State

_C = INVOCATIONS.c
_INSERT = Hot(
    insert(INVOCATIONS)
    .values(
        {name: bindparam(f"{name}", type_=_C[name].type) for name in NEW}
        | {
            "state": literal_column(f"'{State.WAITING.value}'"),
            "fence": literal_column("0"),
            "tries": literal_column("0"),
            "cancel_requested": false(),
        }
    )
    .on_conflict_do_nothing()
    .inline()
)
_DESCENDANTS = Hot(select(func.count()).select_from(INVOCATIONS).where(_C.root == bindparam("p_root")))
_DELETE = Hot(delete(INVOCATIONS).where(_C.id == bindparam("p_id")))
_REPLAYED = Hot(
    update(DEAD_LETTERS)
    .where(DEAD_LETTERS.c.invocation_id == bindparam("p_id"))
    .values(replayed_as=bindparam("p_replayed_as"))
)
_STANDING = Hot(
    select(_C.id, _C.tenant, _C.call_digest).where(
        or_(
            _C.id == bindparam("p_id"),
            (_C.tenant == bindparam("p_tenant")) & (_C.idempotency_key == bindparam("p_key")),
        )
    )
)


def accept(tx: Tx, sets: Sequence[Sequence[NewInvocation]]) -> list[list[Accepted] | FleetError]:
    """Accept several callers' sets in one transaction.

    All rows go in at once, which is enough unless a key or an id is known already. Then what went in
    is taken out again and the sets are looked at one by one, in order: a set that is refused must not
    leave a row behind that a later set was told to share.
    """
    rows = [new for one in sets for new in one]
    has_parents = any(new.invocation.root is not None for new in rows)
    for new in rows:
        if new.invocation.state is not State.WAITING:
            raise WrongState(new.invocation.id, new.invocation.state, State.WAITING)
    if not has_parents and _insert(tx, rows):
        _link_replays(tx, rows)
        return [[Accepted(new.invocation.id, is_new=True) for new in one] for one in sets]
    return [_accept_set(tx, one) for one in sets]


def insert_successors(tx: Tx, rows: Sequence[NewInvocation]) -> list[str]:
    """Insert what follows a settled Invocation; the ids that were known already, and so left out.

    Never refuses: a settlement that could not take because of its successor would be sent for ever.
    """
    counts = tx.counts(_INSERT, [new_row(new) for new in rows])
    return [new.invocation.id for new, count in zip(rows, counts, strict=True) if not count]


def _insert(tx: Tx, rows: Sequence[NewInvocation]) -> bool:
    """Whether every row went in. If not, none did."""
    counts = tx.counts(_INSERT, [new_row(new) for new in rows])
    if all(counts):
        return True
    _take_out(tx, [new.invocation.id for new, count in zip(rows, counts, strict=True) if count])
    return False


def _accept_set(tx: Tx, rows: Sequence[NewInvocation]) -> list[Accepted] | FleetError:
    accepted: list[Accepted] = []
    for new in rows:
        answer = _accept_one(tx, new)
        if isinstance(answer, Accepted) and answer.is_new and (storm := _storm(tx, new)) is not None:
            _take_out(tx, [new.invocation.id])
            answer = storm
        if isinstance(answer, FleetError):
            _take_out(tx, [done.invocation_id for done in accepted if done.is_new])
            return answer
        accepted.append(answer)
    _link_replays(tx, [new for new, answer in zip(rows, accepted, strict=True) if answer.is_new])
    return accepted


def _link_replays(tx: Tx, rows: Sequence[NewInvocation]) -> None:
    """In the same commit as the new row: a letter that looks unanswered would be replayed again."""
    replays = [new.invocation for new in rows if new.invocation.replay_of is not None]
    if replays:
        tx.put(_REPLAYED, [{"p_id": one.replay_of, "p_replayed_as": one.id} for one in replays])


def _accept_one(tx: Tx, new: NewInvocation) -> Accepted | FleetError:
    if tx.counts(_INSERT, [new_row(new)])[0]:
        return Accepted(new.invocation.id, is_new=True)
    key, tenant = new.invocation.call.idempotency_key, new.invocation.principal.tenant
    standing = tx.all(_STANDING, {"p_id": new.invocation.id, "p_tenant": tenant, "p_key": key})
    others = [found for found in standing if found[1:] != (tenant, new.call_digest)]
    if others:
        return IdempotencyConflict(key or new.invocation.id, _shown_id(others[0], tenant, new))
    return Accepted(standing[0][0], is_new=False)


def _storm(tx: Tx, new: NewInvocation) -> SpawnLimit | None:
    """Counted with the row in, in the transaction that would keep it: callers at once do not all slip through."""
    root, limit = new.invocation.root, new.descendants_max
    if root is None or limit is None:
        return None
    count = tx.all(_DESCENDANTS, {"p_root": root})[0][0]
    if count <= limit:
        return None
    return SpawnLimit(root, f"led to {limit} others already", limit, "MCPFLEET_SPAWN_DESCENDANTS")


def _shown_id(found: Found, tenant: str, new: NewInvocation) -> str:
    """The id in the refusal: never another tenant's, unless the caller named it himself."""
    return str(found[0]) if found[1] == tenant else new.invocation.id


def _take_out(tx: Tx, ids: Sequence[str]) -> None:
    tx.put(_DELETE, [{"p_id": one} for one in ids])
