"""What one side costs more than another: both are up, and take turns in short runs.

Two rows of the table are minutes apart, in which a machine's speed changes by more than what is looked for. Here each
round runs both within seconds, the one that begins changes with each, and a round gives one ratio. CPU is what a
side's processes used over the whole round, so that what they put off (batches to be sent) is counted too. One round
says little; the median of many says how much, and resampling them how well it is known.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.processes import valkey
from benchmarks.sides import Running, Side

WARM_S, RUN_S = 3.0, 2.0
RESAMPLED = 2000
"""Source: B. Efron, the bootstrap, percentile intervals."""


@dataclass(slots=True)
class Overhead:
    """Of the second side over the first."""

    of: str
    over: str
    ratios: list[float] = field(default_factory=list)
    """CPU per call of all but the client, a round each."""
    with_client: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    """The same by part."""
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    """Per call, by side."""

    def sentence(self) -> str:
        """For people."""
        parts = ", ".join(f"{part} {_percent(ratios)}" for part, ratios in sorted(self.parts.items()))
        base, dear = (statistics.median(self.cpu_ms[name]) for name in (self.over, self.of))
        return (
            f"{self.of} costs {_percent(self.ratios)} more CPU a call than {self.over} ({base:.2f} and {dear:.2f} ms, "
            f"median of {len(self.ratios)} rounds, 95 % interval in brackets); "
            f"with client {_percent(self.with_client)}; {parts}"
        )


def measure_overhead(of: Side, over: Side, logs: Path, rounds: int) -> Overhead:
    """Both up, each on a broker of its own."""
    found = Overhead(of.name, over.name)
    with ExitStack() as stack:
        sides = {}
        for number, side in enumerate((over, of)):
            folder = logs / str(number)
            folder.mkdir()
            running = stack.enter_context(side.start(stack.enter_context(valkey(folder / "valkey.log")), folder))
            running.client.ask(mode="closed", callers=side.callers, seconds=WARM_S)
            sides[side.name] = running
        for number in range(rounds):
            order = list(sides) if number % 2 else list(reversed(sides))
            _note(found, _round(sides, order, of.callers))
            print(f"round {number + 1}: {100 * (found.ratios[-1] - 1):+.1f} %", file=sys.stderr, flush=True)
    return found


def show(found: Overhead) -> None:
    """The sentence, and the figures as JSON for whoever compares."""
    print(found.sentence())
    print(json.dumps(asdict(found)))


def _round(sides: Mapping[str, Running], order: Sequence[str], callers: int) -> dict[str, dict[str, float]]:
    before = {name: side.crew.cpu_s() for name, side in sides.items()}
    calls = {}
    for name in order:
        run = sides[name].client.ask(mode="closed", callers=callers, seconds=RUN_S)
        if run["failed"]:
            raise RuntimeError(f"{name}: {run['failed']:.0f} calls failed, {run['why']}")
        calls[name] = run["calls"]
    return {
        name: {part: 1000 * (now - before[name][part]) / calls[name] for part, now in side.crew.cpu_s().items()}
        for name, side in sides.items()
    }


def _note(found: Overhead, cost: Mapping[str, Mapping[str, float]]) -> None:
    dear, base = cost[found.of], cost[found.over]
    ours = {name: sum(ms for part, ms in parts.items() if part != "client") for name, parts in cost.items()}
    found.ratios.append(ours[found.of] / ours[found.over])
    found.with_client.append(sum(dear.values()) / sum(base.values()))
    for part, ms in dear.items():
        found.parts.setdefault(part, []).append(ms / base[part])
    for name, ms in ours.items():
        found.cpu_ms.setdefault(name, []).append(ms)


def _percent(ratios: Sequence[float]) -> str:
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLED))
    low, high = medians[RESAMPLED // 40], medians[-RESAMPLED // 40]
    return f"{100 * (statistics.median(ratios) - 1):+.1f} % [{100 * (low - 1):+.1f}, {100 * (high - 1):+.1f}]"
