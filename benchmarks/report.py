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

LATEST = Path(__file__).parent / "results" / "latest.json"


def show(rows: Sequence[Row]) -> None:
    """The table of sides."""
    console = Console()
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
    console.print(table)
    for row in rows:
        if row.why:
            console.print(f"[red]{row.name}: {row.failed} failed, {row.why}[/red]")


def write(form: dict[str, object]) -> None:
    """benchmarks/results/latest.json, with the machine it is of."""
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": psutil.getloadavg(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps({"machine": machine, **form}, indent=2) + "\n", encoding="utf-8")
