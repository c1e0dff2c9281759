"""AuthGuardian: requests, answers, validation and revocation.

Owns who may do which of these, and the order: authenticate (the door did), check the terms, decide, write down,
and only then hand out a token. Refuses to believe anything that a request says of its sender.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import structlog

from orchestrator.grants.book import Book
from orchestrator.grants.decide import (
    ASKS_POLICY,
    Deny,
    Grantable,
    Terms,
    decide,
    plain,
    question_of,
    terms_of,
)
from orchestrator.grants.errors import (
    AnsweredBefore,
    InvalidRequest,
    MayNotAnswer,
    NoSuchGrant,
    NotThatAgent,
    OtherTerms,
)
from orchestrator.grants.ports import Audit, Policy
from orchestrator.grants.types import ResourceType
from orchestrator.ledger.grant_values import Answer, Asked, GrantKeyRow, GrantRow, GrantState, Validity, terms_digest
from tasks.clock import Clock
from tasks.grant import Grant, GrantInvalid, GrantNews, check_use
from tasks.ids import new_id
from tasks.invocation import FLEET_TENANT, Principal
from tasks.scopes import Scope, allows, require

log = structlog.get_logger("mcpfleet.guard")
POLICY = "policy"
NOBODY = "nobody"
"""Decided it: the time to answer was over."""


class Guardian:
    """The permission service, while this orchestrator leads."""

    def __init__(
        self,
        *,
        book: Book,
        types: Mapping[str, ResourceType],
        policy: Policy,
        audit: Audit,
        clock: Clock,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.types, self.on_change = types, on_change
        self.policy, self.audit = policy, audit
        self._book, self._clock = book, clock
        self._turn = asyncio.Lock()
        self._answered: dict[str, asyncio.Event] = {}

    def restore(self, rows: Iterable[GrantRow], keys: Iterable[GrantKeyRow]) -> None:
        """This orchestrator leads now: what the ledger has is all there is."""
        self._book.restore(rows, keys)

    # ---------------------------------------------------------------- asking

    async def request(self, asked: Asked, by: Principal, trust: int) -> Answer:
        """Ask for a grant. The same question while one is pending is that one.

        Args:
            asked: as it came.
            by: who asks, as the fleet authenticated it.
            trust: 0 to 100, of its connection.

        Raises:
            InvalidRequest, NotThatAgent, ScopeMissing, TooManyGrants
        """
        self._may_ask(asked.agent, by)
        terms = terms_of(asked, self.types)
        async with self._turn:
            pending = self._same_pending(asked, terms, by)
            if pending is not None:
                return Answer(pending)
            await self._book.make_room(by.tenant, asked.agent)
            kind = self.types[terms.resource_type]
            ruling = None
            if kind.decided_by in ASKS_POLICY:
                ruling = self.policy.decide(question_of(terms, kind, by, asked.agent, trust))
            verdict = decide(terms, kind, ruling, trust)
            now = self._clock.wall_s()
            row = _row_of(asked, terms, by, trust, now)
            if isinstance(verdict, Deny):
                changes = {"reason": verdict.reason, "decided_at": now, "decided_by": POLICY}
                row = replace(row, state=GrantState.DENIED, **changes)  # type: ignore[arg-type]
            elif isinstance(verdict, Grantable):
                row = await self._granted(row, POLICY, now)
            else:
                row = replace(row, answer_by=now + kind.answer_within_s)
            row = replace(row, rules=" ".join(verdict.rules))
            await self._book.save(row)
        await self._noted("grant.requested" if row.state == GrantState.PENDING else f"grant.{row.state}", row, by)
        return Answer(row, self._token(row))

    async def again(self, grant_id: str, agent: str, by: Principal) -> Answer:
        """What a request of one's own has come to; its token for whoever asked, as often as he asks.

        Raises:
            NoSuchGrant: also for another's.
        """
        row = self._book.find(grant_id)
        if row is None or row.tenant != by.tenant or row.agent != agent or by.id != row.requested_by:
            raise NoSuchGrant(grant_id)
        if row.is_active(self._clock.wall_s()) and self._token(row) is None:  # its key went with the leader before
            async with self._turn:
                row = replace(self._book.find(row.id) or row, key=await self._book.key())
                if row.state == GrantState.GRANTED:
                    await self._book.save(row)
        return Answer(row, self._token(row))

    async def settled(self, grant_id: str, within_s: float) -> None:
        """Wait until somebody answered, or the time is over."""
        row = self._book.find(grant_id)
        if row is None or row.state != GrantState.PENDING or within_s <= 0:
            return
        event = self._answered.setdefault(grant_id, asyncio.Event())
        try:
            async with asyncio.timeout(within_s):
                await event.wait()
        except TimeoutError:
            return

    # ---------------------------------------------------------------- answering

    async def answer(
        self, grant_id: str, *, is_allowed: bool, terms_sha256: str, reason: str, by: Principal
    ) -> GrantRow:
        """A person's word on exactly the terms that he saw.

        Raises:
            ScopeMissing, MayNotAnswer: not this person.
            NoSuchGrant, OtherTerms, AnsweredBefore
        """
        require(by, Scope.GRANTS_WRITE)
        async with self._turn:
            row = self._seen(grant_id, by)
            kind = self.types.get(row.resource_type)
            _check_answerer(row, kind, by)
            if row.state != GrantState.PENDING:
                raise AnsweredBefore(row.id, row.state)
            if terms_sha256 != terms_digest(row):
                raise OtherTerms(row.id)
            now = self._clock.wall_s()
            if row.answer_by is not None and now >= row.answer_by:
                raise AnsweredBefore(row.id, "over: nobody answered in time")
            said = plain(reason)[:1000]
            if is_allowed:
                row = replace(await self._granted(row, by.id, now), reason=said)
            else:
                row = replace(row, state=GrantState.DENIED, decided_at=now, decided_by=by.id, reason=said)
            await self._book.save(row)
        self._ring(row.id)
        await self._noted(f"grant.{row.state}", row, by)
        return row

    # ---------------------------------------------------------------- using

    def validate(self, token: str, agent: str, resource_type: str, by: Principal) -> Validity:
        """The truth about a token now, revocation included. Another tenant's is nobody's here.

        Raises:
            ScopeMissing
        """
        if not allows(by, Scope.GRANTS_REQUEST):
            require(by, Scope.GRANTS_READ)
        try:
            grant = self._book.read(token)
            if by.tenant not in {FLEET_TENANT, grant.tenant}:
                return Validity(is_valid=False, why="key")
            check_use(grant, agent=agent, tenant=grant.tenant, resource_type=resource_type, scope=frozenset())
        except GrantInvalid as error:
            return Validity(is_valid=False, why=error.why)
        row = self._book.find(grant.id)
        if row is None or not row.is_active(self._clock.wall_s()):
            return Validity(is_valid=False, why="revoked" if row is not None else "unknown")
        return Validity(is_valid=True, grant=grant)

    async def revoke(self, by: Principal, *, token: str = "", grant_id: str = "") -> GrantRow:
        """Void a grant, or withdraw a request. Nodes hear of it with their next renewal.

        Raises:
            GrantInvalid: no token of ours.
            NoSuchGrant: also for another tenant's, and for another agent's.
            LedgerDown: void here and now, and may be good again after a restart: say it again.
        """
        if not grant_id:
            grant_id = self._book.read(token).id
        async with self._turn:
            row = self._seen(grant_id, by, is_own_enough=True)
            if row.state in {GrantState.DENIED, GrantState.REVOKED}:
                return row
            row = replace(row, state=GrantState.REVOKED, revoked_at=self._clock.wall_s(), revoked_by=by.id)
            await self._book.void(row)
        self._ring(row.id)
        await self._noted("grant.revoked", row, by)
        return row

    # ---------------------------------------------------------------- showing

    def listing(self, by: Principal) -> list[GrantRow]:
        """Requests that he may see, oldest first: all of his tenant's with `grants:read`, else his own."""
        sees_all = allows(by, Scope.GRANTS_READ)
        return [
            row
            for row in self._book.rows()
            if by.tenant in {FLEET_TENANT, row.tenant} and (sees_all or _is_own(row, by))
        ]

    def news(self, known: str | None) -> GrantNews | None:
        """For a node that knows version `known`; None where it is the newest, and for a node that checks none."""
        return None if known in {None, self._book.news.version} else self._book.news

    async def look(self) -> None:
        """For a loop: end what nobody answered, forget what was over long ago."""
        now = self._clock.wall_s()
        async with self._turn:
            late = [r for r in self._book.rows() if r.state == GrantState.PENDING and (r.answer_by or 0.0) <= now]
            ended = [
                replace(r, state=GrantState.DENIED, decided_at=now, decided_by=NOBODY, reason="nobody answered in time")
                for r in late
            ]
            for row in ended:
                await self._book.save(row)
            await self._book.prune()
        for row in ended:
            self._ring(row.id)
            await self._noted("grant.denied", row, Principal(NOBODY, row.tenant))

    # ---------------------------------------------------------------- inside

    def _may_ask(self, agent: str, by: Principal) -> None:
        require(by, Scope.GRANTS_REQUEST)
        if not agent or agent != agent.strip() or plain(agent) != agent:
            raise InvalidRequest("agent_id", "name the agent")
        if agent != by.id and not allows(by, Scope.GRANTS_REQUEST_FOR):
            raise NotThatAgent(by.id, agent)

    def _same_pending(self, asked: Asked, terms: Terms, by: Principal) -> GrantRow | None:
        wanted = (by.tenant, asked.agent, by.id, terms.resource_type, " ".join(terms.scope), terms.lifetime_s)
        for row in self._book.rows():
            found = (row.tenant, row.agent, row.requested_by, row.resource_type, row.scope, row.lifetime_s)
            if row.state == GrantState.PENDING and found == wanted and row.parent == asked.parent:
                return row
        return None

    async def _granted(self, row: GrantRow, by: str, now: float) -> GrantRow:
        key = await self._book.key()
        expires_at = now + row.lifetime_s
        return replace(
            row, state=GrantState.GRANTED, decided_at=now, decided_by=by, expires_at=expires_at, key=key, answer_by=None
        )

    def _token(self, row: GrantRow) -> str | None:
        if not row.is_active(self._clock.wall_s()):
            return None
        return self._book.token_of(row, _grant_of(row))

    def _seen(self, grant_id: str, by: Principal, *, is_own_enough: bool = False) -> GrantRow:
        row = self._book.find(grant_id)
        if row is None or by.tenant not in {FLEET_TENANT, row.tenant}:
            raise NoSuchGrant(grant_id)
        if not allows(by, Scope.GRANTS_WRITE) and not (is_own_enough and _is_own(row, by)):
            raise NoSuchGrant(grant_id)
        return row

    def _ring(self, grant_id: str) -> None:
        event = self._answered.pop(grant_id, None)
        if event is not None:
            event.set()

    async def _noted(self, act: str, row: GrantRow, by: Principal) -> None:
        self.on_change(row.tenant)
        about = {
            "grant": row.id,
            "agent": row.agent,
            "resource_type": row.resource_type,
            "scope": row.scope,
            "state": row.state,
            "reason": row.reason,
            "rules": row.rules,
            "justification": row.justification,
            "parent": row.parent,
            "credential": by.credential,
        }
        log.info(act, grant=row.id, agent=row.agent, resource_type=row.resource_type, scope=row.scope, by=by.id)
        await self.audit.note(act, by.id, row.tenant, about)  # before anybody is handed a token


def _row_of(asked: Asked, terms: Terms, by: Principal, trust: int, now: float) -> GrantRow:
    return GrantRow(
        id=new_id(now),
        tenant=by.tenant,
        agent=asked.agent,
        requested_by=by.id,
        credential=by.credential,
        resource_type=terms.resource_type,
        scope=" ".join(terms.scope),
        justification=plain(asked.justification.strip()),
        lifetime_s=terms.lifetime_s,
        restrictions_json=json.dumps(dict(terms.restrictions), sort_keys=True),
        trust=trust,
        state=GrantState.PENDING,
        asked_at=now,
        parent=asked.parent,
    )


def _grant_of(row: GrantRow) -> Grant:
    assert row.decided_at is not None
    assert row.expires_at is not None
    return Grant(
        id=row.id,
        agent=row.agent,
        tenant=row.tenant,
        resource_type=row.resource_type,
        scope=frozenset(row.scope.split()),
        not_before=row.decided_at,
        expires_at=row.expires_at,
        restrictions=json.loads(row.restrictions_json),
    )


def _is_own(row: GrantRow, by: Principal) -> bool:
    return row.tenant == by.tenant and by.id in {row.agent, row.requested_by}


def _check_answerer(row: GrantRow, kind: ResourceType | None, by: Principal) -> None:
    if _is_own(row, by):
        raise MayNotAnswer(by.id, "it is his own request")
    if kind is None:
        raise MayNotAnswer(by.id, f"{row.resource_type} is not declared any more")
    if not by.roles & kind.approvers:
        raise MayNotAnswer(by.id, f"{row.resource_type} is answered by {' or '.join(sorted(kind.approvers))}")
