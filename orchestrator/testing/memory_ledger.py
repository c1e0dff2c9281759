"""A ledger in memory that keeps the real one's conditions, for runs of thousands of short histories.

Satisfies what the core needs of `orchestrator.ledger.ledger.Ledger`. `flaws` leaves out single
conditions, to see that the model of the protocol notices. Refuses to be durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from orchestrator.ledger.approval_values import ApprovalRow
from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.moves import settle_sources
from orchestrator.ledger.values import (
    Booking,
    ClaimRow,
    EnrolmentRow,
    NewInvocation,
    NodeRow,
    Outstanding,
    Release,
    Released,
    ScalePoolRow,
    Settled,
    Settlement,
    Started,
    Waiting,
)
from orchestrator.settling.waiting import as_waiting
from orchestrator.testing.audit import MemoryBook
from tasks.invocation import OUTSTANDING, Attempt, Invocation, State
from tasks.spend import Spent

Ref = tuple[str, int]


class LedgerFlaw(Enum):
    """A condition that is left out."""

    SETTLE_WITHOUT_FENCE = auto()
    RELEASE_WITHOUT_EPOCH = auto()


@dataclass(slots=True)
class Row:
    """One Invocation, and what its current attempt was released with."""

    invocation: Invocation
    release: Release | None = None
    started_at: float | None = None
    settled: list[Settlement] = field(default_factory=list)
    """Every settlement that took, for the books to be checked."""


class MemoryLedger:
    """The rows, and the compare-and-sets on them."""

    def __init__(self, flaws: frozenset[LedgerFlaw] = frozenset()) -> None:
        self.rows: dict[str, Row] = {}
        self.epoch = 0
        self._flaws = flaws
        self._nodes: dict[str, NodeRow] = {}
        self.audit = MemoryBook()

    def lead(self) -> int:
        """A new leader."""
        self.epoch += 1
        return self.epoch

    async def accept(self, rows: Sequence[NewInvocation]) -> None:
        """New rows; ids are new."""
        self.rows |= {row.invocation.id: Row(row.invocation) for row in rows}

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation:  # noqa: ARG002 - the real signature
        """One row."""
        return self.rows[invocation_id].invocation

    async def outstanding(self) -> list[Outstanding]:
        """Every open attempt."""
        return [_outstanding(row) for row in self.rows.values() if row.invocation.state in OUTSTANDING]

    async def waiting(self, *, after: str | None, limit: int) -> list[Waiting]:
        """Everything that waits, in pages."""
        ids = sorted(key for key in self.rows if after is None or key > after)
        rows = (self.rows[key].invocation for key in ids)
        return [as_waiting(one) for one in rows if one.state is State.WAITING][:limit]

    async def release(self, wanted: Sequence[Release], epoch: int) -> list[Released | None]:
        """Waiting → released, at the expected fence, by the leader."""
        if epoch != self.epoch and LedgerFlaw.RELEASE_WITHOUT_EPOCH not in self._flaws:
            raise EpochLost(epoch, self.epoch)
        return [self._release(one) for one in wanted]

    async def mark_started(self, started: Sequence[Started]) -> None:
        """Released or unreachable → running."""
        for one in started:
            row = self.rows[one.invocation_id]
            is_open = row.invocation.state in {State.RELEASED, State.UNREACHABLE}
            if is_open and row.invocation.fence == one.fence and row.release and row.release.node == one.node:
                row.invocation = replace(row.invocation, state=State.RUNNING)
                row.started_at = row.started_at or one.at

    async def settle(self, wanted: Sequence[Settlement]) -> list[Settled]:
        """The end of attempts."""
        return [self._settle(one) for one in wanted]

    async def read(self, _question: Callable[..., Any]) -> list[Any]:
        """No small tables here."""
        return []

    async def book(self, wanted: Sequence[Booking]) -> list[Spent]:
        """No money here."""
        return [() for _ in wanted]

    async def expire(self, ids: Sequence[str], at: float) -> list[str]:  # noqa: ARG002 - the real signature
        """Nothing here has a deadline."""
        return []

    async def open_approvals(self) -> list[ApprovalRow]:
        """Nobody asks here."""
        return []

    async def enrolments(self) -> list[EnrolmentRow]:
        """None."""
        return []

    async def claims(self) -> list[ClaimRow]:
        """None."""
        return []

    async def scale_pools(self) -> list[ScalePoolRow]:
        """None."""
        return []

    async def nodes(self) -> list[NodeRow]:
        """What is remembered of nodes."""
        return list(self._nodes.values())

    async def save_node(self, row: NodeRow) -> None:
        """Remember a node."""
        self._nodes[row.name] = row

    async def forget_node(self, name: str) -> None:
        """It left."""
        self._nodes.pop(name, None)

    async def affinities(self) -> list[tuple[str, str, float]]:
        """None."""
        return []

    async def paused(self) -> list[tuple[str, str]]:
        """Nothing."""
        return []

    def _release(self, one: Release) -> Released | None:
        row = self.rows[one.invocation_id]
        invocation = row.invocation
        if invocation.state is not State.WAITING or invocation.fence != one.expected_fence:
            return None
        fence = one.expected_fence + 1
        attempt = Attempt(
            invocation.id, fence, one.node, one.incarnation, one.pool, one.lane, one.queue, one.at, reasons=one.reasons
        )
        row.invocation = replace(
            invocation, state=State.RELEASED, fence=fence, attempts=(*invocation.attempts, attempt)
        )
        row.release, row.started_at = one, None
        call, who = invocation.call, invocation.principal
        return Released(
            invocation.id, fence, call.tool, "{}", None, None, who.tenant, None, None, None, None, invocation.tries
        )

    def _settle(self, one: Settlement) -> Settled:
        row = self.rows[one.invocation_id]
        invocation = row.invocation
        is_current = invocation.fence == one.fence and (
            one.node is None or (row.release is not None and row.release.node == one.node)
        )
        if LedgerFlaw.SETTLE_WITHOUT_FENCE in self._flaws:
            is_current = True
        if not is_current or invocation.state not in settle_sources(one.to):
            return Settled(one.invocation_id, one.fence, took=False, state=invocation.state)
        row.settled.append(one)
        tries = invocation.tries + one.counts_try
        row.invocation = replace(invocation, state=one.to, tries=tries, outcome=one.outcome)
        if one.to is not State.UNREACHABLE:
            code = one.error.code if one.error else None
            last = replace(invocation.attempts[-1], ending=one.attempt_ending, ended_at=one.at, error_code=code)
            row.invocation = replace(row.invocation, attempts=(*invocation.attempts[:-1], last))
        return Settled(one.invocation_id, one.fence, took=True, state=one.to)


class FencedLedger:
    """The same ledger as one leader writes to it: nothing, once another leads."""

    _WRITES = frozenset({"accept", "mark_started", "settle", "book", "expire", "save_node", "forget_node"})
    """`release` names its epoch itself."""

    def __init__(self, ledger: MemoryLedger, epoch: int) -> None:
        self._ledger, self._epoch = ledger, epoch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the ledger has
        found = getattr(self._ledger, name)
        return self._fenced(found) if name in self._WRITES else found

    def _fenced(self, write: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def fenced(*given: Any, **more: Any) -> Any:  # noqa: ANN401 - as above
            if self._epoch != self._ledger.epoch:
                raise EpochLost(self._epoch, self._ledger.epoch)
            return await write(*given, **more)

        return fenced


def _outstanding(row: Row) -> Outstanding:
    invocation, release = row.invocation, row.release
    assert release is not None, "only a release makes an Invocation outstanding"
    return Outstanding(
        invocation_id=invocation.id,
        fence=invocation.fence,
        node=release.node,
        incarnation=release.incarnation,
        term=release.term,
        pool=release.pool,
        lane=release.lane,
        tool=invocation.call.tool,
        project=None,
        state=invocation.state,
        released_at=release.at,
        started_at=row.started_at,
        expires_at=None,
        cancel_requested=False,
        tries=invocation.tries,
        declared=release.declared,
    )
