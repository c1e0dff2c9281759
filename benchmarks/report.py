"""What a run shows and leaves: a table for people, JSON for whoever compares."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row
from benchmarks.scaling import Scaled

LATEST = Path(__file__).parent / "results" / "latest.json"


def show(rows: Sequence[Row], scaled: Sequence[Scaled]) -> None:
    """Both tables, and what went wrong."""
    console = Console()
    load = ", ".join(f"{average:.1f}" for average in psutil.getloadavg())
    console.print(f"{psutil.cpu_count()} cores, load {load}; a fixed loop of Python takes {loop_ms()} ms of CPU")
    if rows:
        console.print(_sides(rows))
    if scaled:
        console.print(_scaling(scaled))
    for row in rows:
        if row.why:
            console.print(f"[red]{row.name}: {row.failed} failed, {row.why}[/red]")


def _scaling(scaled: Sequence[Scaled]) -> Table:
    table = Table(title="what must not grow: simulated nodes, calls over HTTP", title_justify="left")
    for heading in (
        "nodes",
        "backlog",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "orchestrator ms/call",
        "broker ms/call",
        "RSS MB",
    ):
        table.add_column(heading, justify="right")
    for row in scaled:
        figures = (row.p50_ms, row.p99_ms, row.orchestrator_ms, row.broker_ms, row.orchestrator_rss_mb)
        table.add_row(
            f"{row.nodes}", f"{row.backlog:,}", f"{row.calls_per_s:,.0f}", *(f"{figure:.2f}" for figure in figures)
        )
    return table


def _sides(rows: Sequence[Row]) -> Table:
    table = Table(title="one echo call, accepted to answered", title_justify="left")
    for heading in (
        "side",
        "calls/s",
        "light p50",
        "p99 ms",
        "70 % p50",
        "p99 ms",
        "CPU ms/call",
        "with client",
        "by part",
        "RSS MB",
    ):
        table.add_column(heading, justify="left" if heading in {"side", "by part", "RSS MB"} else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.calls_per_s:,.0f}",
            f"{row.light_p50_ms:.1f}",
            f"{row.light_p99_ms:.1f}",
            f"{row.loaded_p50_ms:.1f}",
            f"{row.loaded_p99_ms:.1f}",
            f"{row.cpu_sum_ms:.2f}",
            f"{row.cpu_all_ms:.2f}",
            " ".join(f"{part} {ms:.2f}" for part, ms in sorted(row.cpu_ms.items())),
            " ".join(f"{part} {mb:.0f}" for part, mb in sorted(row.rss_mb.items())),
        )
    return table


def loop_ms() -> float:
    """Milliseconds of CPU of a fixed piece of Python, best of five: how fast this machine is today.

    Figures of two machines, or of two days, are compared only after dividing by this.
    """

    def once() -> float:
        began = time.process_time()
        sum(number * number for number in range(100_000))
        return time.process_time() - began

    return round(1000 * min(once() for _ in range(5)), 2)


def write(form: dict[str, object]) -> None:
    """benchmarks/results/latest.json, with the machine it is of."""
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": psutil.getloadavg(),
        "loop_ms": loop_ms(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps({"machine": machine, **form}, indent=2) + "\n", encoding="utf-8")
