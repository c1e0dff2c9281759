"""What the autoscaler sees, wants and decides: frozen values, without a clock and without I/O.

Owns the words `NodeClaim`, `Observation`, `Decision` and `Rung`. Refuses to know how any of them is
measured (`sensors.py`), stored (`orchestrator/ledger`) or carried out (`actuate.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tasks.invocation import Lane


class ClaimState(StrEnum):
    """Where a NodeClaim stands. The allowed moves are `MOVES`, and only those."""

    BOOTING = "booting"
    """Ordered: the row is there before the cloud is asked, so the call may or may not have been made."""
    PROVISIONING = "provisioning"
    """The machine answers; it is made a node, or its image does that itself."""
    READY = "ready"
    """Its node has joined."""
    DRAINING = "draining"
    """Its node gets nothing new. Until it was told to leave, it may be taken back."""
    TERMINATING = "terminating"
    """Its node has left, or never came. The cloud is told until it says that the machine is gone."""
    GONE = "gone"


MOVES: Mapping[ClaimState, frozenset[ClaimState]] = {
    ClaimState.BOOTING: frozenset({ClaimState.PROVISIONING, ClaimState.READY, ClaimState.TERMINATING}),
    ClaimState.PROVISIONING: frozenset({ClaimState.READY, ClaimState.TERMINATING}),
    ClaimState.READY: frozenset({ClaimState.DRAINING, ClaimState.TERMINATING}),
    ClaimState.DRAINING: frozenset({ClaimState.READY, ClaimState.TERMINATING}),
    ClaimState.TERMINATING: frozenset({ClaimState.GONE}),
    ClaimState.GONE: frozenset(),
}
COMING = frozenset({ClaimState.BOOTING, ClaimState.PROVISIONING})
"""Paid for, and of no use yet."""
LIVE = COMING | {ClaimState.READY}
"""What counts against `max_machines`, and towards the target."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of getting a machine. A pool's ladder is tried from the top.

    Attributes:
        provider: its name in the scaling file.
        type: the provider's machine type, e.g. `cx33`, `t3.medium`; providers that know none take "".
        region: the provider's region or location.
        is_spot: may be taken away at short notice.
        image: what it boots; the provider's default when empty.
        is_golden: the image makes itself a node from its user data; nothing is provisioned.
        price_eur_h: where the provider cannot tell; what it says otherwise wins.
    """

    provider: str
    type: str = ""
    region: str = ""
    is_spot: bool = False
    image: str = ""
    is_golden: bool = False
    price_eur_h: float | None = None


@dataclass(frozen=True, slots=True)
class NodeClaim:
    """A machine ordered for a pool, from the intent to the last proof that it is gone.

    Attributes:
        id: 10 characters of a-z and 2-7; the cloud's idempotency key and tag.
        node: the name of the node it becomes, and of the machine: `<pool>-<id>`.
        state_at: wall clock of the last move.
        machine_id: the provider's; None until it answered.
        address: where it is reached for provisioning; None until known.
        ready_at: when its node joined, for boot times; None if it never did.
        told_to_leave: DRAINING only: its node was told to leave, so there is no way back.
        reason: why it was ordered, or why it ends; one sentence.
        failures: of its current step, in a row.
        error: of the last failure; empty where there was none.
        failed_with: constant word of why it came to nothing: an error code of the cloud, or one of
            `boot_pause.BOOT_FAILURES`; empty where it served, or was let go.
        failed_at: when that was.
        price_eur_h: None where nobody knows.
        billing_s: what is paid for at least, and in steps of.
        expires_at: wall clock; a machine that passes it ends itself, and is ended by whoever finds it.
        terminated_at: when it was gone.
        cluster: tag of its machine, which it keeps when the fleet is named anew; empty only in what older releases
            wrote, until it is read.
    """

    id: str
    pool: str
    node: str
    rung: Rung
    state: ClaimState
    created_at: float
    state_at: float
    machine_id: str | None = None
    address: str | None = None
    ready_at: float | None = None
    told_to_leave: bool = False
    reason: str = ""
    failures: int = 0
    error: str = ""
    price_eur_h: float | None = None
    billing_s: float = 1.0
    expires_at: float = 0.0
    terminated_at: float | None = None
    failed_with: str = ""
    failed_at: float | None = None
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class LaneSeen:
    """One lane of one pool, now.

    Attributes:
        waiting: calls in the ledger that this pool could take, due now.
        queued: released to its nodes and not started: in the broker, or waiting on a node.
        running: started and not ended.
        slots: of its ready nodes, those joined by hand too.
        slots_per_machine: of one more machine; 0 where the pool does not serve the lane.
        oldest_wait_s: age of the oldest waiting call; 0 where nothing waits.
        wait_p50_s: queue wait, accepted (or due) to started, of the last window; None: nothing started.
        wait_p95_s: the same.
        arrivals_per_s: of the last minute.
        arrivals_trend: change of that rate, per second per second.
        arrivals_trend_sigma: its standard error.
        service_mean_s: started to ended; None: nothing ended yet.
        service_scv: squared coefficient of variation of the service time.
        service_p95_s: None: nothing ended yet.
        error_rate: share of attempts that ended in an error of the server or node, 0 to 1.
    """

    waiting: int = 0
    queued: int = 0
    running: int = 0
    slots: int = 0
    slots_per_machine: int = 0
    oldest_wait_s: float = 0.0
    wait_p50_s: float | None = None
    wait_p95_s: float | None = None
    arrivals_per_s: float = 0.0
    arrivals_trend: float = 0.0
    arrivals_trend_sigma: float = 0.0
    service_mean_s: float | None = None
    service_scv: float = 1.0
    service_p95_s: float | None = None
    error_rate: float = 0.0

    @property
    def depth(self) -> int:
        """What waits, wherever it does: the ledger's backlog and what the queues hold."""
        return self.waiting + self.queued


@dataclass(frozen=True, slots=True)
class MachineSeen:
    """One claimed machine of a pool, now.

    Attributes:
        held: attempts its node holds and has not settled; 0 where it has not joined.
        idle_s: for how long it has held none.
        has_notice: its provider said that it takes it away.
        paid_left_s: until the next paid period begins; None where it is billed by the second.
        told_to_leave: DRAINING only: it cannot be taken back.
        refused: what its cloud said to the order, where no machine was made.
    """

    claim: str
    node: str
    state: ClaimState
    is_spot: bool = False
    has_notice: bool = False
    held: int = 0
    idle_s: float = 0.0
    age_s: float = 0.0
    price_eur_h: float | None = None
    paid_left_s: float | None = None
    failures: int = 0
    told_to_leave: bool = False
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """One pool at one moment: everything `decide` may look at.

    Attributes:
        at: wall clock.
        lanes: by lane.
        machines: claims that are not gone.
        others: ready nodes of the pool that were not claimed: counted as capacity, never ended.
        cpu: mean share in use of its ready nodes; None: nobody reported.
        memory: the same.
        boot_p90_s: order to ready, of the last boots of this pool; None: none was seen.
        price_eur_h: of the next machine on the ladder; None: nobody knows.
        billing_s: its billing step.
        quota_left: machines that its provider still allows; None: not known.
        missing: why this cannot be trusted, e.g. "node b-1 has not reported for 21 s"; empty if it can.
        has_unmet: calls wait that no joined node could run, and a machine of this pool could.
        is_unknown: no node of this pool was ever seen: its first machine is there to learn from, calls or none.
        regions_wanted: patterns of regions that waiting calls are bound to, those of most calls first; calls that
            may run anywhere are not in it.
    """

    pool: str
    at: float
    lanes: Mapping[Lane, LaneSeen] = field(default_factory=dict)
    machines: tuple[MachineSeen, ...] = ()
    others: int = 0
    cpu: float | None = None
    memory: float | None = None
    boot_p90_s: float | None = None
    price_eur_h: float | None = None
    billing_s: float = 1.0
    quota_left: int | None = None
    missing: tuple[str, ...] = ()
    has_unmet: bool = False
    is_unknown: bool = False
    regions_wanted: tuple[str, ...] = ()

    def count(self, *states: ClaimState) -> int:
        """Machines in these states."""
        return sum(1 for machine in self.machines if machine.state in states)


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule's word. `rule` is constant, for filters; `text` says it in words and numbers.

    `machines` is what this rule alone would have; None where it only comments.
    """

    rule: str
    text: str
    machines: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be.

    Attributes:
        at: wall clock of the observation.
        before: machines that count now: ready and on the way.
        target: machines that there should be.
            Those that are kept are `before` less victims and cordoned ones that are `LIVE`; what the target
            has more than that is first taken back from draining ones, then ordered.
        victims: claims to let go, in this order; idle ones only, unless they are taken away anyway.
        cordon: busy claims that should go: they get nothing new, and are victims of a later decision once
            they are idle. Calls are spread over a pool, so without it a pool shrinks only when all is quiet.
        reasons: in the order in which they were weighed; the last one with `machines` decided.
        alerts: what an operator should look at; they buy nothing.
        is_dry: shown, not done.
    """

    pool: str
    at: float
    before: int
    target: int
    victims: tuple[str, ...] = ()
    cordon: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    alerts: tuple[str, ...] = ()
    is_dry: bool = False


@dataclass(frozen=True, slots=True)
class Override:
    """A person's word on the size of a pool. It passes the strategy by, and no limit.

    Attributes:
        until: wall clock; from then on it is as if it had never been.
        by: who said so.
    """

    target: int
    until: float
    by: str = ""
