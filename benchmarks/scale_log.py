"""Bytes of the scale log per day, in a real SQLite ledger: `python -m benchmarks.scale_log`.

Five pools of ten machines, for an hour of each kind, through the loop's own `ScaleLog`. Refuses to judge: it
prints, and docs/autoscaling.md says what that means.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog

from orchestrator.autoscaler.book.scale_log import ROUND_S, ScaleLog
from orchestrator.autoscaler.book.wire import dumps, dumps_short
from orchestrator.autoscaler.values import ClaimState, Decision, LaneSeen, MachineSeen, Observation, Reason
from orchestrator.ledger.ledger import Ledger
from tasks.invocation import Lane
from tasks.testing.clock import FakeClock

POOLS, MACHINES, HOUR, DAY_HOURS = 5, 10, 720, 24
TEXT = "tools: 12.31 calls/s at 1.48 s need 27 slots for p95 wait under 5 s; with 10% more: 4 machines of 8"
MB = 1e6


def observation(pool: str, at: float) -> Observation:
    """With the digits that measured numbers have."""
    noise = at % 7 / 3
    lane = LaneSeen(
        waiting=3, running=20, slots=80, slots_per_machine=8, oldest_wait_s=noise, wait_p50_s=noise, wait_p95_s=noise,
        arrivals_per_s=12.0 + noise, arrivals_trend=noise / 9, arrivals_trend_sigma=noise / 8,
        service_mean_s=1.0 + noise, service_scv=1.0 + noise / 5, service_p95_s=3.0 + noise,
    )  # fmt: skip
    machines = tuple(
        MachineSeen(
            f"claimed{number:03}", f"{pool}-claimed{number:03}", ClaimState.READY, held=number % 3, idle_s=noise * 90,
            age_s=at % 9999 + noise, price_eur_h=0.0113, paid_left_s=1800.0 + noise,
        )
        for number in range(MACHINES)
    )  # fmt: skip
    lanes = {Lane.TOOLS: lane, Lane.AGENTS: LaneSeen(slots=20, slots_per_machine=2)}
    return Observation(pool, at, lanes, machines, cpu=0.4 + noise / 9, memory=0.5, boot_p90_s=41.2, price_eur_h=0.0113)


def decision(pool: str, at: float, number: int, *, changes: bool) -> Decision:
    """As `slo` says it."""
    target = MACHINES + (number % 2 if changes else 0)
    reasons = (Reason("slo", TEXT, 4), Reason("hold", "10 machines: the most of the last 300 s", target))
    return Decision(pool, at, MACHINES, target, reasons=reasons)


async def measured(changes: Callable[[int], bool]) -> tuple[int, float]:
    """Rows of an hour of all pools, and bytes per row as the file grew."""
    with tempfile.TemporaryDirectory() as folder:
        path, clock = Path(folder) / "ledger.db", FakeClock()
        ledger = await Ledger.open(f"sqlite:///{path}", clock=clock)
        before = _used_bytes(path)
        logs = {f"pool-{number}": ScaleLog(books=ledger, clock=clock) for number in range(POOLS)}
        for number in range(HOUR):
            for pool, scale_log in logs.items():
                at = clock.wall_s()
                await scale_log.note(decision(pool, at, number, changes=changes(number)), observation(pool, at))
            clock.advance(ROUND_S)
        rows = len(await ledger.scale_log(None, 0.0, 1_000_000))
        used = _used_bytes(path) - before
        await ledger.close()
    return rows, used / rows


def _used_bytes(path: Path) -> int:
    with sqlite3.connect(path) as reader:
        pages, size, free = (reader.execute(f"PRAGMA {name}").fetchone()[0] for name in
                             ("page_count", "page_size", "freelist_count"))  # fmt: skip
    return int((pages - free) * size)


async def _main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    seen, said = observation("pool-0", 1.8e9), decision("pool-0", 1.8e9, 0, changes=False)
    whole, short = (len(dump(seen)) + len(dump(said)) for dump in (dumps, dumps_short))
    print(f"one round of {MACHINES} machines: {whole} bytes with defaults, {short} without")
    kinds: dict[str, Callable[[int], bool]] = {
        "the same all day": lambda _: False,
        "a change in each minute": lambda number: number % 12 < 2,
        "a change in each round": lambda _: True,
    }
    for name, changes in kinds.items():
        rows, per_row = await measured(changes)
        day = rows * DAY_HOURS * per_row / MB
        print(f"{name}: {rows} rows an hour, {per_row:.0f} bytes each, {day:.1f} MB a day, {7 * day:.0f} MB a week")
    before = POOLS * 60 * DAY_HOURS * whole / MB
    print(f"one whole round a minute, with defaults: {before:.1f} MB a day, {7 * before:.0f} MB a week")


if __name__ == "__main__":
    asyncio.run(_main())
