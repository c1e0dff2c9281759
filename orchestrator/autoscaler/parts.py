"""Makes the autoscaler once, of what its host gives it. Talks to nobody yet.

The host hands over what belongs to others (ledger, registry, enrolment, clouds) and gets back what it
shows: `loop` is one of the leader's loops, and tells views what it saw and decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from orchestrator.autoscaler.act.actuate import Actuator
from orchestrator.autoscaler.act.exclusive import Exclusive
from orchestrator.autoscaler.act.looks import LOOK_LIMIT_S, Looks
from orchestrator.autoscaler.act.nodes import Nodes
from orchestrator.autoscaler.act.notices import Notices
from orchestrator.autoscaler.act.orders import Enroller, Orders, UserData
from orchestrator.autoscaler.act.prices import Prices
from orchestrator.autoscaler.act.silence import Silence
from orchestrator.autoscaler.act.steps import Provisioner, Steps
from orchestrator.autoscaler.act.sweep import Sweep
from orchestrator.autoscaler.book.claims import ClaimBook
from orchestrator.autoscaler.book.pool_book import PoolBook
from orchestrator.autoscaler.book.scale_log import ScaleBooks, ScaleLog
from orchestrator.autoscaler.cloud.provider import CloudProvider
from orchestrator.autoscaler.events import Tell
from orchestrator.autoscaler.loop import Decide, Fit, ScaleLoop, Sensors
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.show.scale_metrics import ScaleCollector, ScaleMetrics, SightCollector
from tasks.clock import Clock


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the autoscaler is given.

    Attributes:
        book: of claims.
        pools: what is remembered of them.
        log: of decisions.
        clouds: by the name that rungs use.
        nodes: `nodes.Registry` in an orchestrator.
        provisioner: for pools that provision.
        user_data: of a claim and its node's settings.
        url_for_nodes: where a machine finds the orchestrator.
        policies: of pools that are scaled.
        leads: nothing is asked of a cloud while this says no.
    """

    book: ClaimBook
    pools: PoolBook
    log: ScaleBooks
    clouds: Mapping[str, CloudProvider]
    nodes: Nodes
    enroller: Enroller
    provisioner: Provisioner
    user_data: UserData
    url_for_nodes: str
    policies: Mapping[str, ScalePolicy]
    limits: FleetLimits
    leads: Callable[[], bool]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Machinery:
    """Claims, and what moves them."""

    book: ClaimBook
    steps: Steps
    actuator: Actuator
    sweep: Sweep
    looks: Looks
    notices: Notices
    prices: Prices
    read_at: float


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """All of it."""

    machinery: Machinery
    loop: ScaleLoop


def machinery_of(given: Surroundings, tell: Tell) -> Machinery:
    """Everything below the decisions. Sensors are made of it."""
    clock, book, exclusive, silence = given.clock, given.book, Exclusive(), Silence(given.clock)
    looks = Looks(clouds=given.clouds, clusters=book.clusters, clock=clock)
    notices = Notices(clouds=given.clouds, clusters=book.clusters, clock=clock)
    prices = Prices(clouds=given.clouds, clock=clock)
    orders = Orders(enroller=given.enroller, user_data=given.user_data, url_for_nodes=given.url_for_nodes)
    read_at = clock.wall_s()
    steps = Steps(
        book=book, clouds=given.clouds, nodes=given.nodes, orders=orders, provisioner=given.provisioner, looks=looks,
        prices=prices, silence=silence, policy_of=lambda pool: given.policies.get(pool) or ScalePolicy(pool, ()),
        has_notice=notices.has, machine_ttl_s=given.limits.machine_ttl_s, clock=clock, tell=tell,
    )  # fmt: skip
    sweep = Sweep(
        book=book, clouds=given.clouds, nodes=given.nodes, steps=steps, exclusive=exclusive, tell=tell,
        leads=given.leads, answer_limit_s=LOOK_LIMIT_S,
    )  # fmt: skip
    actuator = Actuator(
        book=book, clouds=given.clouds, nodes=given.nodes, steps=steps, sweep=sweep, looks=looks, notices=notices,
        prices=prices, silence=silence, exclusive=exclusive,
        machine_ttl_s=given.limits.machine_ttl_s, read_at=read_at, clock=clock, tell=tell, leads=given.leads,
    )  # fmt: skip
    return Machinery(book, steps, actuator, sweep, looks, notices, prices, read_at)


def autoscaler_of(
    given: Surroundings,
    *,
    sensors: Callable[[Machinery], Sensors],
    decide: Decide,
    fit: Fit,
    registry: CollectorRegistry,
) -> Autoscaler:
    """The whole, with its metrics registered.

    Args:
        given: what belongs to others.
        sensors: made of claims, notices and prices.
        decide: of one pool.
        fit: of all pools together.
        registry: of this process.
    """
    metrics = ScaleMetrics(registry)

    made = machinery_of(given, metrics.hear)
    registry.register(ScaleCollector(made.book, given.policies, given.limits))
    loop = ScaleLoop(
        sensors=sensors(made), decide=decide, fit=fit, actuator=made.actuator, book=made.book, pools=given.pools,
        sweep=made.sweep, looks=made.looks, scale_log=ScaleLog(books=given.log, clock=given.clock),
        policies=given.policies, limits=given.limits,
        providers=given.clouds, read_at=made.read_at, clock=given.clock, tell=metrics.hear,
    )  # fmt: skip
    registry.register(SightCollector(lambda: loop.observations))
    return Autoscaler(made, loop)
