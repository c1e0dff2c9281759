"""What the fake fleet remembers: its ledger, in dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, TypeVar

import orjson

from orchestrator.ledger.dead_values import DeadFilter, DeadLetter
from orchestrator.ledger.values import Filter
from tasks.errors import IdempotencyConflict, InvalidCall, NotFound
from tasks.invocation import Call, Invocation, Principal
from tasks.wire import EventView

T = TypeVar("T")


class Row:
    """One Invocation, its events, and whoever waits for more of them."""

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self.arguments: dict[str, Any] = orjson.loads(invocation.call.arguments_json)
        self.events: list[EventView] = []
        self.ended = asyncio.Event()
        self._news = asyncio.Event()
        self.say("accepted", invocation.accepted_at)

    @property
    def key(self) -> tuple[str, str] | None:
        """Tenant and idempotency key."""
        key = self.invocation.call.idempotency_key
        return None if key is None else (self.invocation.principal.tenant, key)

    def say(self, kind: str, at: float, **data: object) -> None:
        """One more event."""
        self.events.append(EventView(kind=kind, at=at, data=data))
        self._news.set()
        self._news = asyncio.Event()
        if kind == "ended":
            self.ended.set()

    async def news(self, seen: int) -> None:
        """Return once there are more than `seen` events."""
        while len(self.events) <= seen:
            await self._news.wait()


class Rows:
    """All of them, oldest first."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self.dead: dict[str, DeadLetter] = {}
        self.paused: set[tuple[str, str]] = set()

    def __iter__(self) -> Iterator[Row]:
        return iter(list(self._rows.values()))

    def add(self, row: Row) -> None:
        """Keep it."""
        self._rows[row.invocation.id] = row
        if row.key is not None:
            self._keys[row.key] = row.invocation.id

    def get(self, invocation_id: str, principal: Principal) -> Row:
        """One of this tenant's. Raises NotFound."""
        row = self._rows.get(invocation_id)
        if row is None or row.invocation.principal.tenant != principal.tenant:
            raise NotFound("invocation", invocation_id)
        return row

    def known(self, call: Call, principal: Principal) -> Row | None:
        """The row that this call's key, or its chosen id, already has.

        Raises:
            IdempotencyConflict: it is another call's.
        """
        found = self._keys.get((principal.tenant, call.idempotency_key)) if call.idempotency_key else None
        if found is None and call.invocation_id in self._rows:
            found = call.invocation_id
        if found is None:
            return None
        row = self._rows[found]
        if row.invocation.principal.tenant != principal.tenant or _essence(row.invocation.call) != _essence(call):
            raise IdempotencyConflict(call.idempotency_key or found, found)
        return row

    def page(
        self, where: Filter, principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[Invocation], str | None]:
        """Newest first, after the cursor."""
        rows = [row.invocation for row in self if _fits(row.invocation, where, principal)]
        return _paged(list(reversed(rows)), cursor, limit)

    def dead_page(
        self, principal: Principal, where: DeadFilter, cursor: str | None, limit: int
    ) -> tuple[list[DeadLetter], str | None]:
        """Newest first, after the cursor."""
        return _paged(self.letters(principal, where), cursor, limit)

    def letters(self, principal: Principal, where: DeadFilter) -> list[DeadLetter]:
        """Newest first."""
        return [one for one in reversed(self.dead.values()) if one.tenant == principal.tenant and _is_meant(one, where)]


def _paged(items: list[T], cursor: str | None, limit: int) -> tuple[list[T], str | None]:
    if cursor is not None and not cursor.isdecimal():
        raise InvalidCall(f"the cursor {cursor[:40]!r} is not one of ours; leave it out to begin anew")
    start = int(cursor) if cursor else 0
    rest = items[start : start + limit]
    return rest, str(start + limit) if len(items) > start + limit else None


def _essence(call: Call) -> tuple[str, Any, str | None]:
    return call.tool, orjson.loads(call.arguments_json), call.project


def _is_meant(letter: DeadLetter, where: DeadFilter) -> bool:
    return (
        where.id in {None, letter.invocation_id}
        and where.reason in {None, letter.reason}
        and where.tool in {None, letter.tool}
        and where.project in {None, letter.project}
        and (where.until is None or letter.ended_at <= where.until)
        and not (where.is_unanswered and letter.replayed_as)
    )


def _fits(value: Invocation, where: Filter, principal: Principal) -> bool:
    node = value.attempts[-1].node if value.attempts else None
    return (
        value.principal.tenant == principal.tenant
        and where.project in {None, value.call.project}
        and where.tool in {None, value.call.tool}
        and where.node in {None, node}
        and where.lane in {None, value.lane}
        and (not where.states or value.state in where.states)
        and (where.since is None or value.accepted_at >= where.since)
        and where.principal in {None, value.principal.id}
        and (where.took_s is None or (value.ended_at or where.now) - value.accepted_at >= where.took_s)
    )
