"""`make sim`: every rule on every trace and seed, the table, and whether any is better than `slo` in both figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sim.optimum import work_h
from benchmarks.sim.plots import draw_results, draw_trace
from benchmarks.sim.rules import rules
from benchmarks.sim.score import Score, averaged, better, score, table
from benchmarks.sim.traces import DAY_S, TRACES, draw
from benchmarks.sim.world import World

FOLDER = Path("docs/autoscaling")
PAGE = Path("docs/scaling-policy.md")
BEGIN, END = "<!-- table of make sim -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Job:
    """One trace and seed, for a process of its own."""

    trace: str
    seed: int
    folder: Path | None
    """Where its picture goes; None: it has none."""


def play(job: Job) -> tuple[list[Score], float]:
    """Every rule on one drawn trace, and the hours of work that are in it."""
    drawn = draw(next(trace for trace in TRACES if trace.name == job.trace), job.seed)
    runs = {name: World(drawn, make(), start_at=DAY_S).run() for name, make in rules(drawn).items()}
    if job.folder is not None:
        draw_trace(drawn, runs, job.folder)
    return [score(drawn, name, books) for name, books in runs.items()], work_h(drawn)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge."""
    options = _options(arguments)
    names = [trace.name for trace in TRACES if not options.trace or trace.name in options.trace]
    if options.write:
        FOLDER.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(name, seed, FOLDER if options.write and seed == 1 else None)
        for name in names
        for seed in range(1, options.seeds + 1)
    ]
    with ProcessPoolExecutor(options.jobs) as processes:
        played = []
        for job, result in zip(jobs, processes.map(play, jobs), strict=True):
            print(f"played {job.trace}, seed {job.seed}", file=sys.stderr)
            played.append(result)
    means = averaged(one for scores, _ in played for one in scores)
    text = table(means)
    print(text)
    for name in names:
        hours = [work for job, (_, work) in zip(jobs, played, strict=True) if job.trace == name]
        print(f"{name}: with every slot always busy the work would take {sum(hours) / len(hours):.1f} machine-hours")
    if options.write:
        draw_results(means, FOLDER)
        _write(text)
    return _judge([scores for scores, _ in played], jobs, means)


def _judge(played: list[list[Score]], jobs: list[Job], means: list[Score]) -> int:
    """Print who beats ours; on the mean of the seeds nobody may."""
    for job, scores in zip(jobs, played, strict=True):
        for other, ours in better(scores):
            print(f"seed {job.seed}: {_compared(other, ours)}")
    beaten = better(means)
    for other, ours in beaten:
        print(f"FAILED: {_compared(other, ours)}")
    if not beaten:
        print("ok: on no trace is another rule better than slo in both p95 wait and billed hours")
    return 1 if beaten else 0


def _compared(other: Score, ours: Score) -> str:
    return (
        f"{other.trace}: {other.rule} waits {other.wait_p95_s:.2f} s for {other.billed_h:.1f} h, "
        f"slo {ours.wait_p95_s:.2f} s for {ours.billed_h:.1f} h"
    )


def _write(text: str) -> None:
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sim ARGS=…", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each trace (3)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--trace", action="append", choices=[trace.name for trace in TRACES], help="only this one")
    parser.add_argument("--write", action="store_true", help="write the table and the pictures into the docs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
