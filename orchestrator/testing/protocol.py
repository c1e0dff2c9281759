"""The orchestrator's core on a real ledger, with a clock that only tests move, and nodes played by hand.

No Redis, no Celery, no sockets: deliveries are what the core posted, renewals and outcomes are what
the test says. Every test of the protocol is a story of such steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from orchestrator.assembly import core_of
from orchestrator.blobs.disk import DiskBlobs
from orchestrator.core import Core, Stores
from orchestrator.dispatch.send import Letter
from orchestrator.leading import lead
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.sealed import RowKeys, SealedLedger
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.sweep import Graces, Sweep
from orchestrator.settling.waiting import as_waiting
from tasks.app import make_app
from tasks.envelope import Delivery, open_sealed
from tasks.invocation import Call, Invocation, Lane, Principal
from tasks.ledger_events import Finished
from tasks.node import Held, JoinReply, JoinRequest, Offer, Phase, RenewReply, RenewRequest
from tasks.outcome import Outcome
from tasks.scopes import Role
from tasks.testing.clock import FakeClock
from tasks.tool import ToolSpec

SAFE, UNSAFE = "files.read", "files.write"
NOWHERE = "redis://127.0.0.1:1/0"
WHO = Principal("tester", roles=frozenset({Role.DEVELOPER}))


@dataclass
class CapturedLetters:
    """A Sender that keeps what it was given."""

    letters: list[Letter] = field(default_factory=list)
    down_because: str | None = None

    def send(self, letter: Letter) -> None:
        """Keep it."""
        self.letters.append(letter)


@dataclass
class PlayedNode:
    """A node as the test plays it: it remembers its keys and which reply it heard."""

    name: str
    incarnation: str
    reply: JoinReply
    heard: int = 0
    term: int = 1


class Story:
    """One orchestrator core and the nodes a test plays."""

    def __init__(self, core: Core, clock: FakeClock, outgoing: CapturedLetters) -> None:
        self.core, self.clock, self.outgoing = core, clock, outgoing
        self.sweep = Sweep(
            attempts=core.attempts.all,
            is_member=lambda name: core.roster.find(name) is not None,
            fates=core.settler,
            graces=Graces(),
            clock=clock,
        )
        self._count = 0

    @classmethod
    async def begin(
        cls,
        folder: Path,
        clock: FakeClock | None = None,
        *,
        keys: RowKeys | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> Story:
        """A leader on the ledger of this folder, empty the first time; with `keys` payloads are sealed."""
        clock, outgoing = clock or FakeClock(), CapturedLetters()
        url = f"sqlite:///{folder / 'ledger.db'}"
        chosen = OrchestratorSettings.model_validate(
            {"token": "t", "join_token": "j", "database_url": url, "blob_dir": folder / "blobs"}
            | {"seal_deliveries": False}  # nodes that a test plays open nothing; sealing has tests of its own
            | settings
        )
        stores = Stores(
            ledger=await _ledger(url, clock, keys),
            redis=Redis.from_url(NOWHERE),
            celery=make_app(NOWHERE),
            blobs=DiskBlobs(folder / "blobs"),
            clock=clock,
        )
        core = core_of(chosen, stores, outgoing)
        epoch = await stores.ledger.take_epoch("story", 1e9)
        assert epoch is not None, "nobody else leads here"
        await lead(core)(epoch)
        return cls(core, clock, outgoing)

    async def end(self) -> None:
        """Close the ledger."""
        await self.core.stores.ledger.close()
        await self.core.stores.redis.aclose()

    async def join(
        self,
        name: str,
        *,
        slots: int = 2,
        pool: str = "east",
        tools: tuple[ToolSpec, ...] | None = None,
        location: str = "",
        capabilities: frozenset[str] = frozenset(),
        **more: Any,  # noqa: ANN401
    ) -> PlayedNode:
        """A node joins; with a safe and an unsafe tool, unless told otherwise."""
        self._count += 1
        incarnation = f"{name}/{self._count}"
        offer = Offer(
            name=name,
            pool=pool,
            slots={Lane.TOOLS: slots, Lane.AGENTS: 1},
            tools=tools or TOOLS,
            location=location,
            capabilities=capabilities,
        )
        reply = await self.core.desk.join(JoinRequest(incarnation=incarnation, offer=offer, **more))
        return PlayedNode(name, incarnation, reply, term=reply.term)

    async def renew(
        self, node: PlayedNode, *held: Held, is_heard: bool = True, unhealthy: dict[str, str] | None = None
    ) -> RenewReply:
        """A renewal; `is_heard` says whether its reply reached the node, `unhealthy` changes its offer."""
        offer = None
        if unhealthy is not None:
            offer = self.core.roster.get(node.name).offer.model_copy(update={"unhealthy": unhealthy})
        request = RenewRequest(incarnation=node.incarnation, inventory=held, heard=node.heard, offer=offer)
        reply = await self.core.desk.renew(node.name, request)
        if is_heard:
            node.heard, node.term = reply.number, reply.term
        return reply

    async def accept(self, tool: str = SAFE, **call: Any) -> Invocation:  # noqa: ANN401 - any field of Call
        """A call, durable and offered to the dispatcher."""
        row = await self.core.intake.admit(Call(tool, **call), WHO)
        await self.core.stores.ledger.accept([row])
        self.core.dispatcher.offer(as_waiting(row.invocation))
        return row.invocation

    async def accept_unoffered(self, tool: str = SAFE) -> str:
        """A row that its acceptance never told the dispatcher of; its id."""
        row = await self.core.intake.admit(Call(tool), WHO)
        await self.core.stores.ledger.accept([row])
        return row.invocation.id

    async def release(self) -> list[Delivery]:
        """One turn of the dispatcher; what it posted, opened with the key of its node."""
        self.outgoing.letters.clear()
        await self.core.dispatcher.turn()
        return [self._opened(letter) for letter in self.outgoing.letters]

    async def finish(self, node: str, delivery: Delivery, outcome: Outcome) -> None:
        """The node reports an end."""
        await self.said(node, delivery, outcome)

    async def said(self, node: str, delivery: Delivery, outcome: Outcome) -> list[tuple[str, Finished]]:
        """The same; which of it is acknowledged."""
        now_s = self.clock.wall_s()
        event = Finished(delivery.invocation, delivery.fence, now_s, now_s - 0.1, outcome)
        return await self.core.settler.finished([(node, event)])

    async def get(self, invocation: str) -> Invocation:
        """What the ledger says."""
        return await self.core.stores.ledger.get(invocation)

    async def lapse(self, seconds: float) -> None:
        """Time passes without renewals, and the leader looks."""
        for _ in range(int(seconds) + 1):
            self.clock.advance(seconds / (int(seconds) + 1))
            await self.core.desk.lapse()

    async def silence(self, seconds: float) -> None:
        """Nobody speaks for an attempt, until its grace is over."""
        await self.sweep.sweep()
        self.clock.advance(seconds)
        await self.sweep.sweep()

    def _opened(self, letter: Letter) -> Delivery:
        for member in self.core.roster.members():
            if f".n.{member.name}." in letter.queue:
                return open_sealed(letter.body, letter.mac, member.delivery_key).delivery
        raise AssertionError(f"{letter.queue} belongs to no node")


def held(delivery: Delivery, phase: Phase) -> Held:
    """An inventory's line about a delivery."""
    return Held(invocation=delivery.invocation, fence=delivery.fence, phase=phase)


def endings(invocation: Invocation) -> Sequence[str | None]:
    """How its attempts ended, oldest first."""
    return [attempt.ending for attempt in invocation.attempts]


TOOLS = (
    ToolSpec(server="files", definition={"name": "read", "annotations": {"readOnlyHint": True}}),
    ToolSpec(server="files", definition={"name": "write"}),
)


async def _ledger(url: str, clock: FakeClock, keys: RowKeys | None) -> Ledger:
    if keys is None:
        return await Ledger.open(url, clock=clock)
    return (await SealedLedger.open(url, clock=clock)).with_keys(keys, seals=True)
