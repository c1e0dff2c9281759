"""What a large fleet at rest costs the orchestrator: 200 nodes that renew, and the autoscaler's loop over them.

Two figures, shares of one core. Renewals: a real orchestrator process, simulated nodes over real HTTP; its
pools file scales their pool in a dry run, so its own loop is in it. Loop: the autoscaler's rounds
over as many claimed machines, with books and a cloud in memory. `python -m benchmarks.heartbeats`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.fleet_side import fleet
from benchmarks.processes import cpu_s_of, python, running, valkey
from orchestrator.autoscaler.book.scale_log import ROUND_S, ScaleLog
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.limits import fit
from orchestrator.autoscaler.loop import ScaleLoop
from orchestrator.autoscaler.scale_policy import FleetLimits, ScalePolicy
from orchestrator.autoscaler.testing.world import FIRST, POOL, World
from orchestrator.autoscaler.values import ClaimState, LaneSeen, MachineSeen, Observation
from tasks.invocation import Lane

LIMIT = 0.10
"""Of one core, for both together."""
SETTLES_S = 5.0
POOLS_FILE = """
[scale]
cluster = "bench"
is_dry = true

[providers.bench]
kind = "static"
hosts = ["192.0.2.1"]

[pools.bench.scale]
min_machines = 0
max_machines = 1000
ladder = [{ provider = "bench" }]
"""


def main(argv: list[str]) -> int:
    """Measure, print; 1 where both together cost more than the limit."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.heartbeats", description=__doc__)
    words.add_argument("--nodes", type=int, default=200)
    words.add_argument("--seconds", type=float, default=60.0, help="of renewals")
    words.add_argument("--rounds", type=int, default=60, help="of the loop; the first fifth is not counted")
    words.add_argument("--loop-only", action="store_true", help="without processes")
    given = words.parse_args(argv)
    figures = {"nodes": float(given.nodes), "loop": asyncio.run(loop_share(given.nodes, given.rounds))}
    if not given.loop_only:
        figures["renewals"] = renewals_share(given.nodes, given.seconds)
    figures["together"] = figures["loop"] + figures.get("renewals", 0.0)
    print(json.dumps({name: round(figure, 4) for name, figure in figures.items()}))
    print(f"{given.nodes} nodes: {100 * figures['together']:.1f} % of a core, the limit is {100 * LIMIT:.0f} %")
    return int(figures["together"] >= LIMIT)


def renewals_share(nodes: int, seconds: float) -> float:
    """CPU of the orchestrator's process over wall time, while so many nodes only renew."""
    logs = Path(mkdtemp(prefix="mcpfleet-bench-logs-"))
    print(f"logs in {logs}", file=sys.stderr)
    pools = logs / "pools.toml"
    pools.write_text(POOLS_FILE)
    settings = {"MCPFLEET_POOLS_FILE": str(pools)}
    with valkey(logs / "valkey.log") as broker, fleet(broker, logs, settings=settings) as up:
        command = [python(), "-m", "benchmarks.simulated_nodes", "--nodes", str(nodes), "--slots", "8"]
        env = up.client_env() | {"BENCH_JOIN_TOKEN": up.join_token}
        with running(command, env=env, log=logs / "simulated_nodes.log", is_client=True) as crowd:
            assert crowd.stdout is not None
            if crowd.stdout.readline().strip() != b"ready":
                raise RuntimeError(f"the simulated nodes did not join; see {logs}/simulated_nodes.log")
            time.sleep(SETTLES_S)
            before, began_s = cpu_s_of(up.orchestrator.pid), time.monotonic()
            time.sleep(seconds)
            return (cpu_s_of(up.orchestrator.pid) - before) / (time.monotonic() - began_s)


async def loop_share(machines: int, rounds: int) -> float:
    """CPU of a round over the time between two, with so many machines that serve."""
    policy = ScalePolicy(POOL, (FIRST,), min_machines=machines, max_machines=machines, boot_limit_s=1e6)
    world = World(policy)
    world.near.boot_s = 0.0
    while len(world.claims(ClaimState.READY)) < machines:
        await world.round(target=machines)
    parts = world.parts
    loop = ScaleLoop(
        sensors=_Sensors(world), decide=decide, fit=fit, actuator=parts.actuator, book=parts.book,
        pools=world.pools, sweep=parts.sweep, looks=parts.looks, policies={POOL: policy},
        scale_log=ScaleLog(books=world.books, clock=world.clock),
        limits=FleetLimits(), providers=world.clouds, read_at=parts.read_at, clock=world.clock, tell=lambda _: None,
    )  # fmt: skip
    spent: list[float] = []
    for _ in range(rounds):
        began_s = time.process_time()
        await loop.round()
        await parts.actuator.settle()
        spent.append(time.process_time() - began_s)
        world.clock.advance(ROUND_S)
        world.nodes.tick()
    counted = spent[rounds // 5 :]
    return sum(counted) / len(counted) / ROUND_S


class _Sensors:
    """Every claim as a machine with some work; what the real ones cost is in the orchestrator's own figure."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self) -> None:
        """A new leader."""

    def observe(self) -> list[Observation]:
        """Now."""
        now = self._world.clock.wall_s()
        claims = self._world.parts.book.standing(POOL)
        seen = tuple(MachineSeen(c.id, c.node, c.state, held=2, age_s=now - c.created_at) for c in claims)
        lane = LaneSeen(
            running=2 * len(claims),
            slots=8 * len(claims),
            slots_per_machine=8,
            service_mean_s=1.0,
            service_p95_s=2.0,
            arrivals_per_s=2.0 * len(claims),
        )
        return [Observation(POOL, now, lanes={Lane.TOOLS: lane}, machines=seen)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
