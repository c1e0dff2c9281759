"""What is measured of a side, and in which order.

First the most calls a second it does in a closed loop, then latency at a light load, then latency at
70 % of that most. CPU is what its processes used over the closed loop, divided by its calls: the one
figure that a noisy machine does not spoil.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.sides import Running

SHARE_OF_MOST = 0.7
LIGHT_PER_S = 20.0
OPEN_CALLERS = 32
"""Threads of a client that blocks; enough for 70 % of what it does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long. Seconds."""

    warm_s: float = 1.0
    closed_s: float = 4.0
    light_s: float = 6.0
    loaded_s: float = 5.0


@dataclass(slots=True)
class Row:
    """The figures of one side."""

    name: str
    what: str
    calls_per_s: float = 0.0
    light_p50_ms: float = 0.0
    light_p99_ms: float = 0.0
    loaded_per_s: float = 0.0
    loaded_p50_ms: float = 0.0
    loaded_p99_ms: float = 0.0
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """Per call, by part."""
    light_cpu_ms: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)
    failed: int = 0
    why: str = ""

    @property
    def cpu_sum_ms(self) -> float:
        """Of all its processes but the client's, per call."""
        return round(sum(ms for part, ms in self.cpu_ms.items() if part != "client"), 3)

    @property
    def cpu_all_ms(self) -> float:
        """The client's too: a side that lets its client do the work must not look cheap."""
        return round(sum(self.cpu_ms.values()), 3)


def measure(name: str, what: str, side: Running, plan: Plan, *, callers: int) -> Row:
    """All figures of one side that is up."""
    row = Row(name, what)
    side.client.ask(mode="closed", callers=callers, seconds=plan.warm_s)
    most, row.cpu_ms = _run(side, mode="closed", callers=callers, seconds=plan.closed_s)
    row.calls_per_s = most["calls_per_s"]
    light, row.light_cpu_ms = _run(
        side, mode="open", callers=OPEN_CALLERS, rate_per_s=LIGHT_PER_S, seconds=plan.light_s
    )
    row.light_p50_ms, row.light_p99_ms = light["p50_ms"], light["p99_ms"]
    row.loaded_per_s = round(max(1.0, SHARE_OF_MOST * row.calls_per_s), 1)
    loaded, _ = _run(side, mode="open", callers=OPEN_CALLERS, rate_per_s=row.loaded_per_s, seconds=plan.loaded_s)
    row.loaded_p50_ms, row.loaded_p99_ms = loaded["p50_ms"], loaded["p99_ms"]
    row.rss_mb = side.crew.rss_mb()
    for run in (most, light, loaded):
        row.failed += int(run["failed"])
        row.why = row.why or str(run["why"])
    return row


def _run(side: Running, **order: object) -> tuple[dict[str, float], dict[str, float]]:
    before = side.crew.cpu_s()
    run = side.client.ask(**order)
    after = side.crew.cpu_s()
    if not side.crew.is_alive():
        raise RuntimeError("a process of this side died; its log is in the folder that the run names")
    calls = max(1.0, run["calls"])
    return run, {part: round(1000 * (after[part] - before[part]) / calls, 3) for part in after}
