"""Two machines, a ledger, a leader, perhaps an old one, and what is on its way between them.

The orchestrator's core is the real one, on a ledger in memory; the nodes keep the real lease and
admission. Owns single steps; in which order they come is for `machine.py` and the tests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from orchestrator.assembly import core_of
from orchestrator.core import Core, Stores
from orchestrator.leading import lead
from orchestrator.ledger.errors import EpochLost
from orchestrator.settings import OrchestratorSettings
from orchestrator.settling.sweep import Graces, Sweep
from orchestrator.testing.memory_ledger import FencedLedger, LedgerFlaw, MemoryLedger
from orchestrator.testing.protocol import SAFE, TOOLS, UNSAFE, CapturedLetters
from tasks.app import make_app
from tasks.errors import Late
from tasks.invocation import Lane, State
from tasks.node import Offer
from tasks.testing.clock import FakeClock
from worker.testing.model_node import Disk, ModelNode, NodeFlaw

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tasks.ledger_events import Finished
    from tasks.node import JoinRequest, RenewReply, RenewRequest

NAMES = ("a", "b")
SLOTS = 1
CELERY = make_app("redis://127.0.0.1:1/0")
FOLDER = TemporaryDirectory(prefix="mcpfleet-model-")
SETTINGS = OrchestratorSettings.model_validate(
    {"token": "t", "join_token": "j", "seal_deliveries": False, "audit_key_file": Path(FOLDER.name) / "audit.key"}
)


class SilentRedis:
    """Takes every command and does nothing: streams are played by the machine."""

    def __getattr__(self, _name: str) -> Any:
        return self._nothing

    async def _nothing(self, *_words: object, **_more: object) -> None:
        return None


@dataclass
class Planted:
    """One bug."""

    ledger: frozenset[LedgerFlaw] = frozenset()
    node: frozenset[NodeFlaw] = frozenset()
    patches: Mapping[tuple[Any, str], Any] = field(default_factory=dict)
    """(module, name) → what to put there."""
    steps: frozenset[str] = frozenset()
    """The steps to search among; all, where none is named."""
    nodes: int = 2
    seed: int = 5
    """With it the search ends within seconds; with any other it ends too, later."""
    tools: tuple[str, ...] = (SAFE, UNSAFE, UNSAFE)


@dataclass
class Leader:
    """One orchestrator process that leads, or believes that it does."""

    core: Core
    letters: CapturedLetters
    sweep: Sweep
    has_read: dict[str, list[Finished]] = field(default_factory=dict)
    """By node: what it read of its stream while it led, and did not act on yet."""


@dataclass
class Flight:
    """A renewal on its way; with a reply, on its way back."""

    node: ModelNode
    request: RenewRequest
    sent_at_s: float
    reply: RenewReply | None = None
    leader: Leader | None = None
    """Whom it reached while that one led; absent: whoever leads when it arrives."""


@dataclass
class Place:
    """One machine: its disk stays, its processes come and go."""

    name: str
    disk: Disk = field(default_factory=Disk)
    node: ModelNode | None = None
    incarnations: int = 0
    letters: list[tuple[str, str]] = field(default_factory=list)
    stream: list[Finished] = field(default_factory=list)
    newest: Flight | None = None
    joins: list[JoinRequest] = field(default_factory=list)
    """Copies that may still come, late."""


class World:
    """What there is, and single steps of it."""

    def __init__(self, planted: Planted | None = None) -> None:
        self.planted = planted or Planted()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.ledger = MemoryLedger(self.planted.ledger)
        self.places = {name: Place(name) for name in NAMES[: self.planted.nodes]}
        self.flights: list[Flight] = []
        self.zombie: Leader | None = None
        self.starts: Counter[str] = Counter()
        self.answered: set[tuple[str, int]] = set()
        self.leader = self.elected()
        for place in self.places.values():
            self.boot(place)

    def place(self, index: int) -> Place:
        """One of the machines."""
        return list(self.places.values())[index % len(self.places)]

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Without the outside world nothing ever waits."""
        return self.loop.run_until_complete(step)

    def elected(self) -> Leader:
        """A new orchestrator process, on the same ledger."""
        letters, epoch = CapturedLetters(), self.ledger.lead()
        fenced = FencedLedger(self.ledger, epoch)
        stores = Stores(
            cast("Any", fenced), cast("Any", SilentRedis()), CELERY, cast("Any", Path("nowhere")), self.clock
        )
        core = core_of(SETTINGS, stores, letters)
        self.run(lead(core)(epoch))
        getattr(core.attempts, "begin", lambda: None)()
        sweep = Sweep(
            attempts=core.attempts.all,
            is_member=lambda name: core.roster.find(name) is not None,
            fates=core.settler,
            graces=Graces(),
            clock=self.clock,
        )
        return Leader(core, letters, sweep)

    def boot(self, place: Place, *, is_told_twice: bool = False) -> None:
        """A process starts and joins; the reply to its first join may be lost."""
        place.incarnations += 1
        offer = Offer(name=place.name, pool="east", slots={Lane.TOOLS: SLOTS}, tools=TOOLS)
        incarnation = f"{place.name}/{place.incarnations}"
        node = ModelNode(offer, incarnation, place.disk, self.clock, self.planted.node)
        request = node.join().model_copy(update={"number": 1})
        place.joins = [request]
        if is_told_twice:
            self.run(self.leader.core.desk.join(request))
            request = request.model_copy(update={"number": 2})
            place.joins.append(request)
        reply = self.run(self.leader.core.desk.join(request))
        place.stream += node.joined(reply, self.clock.mono_s())
        place.node = node

    def kill(self, place: Place) -> None:
        """Kill -9: what was on its way to this process is gone with it."""
        self.flights = [flight for flight in self.flights if flight.node is not place.node]
        place.node = None

    def post(self, leader: Leader) -> None:
        """What was released goes to the queues of the nodes."""
        for letter in leader.letters.letters:
            name = next(name for name in NAMES if f".n.{name}." in letter.queue)
            self.places[name].letters.append((letter.body, letter.mac))
        leader.letters.letters.clear()

    def arrive(self, flight: Flight) -> None:
        """The leader answers a renewal; one that came late it refuses."""
        leader = flight.leader or self.leader
        try:
            reply = self.run(leader.core.desk.renew(flight.node.offer.name, flight.request))
        except (Late, EpochLost):
            return
        place = self.places[flight.node.offer.name]
        if reply.granted:
            flight.reply = reply
        elif place.node is flight.node:
            self.kill(place)

    def hear(self, flight: Flight) -> None:
        """A node acts on a reply, unless it gave that request up before."""
        place = self.places[flight.node.offer.name]
        if place.node is flight.node and place.newest is flight and flight.reply is not None:
            flight.node.hear(flight.request, flight.reply, flight.sent_at_s)

    def settle(self, leader: Leader, place: Place, *, is_acknowledged: bool) -> None:
        """The leader reads what a node told."""
        if leader is self.leader:
            events, place.stream = place.stream, []
        else:
            events = leader.has_read.pop(place.name, [])
        try:
            taken = self.run(leader.core.settler.finished([(place.name, event) for event in events]))
        except EpochLost:
            return
        if is_acknowledged and place.node is not None:
            for _name, event in taken:
                place.node.settled((event.invocation, event.fence))

    def sent(self, place: Place) -> Flight | None:
        """A renewal, if there is somebody to send it."""
        if place.node is None:
            return None
        flight = Flight(place.node, place.node.renewal(), self.clock.mono_s())
        place.newest = flight
        return flight

    def start_and_count(self, place: Place) -> None:
        """A tool is started, if the node may. Then nobody has given that attempt up, and nobody may have."""
        delivery = place.node.start() if place.node else None
        if delivery is not None:
            self.starts[delivery.invocation] += 1
            one = self.ledger.rows[delivery.invocation].invocation
            is_given_up = one.fence != delivery.fence or one.state is not State.RELEASED
            assert not is_given_up, f"{one.id} was started at fence {delivery.fence}, and is {one.state} at {one.fence}"

    def answer(self, place: Place, ref: tuple[str, int]) -> None:
        """A tool answers."""
        assert place.node is not None
        place.stream.append(place.node.finish(ref))
        self.answered.add(ref)
