"""The ledger: every Invocation, durable, with its attempts and its end.

The façade that the rest of the orchestrator sees. Owns no rule: each method hands an operation to
the writer (`commit.py`) or a question to the readers (`readers.py`). docs/ledger.md draws the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self, TypeVar, cast

from orchestrator.ledger import approval_rows, database, dead_reads, fleet_rows, reads, scale_rows, schema, spend
from orchestrator.ledger import cancel as ends
from orchestrator.ledger.accept import accept
from orchestrator.ledger.approval_values import ApprovalRow, NewAnswer, NewApproval
from orchestrator.ledger.audit_rows import AuditBook
from orchestrator.ledger.capsules import keep_capsules
from orchestrator.ledger.commit import GroupCommit, Kind
from orchestrator.ledger.dead_values import EVERY, DeadCount, DeadFilter, DeadLetter
from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.oauth_books import OAuthBooks
from orchestrator.ledger.purge import purge
from orchestrator.ledger.readers import Reader, Readers
from orchestrator.ledger.release import Claim, Releases, claim, mark_started, release
from orchestrator.ledger.settle import settle
from orchestrator.ledger.transaction import Tx
from orchestrator.ledger.values import (
    Accepted,
    Booking,
    Cancelled,
    CapsuleKept,
    CapsuleSaved,
    ClaimRow,
    Cost,
    CostsQuery,
    EnrolmentRow,
    Filter,
    NewInvocation,
    NodeRow,
    Outstanding,
    Purge,
    Purged,
    Release,
    Released,
    ScaleLogRow,
    ScalePoolRow,
    Settled,
    Settlement,
    SpendRow,
    Started,
    Waiting,
)
from tasks.approval import ApprovalState, Taken
from tasks.clock import Clock
from tasks.errors import FleetError, LedgerDown
from tasks.invocation import Invocation
from tasks.spend import Spent

BUSY_TIMEOUT_S = 5.0
"""Seconds that SQLite waits for another process's lock before the ledger counts as down."""

T = TypeVar("T")
_Small = Callable[[Tx], object]


def _run_small(tx: Tx, operations: Sequence[_Small]) -> list[object]:
    """Rare operations, one after the other; they may refuse only before they wrote."""
    return [_answer(tx, operation) for operation in operations]


def _answer(tx: Tx, operation: _Small) -> object:
    try:
        return operation(tx)
    except FleetError as refusal:
        return refusal


def _superseded(epoch: int, tx: Tx) -> FleetError | None:
    current = fleet_rows.current_epoch(tx)
    return None if current == epoch else EpochLost(epoch, current)


_ACCEPT = Kind("accept", accept)
_RELEASE = Kind("release", release)
_CLAIM = Kind("claim", claim)
_STARTED = Kind("mark_started", mark_started)
_SETTLE = Kind("settle", settle)
_SMALL: Kind[_Small, object] = Kind("other", _run_small)
_ORDER = (_ACCEPT, _RELEASE, _CLAIM, _STARTED, _SETTLE, _SMALL)
"""As one call lives, so that operations of one turn that build on another find it done."""


class Ledger:
    """Made by `open`, on the event loop that uses it."""

    def __init__(self, *, writer: GroupCommit, readers: Readers, clock: Clock) -> None:
        self._writer = writer
        self._readers = readers
        self._clock = clock
        self.oauth = OAuthBooks(self._small, readers.run, clock)
        self.audit = AuditBook(self._small, readers)

    @classmethod
    async def open(cls, url: str, *, clock: Clock, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Self:
        """Connect, bring the schema to its newest version, start the writer.

        Args:
            url: `sqlite:///PATH` or `postgresql://…`.
            clock: its wall clock times affinity.
            busy_timeout_s: how long SQLite waits for another process's lock.

        Raises:
            LedgerDown: the database does not answer.
            SettingsError: the URL is wrong.
            SchemaTooNew: a newer version wrote this database.
        """
        found = database.connect(url, busy_timeout_s=busy_timeout_s)
        try:
            await asyncio.to_thread(schema.migrate, found)
        except Exception as error:
            if found.is_down(error):
                raise LedgerDown(str(error).strip().partition("\n")[0]) from error
            raise
        return cls(writer=GroupCommit(found, _ORDER), readers=Readers(found), clock=clock)

    async def close(self) -> None:
        """Commit what was submitted, then let go of the database. Later calls raise LedgerDown."""
        await self._writer.close()
        await self._readers.close()

    async def accept(self, rows: Sequence[NewInvocation]) -> list[Accepted]:
        """Make the calls durable, all of them or none. A repeated key gives the row that stands.

        Raises:
            IdempotencyConflict: a key, or a caller's id, stands for another call.
        """
        return await self._writer.submit(_ACCEPT, tuple(rows))

    async def take_epoch(self, holder: str, ttl_s: float, address: str | None = None) -> int | None:
        """Lead for `ttl_s`, with doors at `address`; None while another holder's lease is good."""
        return await self._small(lambda tx: fleet_rows.take_epoch(tx, holder, ttl_s, address))

    async def renew_epoch(self, holder: str, epoch: int, ttl_s: float) -> bool:
        """Lead on; False once another holder took over."""
        return await self._small(lambda tx: fleet_rows.renew_epoch(tx, holder, epoch, ttl_s))

    async def leader_address(self) -> str | None:
        """Where the leader's doors are, while its lease is good."""
        return await self._readers.run(lambda reader: fleet_rows.leader_address(reader.tx))

    def fence(self, epoch: int) -> None:
        """From now on every write fails with EpochLost unless this epoch is current.

        A leader that has been superseded without noticing would otherwise accept, cancel or settle
        what its successor, which read everything when it took over, never hears of.
        """
        self._writer.guard = partial(_superseded, epoch)

    async def release(self, wanted: Sequence[Release], epoch: int) -> list[Released | None]:
        """Move waiting → released, with a new attempt; None where the Invocation moved meanwhile.

        Raises:
            EpochLost: another orchestrator leads; nothing was released.
        """
        return await self._writer.submit(_RELEASE, Releases(tuple(wanted), epoch))

    async def mark_started(self, started: Sequence[Started]) -> None:
        """Move released or unreachable → running, where fence and node are current."""
        await self._writer.submit(_STARTED, tuple(started))

    async def claim(
        self, node: str, incarnation: str, term: int, refs: Sequence[tuple[str, int]]
    ) -> list[tuple[str, int]]:
        """Bind late-bound attempts, (id, fence) each, to a node; those that are its own now."""
        return await self._writer.submit(_CLAIM, Claim(node, incarnation, term, tuple(refs)))

    async def settle(self, wanted: Sequence[Settlement]) -> list[Settled]:
        """End attempts, exactly once each. WAITING becomes CANCELLED where a cancel was asked for."""
        return await self._writer.submit(_SETTLE, tuple(wanted))

    async def keep_capsules(self, wanted: Sequence[CapsuleSaved]) -> list[CapsuleKept]:
        """Note what was saved of sessions, of current attempts alone; whether each took."""
        asked = tuple(wanted)
        return await self._small(lambda tx: keep_capsules(tx, asked))

    async def cancel(self, invocation_id: str, tenant: str | None, at: float) -> Cancelled:
        """End what waits, ask what is outstanding to stop.

        Raises:
            NotFound: no such Invocation of this tenant.
        """
        return await self._small(lambda tx: ends.cancel(tx, invocation_id, tenant, at))

    async def expire(self, ids: Sequence[str], at: float) -> list[str]:
        """End what waits past its deadline, with a dead letter; the ids that took."""
        wanted = tuple(ids)
        return await self._small(lambda tx: ends.expire(tx, wanted, at))

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation:
        """One Invocation with outcome and attempts.

        Raises:
            NotFound: no such Invocation of this tenant.
        """
        return await self._readers.run(partial(reads.get, invocation_id=invocation_id, tenant=tenant))

    async def arguments_of(self, invocation_id: str) -> tuple[str | None, str | None]:
        """JSON text or blob reference of its arguments.

        Raises:
            NotFound: no such Invocation.
        """
        return await self._readers.run(partial(reads.arguments_of, invocation_id=invocation_id))

    async def listing(
        self, where: Filter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Invocation], str | None]:
        """A page, newest first, without arguments and results, and the next page's cursor."""
        return await self._readers.run(partial(reads.listing, where=where, cursor=cursor, limit=limit))

    async def waiting(self, *, after: str | None = None, limit: int = 1000) -> list[Waiting]:
        """A page of what waits, in the order of acceptance; `after` is the last id of the page before."""
        return await self._readers.run(partial(reads.waiting, after=after, limit=limit))

    async def outstanding(self) -> list[Outstanding]:
        """Every attempt that was released and not settled."""
        return await self._readers.run(reads.outstanding)

    async def dead_letters(
        self, *, tenant: str | None, where: DeadFilter = EVERY, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[DeadLetter], str | None]:
        """A page of what ended badly, newest first, and the next page's cursor."""
        return await self._readers.run(
            partial(dead_reads.dead_letters, tenant=tenant, where=where, cursor=cursor, limit=limit)
        )

    async def dead_counts(self, tenant: str | None, where: DeadFilter = EVERY) -> list[DeadCount]:
        """How many there are of each reason."""
        return await self._readers.run(partial(dead_reads.dead_counts, tenant=tenant, where=where))

    async def dead_count(self) -> int:
        """Dead letters that nobody replayed or discarded."""
        return await self._readers.run(dead_reads.dead_count)

    async def discard_dead(self, ids: Sequence[str]) -> int:
        """Delete dead letters, not their Invocations; how many there were."""
        wanted = tuple(ids)
        return await self._small(lambda tx: fleet_rows.discard_dead(tx, wanted))

    async def purge(self, wanted: Purge) -> Purged:
        """Forget a slice of what ended long ago, with attempts and dead letters."""
        return await self._small(lambda tx: purge(tx, wanted))

    async def blob_references(self, *, after: int, limit: int) -> tuple[list[str], int | None]:
        """Digests that rows refer to, after the row with number `after`; and where the next page begins."""
        return await self._readers.run(partial(reads.blob_references, after=after, limit=limit))

    async def ask_approval(self, asked: NewApproval) -> tuple[ApprovalRow | None, bool]:
        """Keep a question of a current attempt; the row that stands, and whether it is new. None: superseded."""
        return await self._small(lambda tx: approval_rows.ask(tx, asked))

    async def answer_approval(
        self, approval_id: str, tenant: str | None, answer: NewAnswer
    ) -> tuple[ApprovalRow, bool]:
        """Keep an answer; the row as it is now, and whether this was the first.

        Raises:
            NotFound, OtherArguments, AlreadyAnswered, ApprovalOver
        """
        return await self._small(lambda tx: approval_rows.answer(tx, approval_id, tenant, answer))

    async def take_approval(self, approval_id: str, node: str, taken: Taken, at: float) -> None:
        """Keep what its node made of it; the first word stands."""
        await self._small(lambda tx: approval_rows.take(tx, approval_id, node, taken, at))

    async def approval(self, approval_id: str, tenant: str | None) -> ApprovalRow:
        """One question.

        Raises:
            NotFound: none of this tenant.
        """
        return await self._readers.run(partial(approval_rows.get, approval_id=approval_id, tenant=tenant))

    async def approvals(
        self, tenant: str | None, states: frozenset[ApprovalState], cursor: str | None, limit: int
    ) -> tuple[list[ApprovalRow], str | None]:
        """A page of questions, newest first, and the next page's cursor."""
        now_s = self._clock.wall_s()
        wanted = partial(approval_rows.listing, tenant=tenant, states=states, now_s=now_s, cursor=cursor, limit=limit)
        return await self._readers.run(wanted)

    async def open_approvals(self) -> list[ApprovalRow]:
        """Every question of an open attempt whose node has not said what it made of it."""
        return await self._readers.run(approval_rows.unresolved)

    async def save_node(self, row: NodeRow) -> None:
        """Remember a node, replacing what was known."""
        await self._small(lambda tx: fleet_rows.save_node(tx, row))

    async def nodes(self) -> list[NodeRow]:
        """Every node that is remembered."""
        return await self._readers.run(reads.nodes)

    async def forget_node(self, name: str) -> None:
        """Forget a node; its attempts stay."""
        await self._small(lambda tx: fleet_rows.forget_node(tx, name))

    async def bind_affinity(self, bindings: Sequence[tuple[str, str, float]]) -> None:
        """Save (project, node, wall clock of fading) each."""
        wanted, now = tuple(bindings), self._clock.wall_s()
        await self._small(lambda tx: fleet_rows.bind_affinity(tx, wanted, now))

    async def affinities(self) -> list[tuple[str, str, float]]:
        """Every saved binding."""
        return await self._readers.run(reads.affinities)

    async def set_paused(self, kind: str, name: str, is_paused: bool) -> None:
        """Pause or resume a queue, pool or project."""
        await self._small(lambda tx: fleet_rows.set_paused(tx, kind, name, is_paused=is_paused))

    async def paused(self) -> set[tuple[str, str]]:
        """(kind, name) of what is paused."""
        return await self._readers.run(reads.paused)

    async def claims(self) -> list[ClaimRow]:
        """Every NodeClaim that is kept, oldest first."""
        return await self._readers.run(scale_rows.claims)

    async def save_claim(self, row: ClaimRow) -> None:
        """Remember a NodeClaim, replacing what was known."""
        await self._small(lambda tx: scale_rows.save_claim(tx, row))

    async def forget_claims(self, gone_before: float) -> int:
        """Forget claims whose machines have been gone since before that wall clock; how many."""
        return await self._small(lambda tx: scale_rows.forget_claims(tx, gone_before))

    async def enrolments(self) -> list[EnrolmentRow]:
        """Every node's enrolment."""
        return await self._readers.run(scale_rows.enrolments)

    async def save_enrolment(self, row: EnrolmentRow) -> None:
        """Remember one, replacing what was known under that name."""
        await self._small(lambda tx: scale_rows.save_enrolment(tx, row))

    async def forget_enrolment(self, name: str) -> None:
        """Its token and its credential are void."""
        await self._small(lambda tx: scale_rows.forget_enrolment(tx, name))

    async def scale_pools(self) -> list[ScalePoolRow]:
        """What is remembered of pools beside their policy."""
        return await self._readers.run(scale_rows.scale_pools)

    async def save_scale_pool(self, row: ScalePoolRow) -> None:
        """Remember it, replacing what was known of that pool."""
        await self._small(lambda tx: scale_rows.save_scale_pool(tx, row))

    async def log_scale(self, row: ScaleLogRow) -> None:
        """Keep one decision of the autoscaler."""
        await self._small(lambda tx: scale_rows.log_scale(tx, row))

    async def scale_log(
        self, pool: str | None, since: float, limit: int, until: float | None = None
    ) -> list[ScaleLogRow]:
        """The newest decisions between those wall clocks, oldest first; of all pools where none is named."""
        wanted = partial(scale_rows.scale_log, pool=pool, since=since, limit=limit, until=until)
        return await self._readers.run(wanted)

    async def forget_scale_log(self, before: float) -> int:
        """Forget decisions older than that wall clock; how many."""
        return await self._small(lambda tx: scale_rows.forget_scale_log(tx, before))

    async def book(self, wanted: Sequence[Booking]) -> list[Spent]:
        """Keep what attempts spent; for each, what of it is new."""
        bookings = tuple(wanted)
        return await self._small(lambda tx: spend.book(tx, bookings))

    async def spend_of(self, invocation_id: str) -> list[SpendRow]:
        """What one Invocation's attempts spent; empty for one that nobody knows."""
        return await self._readers.run(partial(spend.spend_of, invocation_id=invocation_id))

    async def costs(self, query: CostsQuery) -> tuple[list[Cost], Cost]:
        """Spend summed up: the groups, and all of it."""
        return await self._readers.run(partial(spend.costs, query=query))

    async def forget_spend(self, before: float, limit: int) -> int:
        """Forget about `limit` rows of spend older than that wall clock; how many."""
        return await self._small(lambda tx: spend.forget_spend(tx, before, limit))

    async def read(self, question: Callable[[Reader], T]) -> T:
        """One question, beside the writer."""
        return await self._readers.run(question)

    async def write(self, operation: Callable[[Tx], T]) -> T:
        """One rare operation, in the writer's order; it may refuse only before it wrote."""
        return cast("T", await self._writer.submit(_SMALL, operation))

    _small = write
