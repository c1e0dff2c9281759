"""/v1/invocations: accept calls, look at them, wait for one, end one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api import costs, views
from orchestrator.api.calls import to_call
from orchestrator.api.operation import Answer, Ask, Header, Operation
from orchestrator.api.ports import Calls, Money
from orchestrator.api.problems import InvalidBody
from orchestrator.api.reply import Reply, Stream, listing, model
from orchestrator.api.settings import ApiSettings
from orchestrator.api.stream import event_stream
from orchestrator.ledger.values import Filter
from tasks.clock import Clock
from tasks.invocation import TERMINAL, Invocation, Lane, State
from tasks.scopes import Scope
from tasks.wire import ArgumentsView, BatchRequest, CallRequest, ExplainView, InvocationView, Page

KEY_MAX_CHARS = 255
KEY_HEADER = (
    Header("Idempotency-Key", "the same key and call is accepted once, however often it is sent", KEY_MAX_CHARS),
)
SEEN_HEADER = (Header("Last-Event-ID", "`id` of the last event seen: the stream goes on after it", 64),)


class WaitQuery(BaseModel):
    """`?wait=`."""

    model_config = ConfigDict(extra="forbid")
    wait: float | None = Field(None, ge=0, le=3600, description="seconds to wait for the end; the server has a limit")


class ArgumentsQuery(BaseModel):
    """How long they may be."""

    model_config = ConfigDict(extra="forbid")
    max_bytes: int | None = Field(None, ge=0, description="longer ones are left out, and only their size is said")


class ListQuery(BaseModel):
    """Which Invocations, newest first."""

    model_config = ConfigDict(extra="forbid")
    project: str | None = None
    tool: str | None = None
    node: str | None = None
    lane: Lane | None = None
    principal: str | None = Field(None, max_length=200, description="who called")
    state: list[State] = Field(default_factory=list, description="repeat for several")
    since: float | None = Field(None, allow_inf_nan=False, description="accepted at or after, seconds since the epoch")
    took: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="seconds: took at least so long, or has lasted so long by now"
    )
    cursor: str | None = Field(None, min_length=1, max_length=200, description="`next` of the page before")
    limit: int = Field(50, ge=1, le=500)


class Invocations:
    """The operations on Invocations."""

    def __init__(self, calls: Calls, clock: Clock, settings: ApiSettings, money: Money) -> None:
        self._calls, self._clock, self._settings, self._money = calls, clock, settings, money

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        one, path = Answer("as it stands", InvocationView), "/v1/invocations/{id}"
        ended = Answer("it ended", InvocationView)
        accepted = Answer("accepted, and durable", InvocationView, headers=("Location",))
        many = Answer("accepted, in the order given", Page[InvocationView])
        return (
            Operation("POST", "/v1/invocations", "call", Scope.INVOCATIONS_WRITE,
                      "Accept a call; with ?wait= answer when it ended",
                      self.call, {202: accepted, 200: ended}, query=WaitQuery, body=CallRequest,
                      errors=(404, 409), headers=KEY_HEADER),
            Operation("GET", "/v1/invocations", "list", Scope.INVOCATIONS_READ,
                      "List Invocations, newest first", self.list,
                      {200: Answer("one page, without results", Page[InvocationView])}, query=ListQuery),
            Operation("GET", path, "show", Scope.INVOCATIONS_READ,
                      "Show one; with ?wait= when it ended", self.show, {200: one},
                      query=WaitQuery, errors=(404,)),
            Operation("POST", "/v1/invocations:batch", "call_many", Scope.INVOCATIONS_WRITE,
                      "Accept up to 1,000 calls: all or none",
                      self.call_many, {202: many}, body=BatchRequest, errors=(404, 409), headers=KEY_HEADER),
            Operation("GET", path + "/events", "watch", Scope.INVOCATIONS_READ,
                      "Its events so far, then live, until it ended", self.watch,
                      {200: Answer("server-sent events, each an EventView", media_type="text/event-stream")},
                      errors=(404,), headers=SEEN_HEADER),
            Operation("GET", path + "/arguments", "arguments", Scope.INVOCATIONS_READ,
                      "What it was called with", self.arguments,
                      {200: Answer("the arguments", ArgumentsView)}, query=ArgumentsQuery, errors=(404,)),
            Operation("GET", path + "/why", "explain", Scope.INVOCATIONS_READ,
                      "Why it waits, or why it is where it is", self.explain,
                      {200: Answer("the reasons", ExplainView)}, errors=(404,)),
            Operation("POST", path + "/cancel", "cancel", Scope.INVOCATIONS_WRITE,
                      "End it, wherever it is", self.cancel, {200: one},
                      errors=(404,)),
            Operation("POST", path + "/replay", "replay", Scope.INVOCATIONS_WRITE,
                      "Make a new Invocation of one that ended", self.replay,
                      {202: accepted}, errors=(404, 409)),
        )  # fmt: skip

    async def call(self, ask: Ask) -> Reply:
        """POST /v1/invocations."""
        now_s, wait_s = self._clock.wall_s(), ask.query(WaitQuery).wait
        call = to_call(
            ask.body(CallRequest), now_s=now_s, trace_id=ask.trace_id, key=_key(ask), trace_parent=ask.parent_in
        )
        [accepted] = await self._calls.accept([call], ask.principal)
        if wait_s is None:
            return _accepted(accepted, views.invocation(accepted))
        now = await self._calls.wait(accepted.id, ask.principal, min(wait_s, self._settings.wait_max_s))
        return await self._whole(now) if now.state in TERMINAL else _accepted(now, views.invocation(now))

    async def call_many(self, ask: Ask) -> Reply:
        """POST /v1/invocations:batch."""
        key, now_s = _key(ask), self._clock.wall_s()
        calls = [
            to_call(
                request,
                now_s=now_s,
                trace_id=ask.trace_id,
                trace_parent=ask.parent_in,
                key=None if key is None or request.idempotency_key else f"{key}#{number}",
            )
            for number, request in enumerate(ask.body(BatchRequest).calls)
        ]
        accepted = await self._calls.accept(calls, ask.principal)
        return listing([views.invocation(one) for one in accepted], status=202)

    async def list(self, ask: Ask) -> Reply:
        """GET /v1/invocations."""
        query = ask.query(ListQuery)
        where = Filter(
            tenant=ask.principal.tenant,
            project=query.project,
            tool=query.tool,
            node=query.node,
            lane=query.lane,
            states=frozenset(query.state),
            since=query.since,
            principal=query.principal,
            took_s=query.took,
            now=self._clock.wall_s(),
        )
        found, cursor = await self._calls.listing(where, ask.principal, query.cursor, query.limit)
        return listing([views.invocation(one) for one in found], cursor)

    async def show(self, ask: Ask) -> Reply:
        """GET /v1/invocations/{id}."""
        wait_s = ask.query(WaitQuery).wait
        if wait_s is None:
            return await self._whole(await self._calls.get(ask.path["id"], ask.principal), with_spend=True)
        wait_s = min(wait_s, self._settings.wait_max_s)
        return await self._whole(await self._calls.wait(ask.path["id"], ask.principal, wait_s))

    async def watch(self, ask: Ask) -> Stream:
        """GET /v1/invocations/{id}/events."""
        await self._calls.get(ask.path["id"], ask.principal)  # an unknown id is a 404, not a stream that breaks
        events = self._calls.events(ask.path["id"], ask.principal)
        seen = ask.header(b"last-event-id")
        return Stream(
            event_stream(events, last_seen=seen, keepalive_s=self._settings.keepalive_s), b"text/event-stream"
        )

    async def explain(self, ask: Ask) -> Reply:
        """GET /v1/invocations/{id}/why."""
        why = await self._calls.explain(ask.path["id"], ask.principal)
        return model(why.model_copy(update={"trace_url": self._settings.link_to(why.trace_id)}))

    async def arguments(self, ask: Ask) -> Reply:
        """GET /v1/invocations/{id}/arguments."""
        text = await self._calls.arguments_json(ask.path["id"], ask.principal)
        return Reply(views.arguments(ask.path["id"], text, ask.query(ArgumentsQuery).max_bytes))

    async def cancel(self, ask: Ask) -> Reply:
        """POST /v1/invocations/{id}/cancel."""
        return await self._whole(await self._calls.cancel(ask.path["id"], ask.principal))

    async def replay(self, ask: Ask) -> Reply:
        """POST /v1/invocations/{id}/replay."""
        again = await self._calls.replay(ask.path["id"], ask.principal)
        return _accepted(again, views.invocation(again))

    async def _whole(self, value: Invocation, *, with_spend: bool = False) -> Reply:
        """An ordinary tool's answer is not kept waiting by a look into the books; an agent's, and `show`, are."""
        is_looked_up = with_spend or value.lane is Lane.AGENTS
        spent = costs.spent(await self._money.spend_of(value.id)) if is_looked_up else []
        link = self._settings.link_to(value.call.trace_id)
        return Reply(views.invocation(value, await self._calls.result_json(value), spent, link))


def _accepted(value: Invocation, body: bytes) -> Reply:
    return Reply(body, 202, headers=((b"location", f"/v1/invocations/{value.id}".encode()),))


def _key(ask: Ask) -> str | None:
    key = ask.header(b"idempotency-key")
    if key is not None and not 1 <= len(key) <= KEY_MAX_CHARS:
        raise InvalidBody([("Idempotency-Key", f"must have 1 to {KEY_MAX_CHARS} characters, has {len(key)}")])
    return key
