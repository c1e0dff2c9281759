"""What an operator decided about the size of a pool, and of the whole fleet. Read from the pools file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.autoscaler.values import Rung


class ScaleStrategy(StrEnum):
    """How a pool's size is decided."""

    SLO = "slo"
    THRESHOLD = "threshold"


@dataclass(frozen=True, slots=True)
class Triggers:
    """The limits of `threshold`. Shares are 0 to 1.

    Attributes:
        cpu: with `cpu_for_s`: mean use of its nodes for so long.
        utilisation_high: running over slots; over it the pool grows.
        utilisation_low: under it the pool shrinks by one.
        grow_by: share of the machines there are.
        cooldown_s: after a change in either direction.
    """

    cpu: float = 0.70
    cpu_for_s: float = 300.0
    memory: float = 0.80
    queue_depth: int = 100
    wait_p95_s: float = 5.0
    error_rate: float = 0.01
    utilisation_high: float = 0.7
    utilisation_low: float = 0.3
    grow_by: float = 0.5
    cooldown_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ScalePolicy:
    """One pool's.

    Attributes:
        ladder: ways of getting a machine, best first.
        min_machines: kept whatever the load; 0 lets the pool go to nothing.
        max_machines: never passed.
        target_wait_s: of the `tools` lane: 95 of 100 calls wait less than this for their start.
        target_wait_agents_s: the same of the `agents` lane.
        catch_up_s: a backlog should be worked off within this.
        headroom: machines are counted for this many times the need, because load is never even.
        down_margin: machines are let go only if the need times this would still fit.
        settle_s: a smaller need must have held for so long.
        down_step: share of the machines that may go at once; one always may.
        idle_to_zero_s: nothing arrived and nothing ran for so long, before the last machine goes.
        budget_eur_h: of this pool; None: no limit of its own.
        priority: of pools that compete for the fleet's budget; higher is served first.
        may_use_spot: its calls bear a machine that is taken away; else rungs that are spot are passed by.
        use_season: learn the day's pattern and order machines before the hour at which they were needed.
        regions: patterns such as `eu-*`; rungs elsewhere are passed by. Empty: anywhere.
        slots_tools, slots_agents: of one machine, until one of its nodes has said so.
        boot_s: assumed until a boot was seen.
        boot_limit_s: a machine that has not joined by then is replaced.
        provision: `ansible`, or `none` where image or provider make the node.
        capabilities: of its nodes, beside `spot` or `on-demand` and the names of their servers.
        environ: further settings of its nodes, `MCPFLEET_NODE_*`; no secrets, they stand in user data.
    """

    pool: str
    ladder: tuple[Rung, ...]
    strategy: ScaleStrategy = ScaleStrategy.SLO
    min_machines: int = 1
    max_machines: int = 10
    target_wait_s: float = 5.0
    target_wait_agents_s: float = 60.0
    catch_up_s: float = 60.0
    headroom: float = 1.1
    down_margin: float = 1.2
    settle_s: float = 300.0
    down_step: float = 0.2
    idle_to_zero_s: float = 600.0
    budget_eur_h: float | None = None
    priority: int = 0
    may_use_spot: bool = False
    use_season: bool = True
    regions: tuple[str, ...] = ()
    slots_tools: int = 8
    slots_agents: int = 2
    boot_s: float = 90.0
    boot_limit_s: float = 900.0
    triggers: Triggers = field(default_factory=Triggers)
    provision: str = "none"
    capabilities: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetLimits:
    """Of all pools together.

    Attributes:
        cluster: tag of every machine; two fleets in one cloud account differ in it, so for accounts the pools file
            must name it.
        budget_eur_h: None: no limit.
        max_machines: None: no limit.
        is_dry: decide and say, order and end nothing.
        machine_ttl_s: a machine whose fleet is not heard of for so long ends itself.
    """

    cluster: str = "mcpfleet"
    budget_eur_h: float | None = None
    max_machines: int | None = None
    is_dry: bool = False
    machine_ttl_s: float = 7200.0
