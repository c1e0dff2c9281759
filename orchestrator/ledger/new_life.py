"""What a ledger needs that was put back from a backup, before anybody may lead on it.

The fleet went on after the backup, and this ledger does not know how: calls that wait here may have run, attempts
that are open here have ended and were forgotten by their nodes. Read as it stands, two inventories would disown such
an attempt, which says that it surely never started, and it would run twice. So everything that could be mistaken is
moved out of reach, in one transaction:

* the *epoch*, the *fences* and the nodes' *terms* jump further than the lost time can have taken them. What a node,
  a queue or a stream still says of that time names a fence, a term or an epoch that is over, and is refused;
* what may have run is *unreachable*, at a node that never joins: after the usual grace it becomes what its tool
  declared for the loss of a node (`orchestrator/settling/verdict.py`);
* nodes are lost until they renew or join again.

Source: docs/adr/0030-kubernetes-backup-upgrade.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, RowMapping, and_, bindparam, func, insert, or_, select, update

from orchestrator.ledger.audit_rows import ascending
from orchestrator.ledger.audit_values import AuditHead, Link
from orchestrator.ledger.rows import dumps, is_chained
from orchestrator.ledger.tables import ATTEMPTS, AUDIT, EPOCH, INVOCATIONS, NODES
from tasks.invocation import OUTSTANDING, State
from tasks.node import NodeState, Offer
from tasks.tool import UNDECLARED, Declared, OnNodeLoss

JUMP = 1 << 20
"""Added to epoch, terms and fences. A call is released again every few seconds at the most, so the lost time would
have to be weeks for a fence of it to be used again; and 2,000 restores fit into the column."""
RESTORED = "(restored)"
"""The node of what may have run: no node can have this name."""
RESTORED_CODE = "ledger_restored"
RESTORED_MESSAGE = "the ledger was restored from a backup, and whether this call ran since then nobody knows"
PAGE = 1000
_C, _A, _E, _N = INVOCATIONS.c, ATTEMPTS.c, EPOCH.c, NODES.c


@dataclass(frozen=True, slots=True)
class NewLife:
    """What was done, in numbers.

    Attributes:
        epoch: above every one that was.
        doubtful: calls that may have run since the backup.
        waiting: calls that go on waiting: they cannot have run, or somebody said that they did not.
        nodes: that have to show up again.
    """

    epoch: int
    doubtful: int
    waiting: int
    nodes: int


def begin_anew(
    connection: Connection, *, epoch: int, at: float, link: Callable[[NewLife], Link], is_waiting_run: bool
) -> NewLife:
    """Change the rows, within the caller's transaction.

    Args:
        connection: of the restored ledger, at the newest schema; nobody else may write.
        epoch: of the backup.
        at: wall clock.
        link: makes the rows of the audit log that say so.
        is_waiting_run: nothing ran since the backup, says whoever restores: what waits runs, whatever its tool.
    """
    outstanding = _C.state.in_(sorted(OUTSTANDING))
    due = and_(_C.state == State.WAITING.value, or_(_C.not_before.is_(None), _C.not_before <= at))
    declared = _declared(connection)
    doubtful = 0
    for page in _pages(connection, outstanding if is_waiting_run else or_(outstanding, due)):
        _doubt(connection, page, declared, at)
        doubtful += len(page)
    waiting = connection.execute(
        update(INVOCATIONS).where(_C.state == State.WAITING.value).values(fence=_C.fence + JUMP)
    ).rowcount
    nodes = connection.execute(update(NODES).values(state=NodeState.LOST.value, term=_N.term + JUMP)).rowcount
    life = NewLife(_lead_by_nobody(connection, epoch), doubtful, waiting, nodes)
    _note(connection, link(life), life.epoch)
    return life


def _declared(connection: Connection) -> Mapping[str, Declared]:
    """What the nodes of the backup agree on, by tool."""
    said: dict[str, list[Declared]] = {}
    for text in connection.scalars(select(_N.offer_json)):
        try:
            offer = Offer.model_validate_json(text)
        except ValidationError:  # of a version whose offers differ: its tools count as undeclared
            continue
        for tool in offer.tools:
            said.setdefault(tool.name, []).append(tool.declared)
    return {name: reduce(Declared.stricter, several) for name, several in said.items()}


def _pages(connection: Connection, where: Any) -> Iterator[Sequence[RowMapping]]:  # noqa: ANN401 - a condition of SQL
    own = and_(_A.invocation_id == _C.id, _A.fence == _C.fence)
    query = select(
        _C.seq, _C.id, _C.fence, _C.state, _C.tool, _C.lane, _C.rest_json, _C.pool.label("wanted_pool"),
        _A.pool, _A.is_safe, _A.on_node_loss,
    ).outerjoin_from(INVOCATIONS, ATTEMPTS, own).order_by(_C.seq).limit(PAGE)  # fmt: skip
    after = 0
    while page := connection.execute(query.where(where, _C.seq > after)).mappings().all():
        yield page
        after = page[-1]["seq"]


def _doubt(connection: Connection, page: Sequence[RowMapping], declared: Mapping[str, Declared], at: float) -> None:
    """The open attempts are over; each call has a new one, at the node that never joins."""
    connection.execute(
        update(ATTEMPTS)
        .where(_A.invocation_id == bindparam("p_id"), _A.fence == bindparam("p_fence"), _A.ended_at.is_(None))
        .values(ended_at=at, ending="superseded"),
        [{"p_id": row["id"], "p_fence": row["fence"]} for row in page],
    )
    connection.execute(insert(ATTEMPTS), [_attempt(row, declared, at) for row in page])
    connection.execute(
        update(INVOCATIONS)
        .where(_C.id == bindparam("p_id"))
        .values(state=State.UNREACHABLE.value, fence=_C.fence + JUMP, node=RESTORED),
        [{"p_id": row["id"]} for row in page],
    )


def _attempt(row: RowMapping, declared: Mapping[str, Declared], at: float) -> dict[str, object]:
    rule = _rule(row, declared)
    return {
        "invocation_id": row["id"],
        "fence": row["fence"] + JUMP,
        "node": RESTORED,
        "term": 0,
        "pool": row["pool"] or row["wanted_pool"] or "",
        "lane": row["lane"],
        "queue": "",
        "released_at": at,
        "started_at": at,  # for all that is known
        "reasons_json": dumps((RESTORED_MESSAGE,)),
        "is_safe": rule.is_safe,
        "on_node_loss": rule.on_node_loss.value,
    }


def _rule(row: RowMapping, declared: Mapping[str, Declared]) -> Declared:
    """As it was released; what waited, as its tool is offered. A chain's later calls may have run as well."""
    if is_chained(row["rest_json"]):
        return UNDECLARED
    if row["state"] == State.WAITING.value:
        return declared.get(row["tool"], UNDECLARED)
    if row["on_node_loss"] is None:
        return UNDECLARED
    return Declared(bool(row["is_safe"]), OnNodeLoss(row["on_node_loss"]))


def _lead_by_nobody(connection: Connection, epoch: int) -> int:
    """The row that whoever leads has to take; a PostgreSQL ledger that is being put back has none until now."""
    connection.execute(EPOCH.delete())
    connection.execute(insert(EPOCH).values(id=1, epoch=epoch + JUMP, holder=None, expires_at=0.0, address=None))
    return epoch + JUMP


def _note(connection: Connection, link: Link, epoch: int) -> None:
    last = connection.scalar(select(func.max(AUDIT.c.seq)))
    head = None
    if last is not None:
        (newest,) = ascending(connection, last - 1, 1)
        head = AuditHead(newest.seq, newest.hash)
    connection.execute(insert(AUDIT), [asdict(row) for row in link(head, epoch)])
