"""A fleet as the sensors see it, played by hand: calls come and go, nodes report or fall silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.autoscaler.observe.sensors import Sensors
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.values import ClaimState, LaneSeen, NodeClaim, Observation, Rung
from orchestrator.dispatch.tally import Demand
from orchestrator.dispatch.view import Shape
from orchestrator.happenings import AttemptEnded, AttemptReleased, AttemptRunning
from orchestrator.ledger.values import Outstanding
from tasks.invocation import Lane, State
from tasks.node import Load, NodeState, Offer
from tasks.outcome import ErrorInfo
from tasks.testing.clock import FakeClock

POOL, TOOL = "builders", "git.log"
RENEW_S = 2.0


def policy(pool: str = POOL, **changes: object) -> ScalePolicy:
    """A pool's, with one rung."""
    return ScalePolicy(**{"pool": pool, "ladder": (Rung("cloud", "small"),), **changes})  # type: ignore[arg-type]


@dataclass
class PlayedNode:
    """A member."""

    offer: Offer
    reported_at_s: float | None
    joined_at: float
    known_since_s: float
    state: NodeState = NodeState.ACTIVE
    load: Load = field(default_factory=Load)
    why: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name."""
        return self.offer.name

    def is_open(self, now_s: float) -> bool:
        """While it is active."""
        return self.state is NodeState.ACTIVE and now_s >= 0

    def unhealthy(self) -> dict[str, str]:
        """As the test says."""
        return self.why


class SensedFleet:
    """Satisfies `sensors.Fleet` and `sensors.Claims`."""

    def __init__(self, *policies: ScalePolicy) -> None:
        self.clock = FakeClock()
        self.members: list[PlayedNode] = []
        self.open: dict[str, Outstanding] = {}
        self.waiting: list[Demand] = []
        self.ordered: list[NodeClaim] = []
        self.boots: dict[str, list[float]] = {}
        self.slots: Mapping[Lane, int] | None = {Lane.TOOLS: 4}
        self.leads, self.down = True, None
        self.renews = True
        self.sensors = Sensors(
            policies={one.pool: one for one in policies or (policy(),)},
            fleet=self,
            claims=self,
            leads=lambda: self.leads,
            broker_down=lambda: self.down,
            renew_every_s=RENEW_S,
            clock=self.clock,
        )

    def nodes(self) -> list[PlayedNode]:
        """Joined."""
        return self.members

    def attempts(self) -> list[Outstanding]:
        """Open."""
        return list(self.open.values())

    def demand(self) -> list[Demand]:
        """Waiting."""
        return self.waiting

    def slots_of(self, pool: str) -> Mapping[Lane, int] | None:
        """The same of every pool."""
        return self.slots if pool else None

    def standing(self, pool: str) -> list[NodeClaim]:
        """Ordered."""
        return [claim for claim in self.ordered if claim.pool == pool]

    def boots_s(self, pool: str) -> list[float]:
        """Seen."""
        return self.boots.get(pool, [])

    def pass_s(self, seconds: float) -> None:
        """Time passes, and nodes renew."""
        self.clock.advance(seconds)
        for node in self.members:
            if self.renews and node.reported_at_s is not None and node.state is not NodeState.LOST:
                node.reported_at_s = self.clock.mono_s()

    def join(
        self, name: str, *, pool: str = POOL, slots: int = 4, agents: int = 0, load: Load | None = None
    ) -> PlayedNode:
        """A node joins and reports."""
        offer = Offer(name=name, pool=pool, slots={Lane.TOOLS: slots, Lane.AGENTS: agents})
        now_s = self.clock.mono_s()
        node = PlayedNode(offer, now_s, self.clock.wall_s(), now_s, load=load or Load())
        self.members.append(node)
        return node

    def order(self, claim_id: str, state: ClaimState = ClaimState.READY, **changes: object) -> NodeClaim:
        """A machine was ordered now."""
        now = self.clock.wall_s()
        fields = {
            "pool": POOL,
            "node": f"{POOL}-{claim_id}",
            "rung": Rung("cloud", "small"),
            "ready_at": now,
            **changes,
        }
        claim = NodeClaim(claim_id, state=state, created_at=now, state_at=now, **fields)  # type: ignore[arg-type]
        self.ordered.append(claim)
        return claim

    def release(
        self, call_id: str, *, waited_s: float = 0.0, node: str = "n1", pool: str = POOL, lane: Lane = Lane.TOOLS
    ) -> None:
        """It goes to a node."""
        now = self.clock.wall_s()
        self.open[call_id] = Outstanding(
            call_id, 1, node, "i", 1, pool, lane, TOOL, None, State.RELEASED, now, None, None, cancel_requested=False
        )
        self.sensors.hear(AttemptReleased(call_id, 1, TOOL, None, pool, node, lane, "q", now, waited_s, ()))

    def start(self, call_id: str) -> None:
        """Its node says so."""
        found = self.open[call_id]
        now = self.clock.wall_s()
        self.open[call_id] = Outstanding(
            call_id, 1, found.node, "i", 1, found.pool, found.lane, TOOL, None, State.RUNNING, now, now, None,
            cancel_requested=False,
        )  # fmt: skip
        self.sensors.hear(AttemptRunning(call_id, 1, found.node or "", now))

    def end(
        self, call_id: str, ending: str = "succeeded", *, error: ErrorInfo | None = None, to: State = State.SUCCEEDED
    ) -> None:
        """It ended, and was started if somebody said so."""
        found = self.open.pop(call_id)
        now = self.clock.wall_s()
        self.sensors.hear(
            AttemptEnded(
                call_id, 1, TOOL, None, found.pool, found.node, found.lane, to, ending, now, found.started_at, now, 1,
                error, None,
            )
        )  # fmt: skip

    def wait(
        self,
        *dues: float,
        pools: tuple[str, ...] = (POOL,),
        up: bool = True,
        regions: tuple[str, ...] = (),
        lane: Lane = Lane.TOOLS,
    ) -> None:
        """Calls of one shape wait, each since then (wall clock)."""
        self.waiting.append(
            Demand(
                Shape(lane, TOOL, frozenset(), None, regions),
                len(dues),
                float(int(min(dues)) + 1),
                Counter(int(due) for due in dues),
                pools=pools if up else (),
                up=pools if up else (),
                growing=pools,
            )
        )

    def look(self, pool: str = POOL) -> Observation:
        """One pool."""
        return next(seen for seen in self.sensors.observe() if seen.pool == pool)

    def tools(self, pool: str = POOL) -> LaneSeen:
        """Its `tools` lane."""
        return self.look(pool).lanes[Lane.TOOLS]
