"""Puts one node together, and takes it apart again.

`Node` is everything but Celery, on the running event loop: simulations and benchmarks use it as it is
and call `deliver`. `worker/process.py` adds Celery and the signals. The order of the start is
binding: the journal is recovered before the fleet is told of us, servers are up before they are
offered, and nothing is consumed before the lease is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

import httpx
import psutil
import structlog
from redis.asyncio import Redis

from tasks.ids import new_id
from tasks.invocation import Lane
from tasks.node import JoinReply, JoinRequest, Load, NodeState, Offer, Phase, Ref
from tasks.queues import pool_queue
from tasks.redis_clients import async_client
from tasks.redis_tls import with_tls
from tasks.tool import ToolSpec
from tasks.tracing import Spans
from worker.admit import Admission
from worker.approvals import Approvals
from worker.attempt import Limits, Runner
from worker.attempt import Upstreams as Callee
from worker.blobs import Blobs
from worker.certificate import Certificate
from worker.claims import ClaimBatch
from worker.control import ControlReader
from worker.door import Door
from worker.drain import drain
from worker.ear import Ear
from worker.enrol import Credentials, Given
from worker.execute import Executor
from worker.exporter import Gauges, Metrics
from worker.fleet_clock import FleetClock
from worker.grants import AskGuard, Grants, guard_through
from worker.heard import Heard
from worker.journal import Journal, Kept
from worker.machine import boot_id, our_version
from worker.membership import Membership, join
from worker.namesake import Namesake
from worker.reporter import Reporter
from worker.seals import Seals
from worker.secrets import NodeSecrets
from worker.settings import NodeSettings
from worker.unsettled import Unsettled
from worker.upstreams.upstream import ServerStatus
from worker.watch import Watch
from worker.work import Stop

WHOLE_NODE = ""
"""In an offer's `unhealthy`: not one server, all of them."""
_log = structlog.get_logger()


class Servers(Callee, Protocol):
    """This node's MCP servers, as the node's life needs them."""

    version: int
    on_change: Callable[[], None]
    grants: Grants
    ask_guard: AskGuard

    async def start(self) -> None:
        """Start them."""
        ...

    async def close(self) -> None:
        """End them."""
        ...

    def tools(self) -> tuple[ToolSpec, ...]:
        """What can be called now."""
        ...

    def capabilities(self) -> frozenset[str]:
        """Names of live servers."""
        ...

    def unhealthy(self) -> dict[str, str]:
        """Servers that are offered and should be passed by, and why."""
        ...

    def mirrors(self) -> dict[str, tuple[str, ...]]:
        """Servers that keep copies of projects' files, and of which projects."""
        ...

    def status(self) -> tuple[ServerStatus, ...]:
        """How each is doing."""
        ...


class Node:
    """One node without Celery. `start`, then `deliver`, then `drain` and `close`."""

    def __init__(
        self,
        settings: NodeSettings,
        servers: Servers,
        *,
        clock: FleetClock,
        transport: httpx.AsyncBaseTransport | None = None,
        redis_of: Callable[[str], Redis] | None = None,
        secrets: NodeSecrets | None = None,
        spans: Spans | None = None,
    ) -> None:
        self.settings, self._spans = settings, spans
        self.servers, self._secrets = servers, secrets or NodeSecrets()
        self.metrics = Metrics()
        self.url = settings.url
        self.incarnation = new_id()
        self.drain_wanted = asyncio.Event()
        """The orchestrator wants this node drained."""
        self.ear: Ear | None = None
        """Set where Celery consumes."""
        self.reply: JoinReply
        self.executor: Executor
        self.membership: Membership
        self.seals: Seals
        self._clock = clock
        self._redis_of = redis_of or partial(async_client, is_single=True)  # its own waits would keep us from Redis
        self._namesake = Namesake(settings.state_dir, settings.name)
        self._heard = Heard(settings.state_dir / "heard", is_kept=settings.machine_ttl_s > 0)
        is_tls = "https://" in settings.orchestrator_url
        self._certificate = Certificate(settings.state_dir, settings.name, settings.ca) if is_tls else None
        self.door = Door(settings.orchestrator_url, transport, self._certificate.context if self._certificate else None)
        self._tasks: list[asyncio.Task[None]] = []
        self._redis: list[Redis] = []
        self._journal: Journal | None = None
        self._credentials: Credentials | None = None
        self._unsettled: Unsettled | None = None
        self._reporter: Reporter | None = None

    def open_journal(self) -> None:
        """First of all: it refuses a second process with this name, and says what was left behind.

        Raises:
            JournalInUse, JournalUnusable
            SettingsError: there is nothing to join with.
        """
        settings, folder = self.settings, self.settings.state_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._journal = Journal.open(folder / f"{settings.name}.db", boot_id=boot_id())
        given = Given(settings.enrol_token.get_secret_value(), settings.join_token.get_secret_value())
        self._credentials = Credentials(folder, settings.name, given, random.random, self._certificate)

    async def start(self) -> JoinReply:
        """Join and hold the lease. The servers are started before, by whoever owns them.

        Raises:
            NotAllowed, Refused: the orchestrator will not have us.
        """
        if self._journal is None:
            self.open_journal()
        assert self._journal is not None
        assert self._credentials is not None
        left = self._journal.recovered
        request = JoinRequest(
            incarnation=self.incarnation,
            offer=self.offer(),
            resumes=left.resumes,
            interrupted=_refs(left.interrupted),
            finished=_refs(left.finished),
            unstarted=left.unstarted,
            seals=True,
            yields=self._namesake.is_feared,
        )
        self._journal.joining(self.incarnation)
        attempt = partial(join, self.door, request, self._clock, random.random)
        self.reply, lease = await self._credentials.enter(self.door, attempt)
        self._namesake.gone()
        self._journal.adopt(self.incarnation, boot_id())
        self._assemble(self._journal)
        self.executor.lease = lease
        self.executor.recover(left.finished)
        self._secrets.joined(self.door)
        return self.reply

    def deliver(self, body: str, mac: str) -> None:
        """One message of a queue. On the event loop's thread."""
        self.executor.deliver(body, mac)

    async def wait(self) -> None:
        """Until one of the node's own loops ends, which only an error makes it do.

        Raises:
            Superseded: another incarnation has our name.
        """
        ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()

    async def drain(self, stop_consuming: Callable[[], None]) -> bool:
        """Finish, hand back, settle, leave; False where something had to stay in the journal."""

        def announce() -> None:
            stop_consuming()
            self.membership.is_draining = True
            self.membership.nudge()

        return await drain(
            self.executor,
            self.door,
            self.incarnation,
            announce=announce,
            deadline_s=self.settings.drain_s,
            clock=self._clock,
        )

    async def close(self) -> None:
        """End at once. What is not settled stays in the journal."""
        if self._reporter is not None:
            self.executor.is_draining = True
            self.executor.stop_all(Stop.DRAIN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._secrets.close()
        for redis in self._redis:
            with contextlib.suppress(OSError):
                await redis.aclose()
        await self.door.close()
        if self._journal is not None:
            await self._journal.close()

    def offer(self) -> Offer:
        """What this node can do right now. No slots while its journal cannot be written."""
        settings, journal = self.settings, self._journal
        is_able = journal is None or journal.trouble is None
        return Offer(
            name=settings.name,
            pool=settings.pool,
            slots=settings.slots if is_able else dict.fromkeys(Lane, 0),
            capabilities=settings.capabilities | self.servers.capabilities(),
            tools=self.servers.tools(),
            location=settings.location,
            visibility=settings.visibility,
            labels=settings.labels,
            weight=settings.weight,
            version=our_version(),
            url=self.url,
            unhealthy=self.servers.unhealthy() | ({WHOLE_NODE: self._deaf} if self._deaf else {}),
            notes={one.name: one.note for one in self.servers.status() if one.note is not None},
            mirrors=self.servers.mirrors(),
        )

    @property
    def redis_url(self) -> str:
        """With this machine's files."""
        return with_tls(self.reply.redis_url, self.settings.redis_tls)

    @property
    def _deaf(self) -> str | None:
        return None if self.ear is None else self.ear.trouble

    def health(self) -> dict[str, object]:
        """What `/health` answers; `ok` says whether this node may start work.

        A consumer that does not move leaves it ok: without Redis none does, and to be restarted for that would cost
        a node what it runs.
        """
        assert self._journal is not None
        if self._reporter is None:
            return {"ok": False, "node": self.settings.name, "why": "it has not joined yet"}
        left_s = self.executor.lease.left_s(self._clock.mono_s())
        return {
            "ok": left_s > 0 and self._journal.trouble is None,
            "node": self.settings.name,
            "pool": self.settings.pool,
            "incarnation": self.incarnation,
            "is_draining": self.executor.is_draining,
            "lease": {"left_s": round(left_s, 3), "term": self.executor.lease.term},
            "orchestrator": "ok" if self.membership.is_reachable else "away",
            "consumer": self._deaf or "ok",
            "redis": "ok" if self._reporter.is_redis_up else "away",
            "journal": self._journal.trouble or "ok",
            "unsettled": self._unsettled_count(),
            "clock_ahead_s": round(self._clock.off_s(), 3),
            "servers": sorted(self.servers.capabilities()),
            "unhealthy": self.offer().unhealthy,
            "agent_limits": {one.name: one.limits for one in self.servers.status() if one.limits is not None},
            "running": self.executor.counts(Phase.RUNNING),
            "waiting": self.executor.counts(Phase.WAITING),
        }

    def _assemble(self, journal: Journal) -> None:
        reply, settings = self.reply, self.settings
        wall_s, refused = self._clock.wall_s, self.metrics.refused
        seals = self.seals = Seals(node=reply.node, pool=settings.pool, wall_s=wall_s, refused=refused)
        seals.take(reply.seal)
        self._reporter = Reporter(self._connect(), reply.events_stream, self._clock, seals.event)
        blobs = Blobs(settings.state_dir / f"{settings.name}.results", self.door)
        self._unsettled = Unsettled(journal, self._reporter, blobs)
        limits = Limits(reply.inline_limit_bytes, reply.result_limit_bytes, reply.capsule_limit_bytes)
        watch = Watch(self._reporter, self._clock)
        approvals = Approvals(self._reporter, self._clock, new_id)
        self.executor = Executor(
            admission=self._admission(),
            slots=settings.slots,
            runner=Runner(self.servers, journal, blobs, watch, self._clock, limits, reply.node, approvals),
            journal=journal,
            unsettled=self._unsettled,
            claims=ClaimBatch(self.door, self.incarnation),
            meter=self.metrics,
            clock=self._clock,
            spans=self._spans,
        )
        self.membership = self._member(journal, approvals)
        self.servers.on_change, self.servers.ask_guard = (
            self.membership.nudge,
            guard_through(self.door, self.incarnation),
        )
        control = ControlReader(
            self._connect(), reply.control_stream, self.executor.settled, self.executor.cancel, approvals, seals.control
        )
        self.metrics.watch(self._gauges())
        self._tasks = [asyncio.create_task(run()) for run in (self._reporter.run, control.run, self.membership.run)]
        if self._certificate is not None and self._certificate.is_there:
            keeping = self._certificate.keep(self.door.certificate, self._clock, random.random)
            self._tasks.append(asyncio.create_task(keeping))

    def _admission(self) -> Admission:
        reply = self.reply
        admission = Admission(
            node=reply.node,
            incarnation=self.incarnation,
            key=bytes.fromhex(reply.delivery_key),
            pool_key=bytes.fromhex(reply.pool_key),
            term=reply.term,
        )
        admission.sealed = lambda: self.seals.deliveries
        return admission

    def _member(self, journal: Journal, approvals: Approvals) -> Membership:
        def load() -> Load:
            journal.probe()
            if self.ear is not None:
                self.ear.look()
            cpu, memory = psutil.cpu_percent() / 100, psutil.virtual_memory().percent / 100
            running, waiting = self.executor.counts(Phase.RUNNING), self.executor.counts(Phase.WAITING)
            ahead_s = round(self._clock.off_s(), 3)
            return Load(cpu=cpu, memory=memory, running=running, waiting=waiting, clock_ahead_s=ahead_s)

        return Membership(
            door=self.door,
            node=self.reply.node,
            incarnation=self.incarnation,
            renew_every_s=self.reply.renew_every_s,
            executor=self.executor,
            offer=self.offer,
            load=load,
            on_state=self._on_state,
            on_answers=approvals.answered,
            grants=self.servers.grants,
            on_secrets=self._secrets.marked,
            seals=self.seals,
            clock=self._clock,
        )

    def _on_state(self, state: NodeState) -> None:
        self._heard.now()
        self.executor.open(is_open=state is NodeState.ACTIVE)
        if state is NodeState.DRAINING and not self.executor.is_draining:
            self.drain_wanted.set()

    def _gauges(self) -> Gauges:
        return Gauges(
            connections=lambda: len(self.servers.capabilities()),
            health=lambda: 1.0 if self.health()["ok"] else 0.0,
            unsettled=self._unsettled_count,
            running=lambda lane: self.executor.counts(Phase.RUNNING)[lane],
            waiting=lambda lane: self.executor.counts(Phase.WAITING)[lane],
            leaks=lambda: {one.name: one.leaks for one in self.servers.status() if one.leaks},
        )

    def _unsettled_count(self) -> int:
        return 0 if self._unsettled is None else len(self._unsettled)

    def _connect(self) -> Redis:
        self._redis.append(self._redis_of(self.redis_url))
        return self._redis[-1]


def pool_queues(settings: NodeSettings) -> dict[Lane, str]:
    """The queues of late binding, by lane."""
    return {lane: pool_queue(settings.pool, lane) for lane in Lane}


def _refs(rows: tuple[Kept, ...]) -> tuple[Ref, ...]:
    return tuple(Ref(invocation=row.invocation, fence=row.fence) for row in rows)
