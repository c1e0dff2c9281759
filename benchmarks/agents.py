"""`make agents-bench`: what a run of an agent costs over the bare CLI, and what it leaves.

Both sides of a comparison are measured in turns in one run, against one double of the model's API. Writes
benchmarks/results/agents.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.agents_rig import BINARY, NAPS, WORKS, Rig, Took, programs, pss_mb, rig, version
from benchmarks.processes import valkey
from benchmarks.report import loop_ms
from tasks.node import Ref

RESULTS = Path(__file__).parent / "results" / "agents.json"
AT_ONCE = 10
SIDE_BY_SIDE = 3
"""Of the many runs: as many as the machine can carry."""
WARM = 3
_console = Console()


async def _start_up(at: Rig, pairs: int) -> dict[str, object]:
    """In turns, and the order changes with each: neither side has the quieter machine."""
    bare: list[Took] = []
    ours: list[Took] = []
    for number in range(pairs + 1):
        sides = ((at.bare, bare), (at.ours, ours))
        for measure, kept in sides if number % 2 else sides[::-1]:
            took = await measure()
            if number:  # the first warms the disk's cache
                kept.append(took)
    first = [statistics.median(took.first_s for took in side) for side in (bare, ours)]
    whole = [statistics.median(took.all_s for took in side) for side in (bare, ours)]
    _say(f"until the model is asked: claude -p {first[0]:.2f} s, a run {first[1]:.2f} s, +{first[1] - first[0]:.2f} s")
    _say(f"until the answer: claude -p {whole[0]:.2f} s, a run {whole[1]:.2f} s, +{whole[1] - whole[0]:.2f} s")
    return {
        "pairs": pairs,
        "bare": [asdict(took) for took in bare],
        "ours": [asdict(took) for took in ours],
        "median_first_s": first,
        "median_all_s": whole,
    }


async def _memory(at: Rig) -> dict[str, object]:
    """While each run's Bash sleeps: after a turn, before the answer."""
    at.model.double.script = NAPS
    node = [psutil.Process(at.node.process.pid)]
    found: dict[str, object] = {"node_at_rest_mb": round(pss_mb(node), 1)}
    for count in (1, AT_ONCE):
        invocations = [await at.ask() for _ in range(count)]
        async with asyncio.timeout(300):
            while at.napping() < count:  # noqa: ASYNC110 - of the kernel, which tells nobody
                await asyncio.sleep(0.1)
        there = at.sandboxes()
        runs_mb, node_mb = pss_mb(there), pss_mb(node)
        found[f"runs_{count}"] = {"pss_mb": round(runs_mb, 1), "node_mb": round(node_mb, 1), "of": programs(there)}
        each = f"{runs_mb / count:.0f} MB a run; node {node_mb:.0f} MB"
        _say(f"{count} at once: {runs_mb:.0f} MB in {len(there)} processes, {each}")
        await at.fake.control("cancel", *(Ref(invocation=one, fence=1) for one in invocations))
        async with asyncio.timeout(120):
            while at.sandboxes() or not all(at.fake.finished(one) for one in invocations):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
    at.model.double.script = WORKS
    return found


async def _cancels(at: Rig, count: int) -> dict[str, object]:
    """In the middle of a command: from the word of it until its outcome is there and no process is."""
    at.model.double.script = NAPS
    took_s: list[float] = []
    for _ in range(count):
        invocation = await at.ask()
        async with asyncio.timeout(300):
            while not at.napping():  # noqa: ASYNC110 - of the kernel, which tells nobody
                await asyncio.sleep(0.1)
        began_s = time.monotonic()
        await at.fake.control("cancel", Ref(invocation=invocation, fence=1))
        async with asyncio.timeout(120):
            while at.sandboxes() or not at.fake.finished(invocation):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        took_s.append(time.monotonic() - began_s)
    at.model.double.script = WORKS
    median_s, most_s = statistics.median(took_s), max(took_s)
    _say(f"{count} runs cancelled: median {median_s:.2f} s, longest {most_s:.2f} s; no process was left")
    return {"runs": count, "took_s": [round(one, 3) for one in took_s]}


async def _leaks(at: Rig, runs: int) -> dict[str, object]:
    """The same things counted before and after."""
    for _ in range(WARM):
        await at.ours()
    before, began_s = at.left(), time.monotonic()
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one() -> None:
        async with gate:
            await at.until_ended(await at.ask())

    await asyncio.gather(*(one() for _ in range(runs)))
    took_s = time.monotonic() - began_s
    after = at.left()
    _say(f"{runs} runs, {SIDE_BY_SIDE} at once, in {took_s:.0f} s ({len(at.failed)} failed):")
    for name, count in after.items():
        _say(f"  {name}: {before[name]} before, {count} after")
    return {"runs": runs, "took_s": round(took_s, 1), "before": before, "after": after}


async def _all(given: argparse.Namespace) -> int:
    load = psutil.getloadavg()
    _say(f"Claude Code {version()}, {psutil.cpu_count()} cores, load {load[0]:.1f} {load[1]:.1f}, loop {loop_ms()} ms")
    with tempfile.TemporaryDirectory(prefix="mcpfleet-agents-") as name, valkey(Path(name, "valkey.log")) as broker:
        async with rig(Path(name), broker, AT_ONCE) as at:
            limits = (await at.node.health())["agent_limits"]
            _say(f"limits: {limits}")
            found: dict[str, object] = {"start_up": await _start_up(at, given.pairs), "limits": limits}
            found["memory"] = await _memory(at)
            found["cancels"] = await _cancels(at, given.cancels)
            found["leaks"] = await _leaks(at, given.runs)
            failed = at.failed
    machine = {
        "cores": psutil.cpu_count(),
        "load_before": load,
        "load_after": psutil.getloadavg(),
        "loop_ms": loop_ms(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "failed": failed, **found}, indent=2, default=str) + "\n")
    _say(f"load after: {psutil.getloadavg()[0]:.1f}; {RESULTS}")
    for line in failed[:10]:
        _say(f"FAILED {line}")
    return int(bool(failed))


def _say(line: str) -> None:
    _console.print(line, highlight=False, markup=False)


def main(argv: list[str]) -> int:
    """Run, show, write down; 1 where a run failed."""
    words = argparse.ArgumentParser(prog="make agents-bench ARGS=…", description=__doc__)
    words.add_argument("--pairs", type=int, default=15, help="runs of each side for the start-up")
    words.add_argument("--cancels", type=int, default=10, help="runs that are cancelled")
    words.add_argument("--runs", type=int, default=200, help="runs before what is left is counted")
    if not BINARY.exists():
        _say("Claude Code is not installed: make agents")
        return 2
    return asyncio.run(_all(words.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
