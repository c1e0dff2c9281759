"""A small orchestrator for one node: the node protocol over HTTP, and the two streams.

It does what it is told: grants, refuses, is away, settles or stays silent. What it learns it keeps,
and whoever waits for it is woken: no test needs to sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tasks.app import make_app
from tasks.envelope import Delivery, seal
from tasks.ids import new_id
from tasks.invocation import Lane
from tasks.ledger_events import FIELD, Event, Finished, unpack
from tasks.node import (
    ClaimReply,
    ClaimRequest,
    Control,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    Offer,
    Ref,
    RenewReply,
    RenewRequest,
    SealTerms,
)
from tasks.queues import TASK_NAME, control_stream, events_stream, node_queue, pool_queue
from tasks.sealing import (
    SEALED_FIELD,
    control_box,
    events_box,
    node_box,
    pool_box,
    public_hex,
    seal_delivery,
    seal_late,
)
from worker.serve import HttpServer

WAIT_S = 100.0
"""Bound of every wait: far above what it takes."""
RETRY_S = 0.05


@dataclass
class FakeOrchestrator:
    """One node's other side."""

    redis_url: str
    lease_ttl_s: float = 7.0
    renew_every_s: float = 0.2
    is_late: bool = False
    inline_limit_bytes: int = 10_000
    result_limit_bytes: int = 100_000
    url: str = ""
    redis_url_for_nodes: str = ""
    """What nodes are told, where it is another."""
    wall_s: Callable[[], float] | None = time.time
    """What it says the time is; None: as older ones, nothing."""
    is_away: bool = False
    """Every request is answered with 503."""
    turned_away: int = 0
    is_settling: bool = True
    """Finished events are acknowledged on the control stream."""
    is_known: bool = True
    """Renewals are granted."""
    term: int = 1
    void: list[Ref] = field(default_factory=list)
    cancel: list[Ref] = field(default_factory=list)
    grant: Callable[[Ref], bool] = lambda _ref: True
    joins: list[JoinRequest] = field(default_factory=list)
    renewals: list[RenewRequest] = field(default_factory=list)
    claims: list[Ref] = field(default_factory=list)
    leaves: list[LeaveRequest] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    key: bytes = b""
    pool_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    signer: Ed25519PrivateKey | None = None
    """Set: everything is sealed, and demanded to be, with `key` and `pool_key`."""
    _numbers: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when it holds; looks again at every request and event."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(condition)

    async def renewals_more(self, count: int) -> None:
        """That many renewals from now, granted or not."""
        seen = len(self.renewals)
        await self.until(lambda: len(self.renewals) >= seen + count)

    def finished(self, invocation: str) -> list[Finished]:
        """What was reported as ended."""
        return [e for e in self.events if isinstance(e, Finished) and e.invocation == invocation]

    async def ended(self, invocation: str) -> Finished:
        """The first report of its end."""
        await self.until(lambda: self.finished(invocation))
        return self.finished(invocation)[0]

    def delivery(self, tool: str, arguments_json: str | None = "{}", **changes: object) -> Delivery:
        """Addressed to the node that joined last."""
        join = self.joins[-1]
        form: dict[str, object] = {
            "invocation": new_id(),
            "fence": 1,
            "node": join.offer.name,
            "incarnation": join.incarnation,
            "term": self.term,
            "tool": tool,
            "lane": Lane.TOOLS,
            "timeout_s": 30.0,
            "arguments_json": arguments_json,
        }
        return Delivery(**(form | changes))  # type: ignore[arg-type]

    async def send(self, delivery: Delivery, *, key: bytes | None = None, mac: str | None = None) -> str:
        """Seal and publish through Celery, to the node's queue or, late-bound, to its pool's."""
        offer = self.joins[-1].offer
        late = delivery.node is None
        key = key or (self.pool_key if late else self.key)
        body, right_mac = self.sealed(delivery, key) if self.signer else seal(delivery, key)
        queue = pool_queue(offer.pool, delivery.lane) if late else node_queue(offer.name, delivery.lane)
        await self.publish((body, mac or right_mac), queue, task_id=delivery.invocation)
        return delivery.invocation

    def sealed(self, delivery: Delivery, key: bytes) -> tuple[str, str]:
        """As the orchestrator seals it."""
        assert self.signer is not None
        if delivery.node is None:
            return seal_late(delivery, pool_box(key, self.joins[-1].offer.pool), self.signer, time.time())
        return seal_delivery(delivery, node_box(key, delivery.node), time.time())

    async def publish(
        self, arguments: tuple[object, ...], queue: str | None = None, *, task: str = TASK_NAME, **more: object
    ) -> None:
        """Any Celery message, to the node's `tools` queue unless told otherwise."""

        def send() -> None:
            app = make_app(self.redis_url)
            app.send_task(task, arguments, queue=queue or node_queue(self.joins[-1].offer.name, Lane.TOOLS), **more)
            app.close()

        await asyncio.to_thread(send)

    async def call(self, tool: str, arguments_json: str | None = "{}", **changes: object) -> str:
        """Send an ordinary delivery; its invocation."""
        return await self.send(self.delivery(tool, arguments_json, **changes))

    async def control(self, kind: Literal["settled", "cancel"], *refs: Ref) -> None:
        """Write on the control stream."""
        async with Redis.from_url(self.redis_url) as redis:
            entry, name = Control(kind=kind, refs=refs).model_dump_json().encode(), self.joins[-1].offer.name
            fields: Any = {SEALED_FIELD: control_box(self.key, name).seal(entry)} if self.signer else {FIELD: entry}
            await redis.xadd(control_stream(name), fields)

    async def join(self, request: Request) -> Response:
        """POST /v1/nodes."""
        form = JoinRequest.model_validate_json(await request.body())
        self.key = secrets.token_bytes(32)
        reply = self._join_reply(form.offer)
        await self._note(lambda: self.joins.append(form))
        return _json(reply.model_dump_json())

    def _join_reply(self, offer: Offer) -> JoinReply:
        late = tuple(pool_queue(offer.pool, lane) for lane in Lane) if self.is_late else ()
        return JoinReply(
            node=offer.name,
            node_token=secrets.token_urlsafe(16),
            delivery_key=self.key.hex(),
            pool_key=self.pool_key.hex(),
            term=self.term,
            lease_ttl_s=self.lease_ttl_s,
            renew_every_s=self.renew_every_s,
            redis_url=self.redis_url_for_nodes or self.redis_url,
            queues=(*(node_queue(offer.name, lane) for lane in Lane), *late),
            events_stream=events_stream(offer.name),
            control_stream=control_stream(offer.name),
            inline_limit_bytes=self.inline_limit_bytes,
            result_limit_bytes=self.result_limit_bytes,
            now=self._now(),
            seal=self._seal_terms(),
        )

    def _seal_terms(self) -> SealTerms | None:
        if self.signer is None:
            return None
        return SealTerms(key=self.key.hex(), pool_key=self.pool_key.hex(), signer=public_hex(self.signer))

    def _said(self, node: str, fields: dict[bytes, bytes]) -> bytes:
        return events_box(self.key, node).open(fields[SEALED_FIELD]) if self.signer else fields[FIELD]

    async def renew(self, request: Request) -> Response:
        """POST /v1/nodes/{name}/renewals."""
        form = RenewRequest.model_validate_json(await request.body())
        self._numbers += 1
        reply = RenewReply(
            granted=self.is_known,
            number=self._numbers,
            term=self.term,
            lease_ttl_s=self.lease_ttl_s,
            void=tuple(self.void),
            cancel=tuple(self.cancel),
            now=self._now(),
        )
        await self._note(lambda: self.renewals.append(form))
        return _json(reply.model_dump_json())

    async def claim(self, request: Request) -> Response:
        """POST /v1/nodes/{name}/claims."""
        form = ClaimRequest.model_validate_json(await request.body())
        await self._note(lambda: self.claims.extend(form.claims))
        return _json(ClaimReply(granted=tuple(ref for ref in form.claims if self.grant(ref))).model_dump_json())

    async def leave(self, request: Request) -> Response:
        """POST /v1/nodes/{name}/leave."""
        form = LeaveRequest.model_validate_json(await request.body())
        await self._note(lambda: self.leaves.append(form))
        return _json("{}")

    async def blob(self, request: Request) -> Response:
        """GET and PUT /v1/blobs/{sha256}."""
        sha256 = request.path_params["sha256"]
        if request.method == "PUT":
            self.blobs[sha256] = await request.body()
            return Response(status_code=201)
        data = self.blobs.get(sha256)
        return Response(status_code=404) if data is None else Response(data)

    def _door(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if not self.is_away:
                return await handler(request)
            await self._note(self._turn_away)
            return Response(status_code=503)

        return answer

    def _now(self) -> float | None:
        return None if self.wall_s is None else self.wall_s()

    def _turn_away(self) -> None:
        self.turned_away += 1

    async def _note(self, change: Callable[[], None]) -> None:
        async with self._news:
            change()
            self._news.notify_all()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeOrchestrator]:
        """Answer on a free loopback port, and listen to every node's stream."""
        routes = [
            Route("/v1/nodes", self._door(self.join), methods=["POST"]),
            Route("/v1/nodes/{name}/renewals", self._door(self.renew), methods=["POST"]),
            Route("/v1/nodes/{name}/claims", self._door(self.claim), methods=["POST"]),
            Route("/v1/nodes/{name}/leave", self._door(self.leave), methods=["POST"]),
            Route("/v1/blobs/{sha256}", self._door(self.blob), methods=["GET", "PUT"]),
        ]
        server = HttpServer("127.0.0.1", 0)
        self.url = server.url
        await server.start(Starlette(routes=routes))
        listening = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await server.stop()

    async def _listen(self) -> None:
        await self.until_joined()
        last: Any = "0"
        while True:
            name = self.joins[-1].offer.name
            stream = events_stream(name)
            try:
                async with Redis.from_url(self.redis_url) as redis:
                    while True:
                        reply: Any = await redis.xread({stream: last}, block=1000)
                        for entry_id, fields in _entries(reply):
                            last = entry_id
                            await self._heard(unpack(self._said(name, fields)))
            except (RedisError, OSError):
                last = "0"
                await asyncio.sleep(RETRY_S)

    async def until_joined(self) -> None:
        """A node has joined, however long that takes."""
        async with self._news:
            await self._news.wait_for(lambda: self.joins)

    async def _heard(self, events: list[Event]) -> None:
        await self._note(lambda: self.events.extend(events))
        ended = [Ref(invocation=e.invocation, fence=e.fence) for e in events if isinstance(e, Finished)]
        if ended and self.is_settling:
            await self.control("settled", *ended)


def _entries(reply: Any) -> list[Any]:  # noqa: ANN401 - RESP2 gives a list, RESP3 a dict
    if not reply:
        return []
    return list(next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1])


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")
