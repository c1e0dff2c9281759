"""What leading means: what a new leader reads first, the loops it runs, and what runs beside the doors.

`leader.py` holds the lease; `assembly.py` made the parts.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette

from orchestrator.audited import audit_loops
from orchestrator.core import Core
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.send import Sender
from orchestrator.front.app import McpFront
from orchestrator.front.grants import GuardFront
from orchestrator.leader import Leadership, Loop, every
from orchestrator.ledger.grant_shelf import GrantRows
from orchestrator.ledger.shelves import KeyRows
from orchestrator.oauth import TEND_EVERY_S, OAuth
from orchestrator.observability.flower_feed import FlowerFeed
from orchestrator.observability.vitals import Vitals
from orchestrator.scaling import Scaling
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.audit import Audit
from orchestrator.settling.streams import NodeStreams
from orchestrator.settling.sweep import Graces, Sweep
from orchestrator.upkeep import upkeep
from tasks.errors import LedgerDown

LAPSE_EVERY_S = 0.25
SWEEP_EVERY_S = 1.0
RELOAD_EVERY_S = 2.0
AUDIT_EVERY_S = 5.0
POLICY_EVERY_S = 3.0
USES_EVERY_S = 60.0
"""When a key was used last is written down so often."""
WAITING_PAGE = 5000


def leadership_of(  # noqa: PLR0917 - what leads, and who is told
    settings: OrchestratorSettings,
    core: Core,
    scaling: Scaling,
    oauth: OAuth,
    address: str,
    follows: Callable[[str | None], None],
) -> Leadership:
    """The lease of this process, not asked for yet."""

    def lost() -> None:
        core.dispatcher.epoch = None

    return Leadership(
        epochs=core.stores.ledger,
        holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        address=address,
        ttl_s=settings.leader_ttl_s,
        proof=core.proof,
        clock=core.stores.clock,
        gained=lead(core, scaling.begin, oauth.restore),
        proved_again=core.desk.forgive,
        lost=lost,
        follows=follows,
        loops=[*_loops(settings, core), scaling.loop.run, every(TEND_EVERY_S, oauth.tend, "oauth keys")],
    )


async def _nothing() -> None:
    pass


def lead(
    core: Core, begin: Callable[[], None] = lambda: None, recall: Callable[[], Awaitable[None]] = _nothing
) -> Callable[[int], Awaitable[None]]:
    """What a new leader does first: remember nodes, open attempts, and everything that waits."""

    async def gained(epoch: int) -> None:
        ledger, roster = core.stores.ledger, core.roster
        core.dispatcher.recall(paused=await ledger.paused(), bound=await ledger.affinities())
        core.enroller.restore(await ledger.enrolments())
        core.keys.restore(await KeyRows(ledger).all())
        grants = GrantRows(ledger)
        core.guardian.restore(await grants.all(), await grants.keys())
        await core.policy.refresh()
        await recall()
        await core.claims.load()
        core.desk.restore([row for row in await ledger.nodes() if roster.find(row.name) is None])
        await core.pool_book.load()
        roster.shapes.recall(dict(core.pool_book.shapes()))
        roster.changed()
        for attempt in await ledger.outstanding():
            core.attempts.add(attempt)
        core.approvals.recall(await ledger.open_approvals())
        core.dispatcher.epoch = epoch
        after: str | None = None
        while page := await ledger.waiting(after=after, limit=WAITING_PAGE):
            for waiting in page:
                core.dispatcher.offer(waiting)
            after = page[-1].id
        fleet_changed(core.dispatcher, core.streams)
        await core.audit.begin(epoch)
        begin()

    return gained


def fleet_changed(dispatcher: Dispatcher, streams: NodeStreams) -> None:
    """Nodes came, went, or offer something else."""
    dispatcher.fleet_changed()
    streams.ring_soon()


def _loops(settings: OrchestratorSettings, core: Core) -> list[Loop]:
    graces = Graces(settings.grace_tools_s, settings.grace_agents_s)
    sweep = Sweep(
        attempts=core.attempts.all,
        is_member=lambda name: core.roster.find(name) is not None,
        fates=core.settler,
        graces=graces,
        clock=core.stores.clock,
    )

    async def report_loads() -> None:
        core.dispatcher.loads_changed({m.name: (m.load.cpu, m.load.memory) for m in core.roster.members()})

    async def save_shapes() -> None:
        await remember_shapes(core)

    audit = Audit(
        books=core.stores.ledger, knows=core.dispatcher.knows, doubt=core.doubts.note, clock=core.stores.clock
    )
    return [
        core.dispatcher.run,
        core.streams.run,
        every(LAPSE_EVERY_S, core.desk.lapse, "lapse"),
        every(SWEEP_EVERY_S, sweep.sweep, "sweep"),
        every(SWEEP_EVERY_S, core.doubts.resolve, "doubts"),
        every(SWEEP_EVERY_S, core.circuits.look, "circuits"),
        every(SWEEP_EVERY_S, core.dispatcher.save_affinity, "affinity"),
        every(SWEEP_EVERY_S, save_shapes, "pool shapes"),
        every(RELOAD_EVERY_S, report_loads, "loads"),
        every(POLICY_EVERY_S, core.policy.refresh, "policies"),
        every(USES_EVERY_S, core.keys.save_uses, "uses of keys"),
        every(RELOAD_EVERY_S, core.guardian.look, "grants"),
        every(SWEEP_EVERY_S, core.redis_users.keep, "redis users"),
        every(AUDIT_EVERY_S, audit.look, "audit"),
        *upkeep(settings, core),
        *audit_loops(settings, core),
    ]


async def remember_shapes(core: Core) -> None:
    """Write down what machines of scaled pools bring, where that changed.

    Raises:
        LedgerDown: the rest is written next time.
    """
    rows = core.roster.shapes.dirty()
    for number, (pool, shape) in enumerate(rows):
        try:
            await core.pool_book.set_shape(pool, shape)
        except LedgerDown:
            core.roster.shapes.unsaved(left for left, _ in rows[number:])
            raise


def lifespan_of(  # noqa: PLR0917 - what begins and ends with the doors
    core: Core,
    sender: Sender,
    leadership: Leadership,
    front: McpFront,
    guard: GuardFront,
    feed: FlowerFeed | None,
    scaling: Scaling,
    oauth: OAuth,
    vitals: Vitals,
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """What begins before the doors open and ends after they closed."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        sender.start()
        if feed is not None:
            feed.start()
        leading = asyncio.create_task(leadership.run())
        feeling = asyncio.create_task(vitals.run())
        try:
            await leadership.is_leader.wait()  # doors open on a roster and open attempts that are known
            async with front.running(), guard.running():
                yield
        finally:
            await core.audit.close()
            leading.cancel()
            feeling.cancel()
            await asyncio.gather(leading, feeling, return_exceptions=True)
            await asyncio.to_thread(sender.stop)
            if feed is not None:
                await asyncio.to_thread(feed.stop)
            await scaling.close()
            await oauth.close()
            await core.stores.ledger.close()
            await core.stores.redis.aclose()

    return lifespan
