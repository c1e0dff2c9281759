"""`make bench`: all sides in one run, on one Redis; a table, and benchmarks/results/latest.json."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

from benchmarks import overhead, report
from benchmarks.fleet_side import OURS
from benchmarks.measure import Plan, Row, measure
from benchmarks.processes import Broker, python, valkey
from benchmarks.scaling import Scaled, measure_scaling
from benchmarks.sides import PEERS, Side

DEEP = 100_000
BASE = "mcpfleet, HTTP"
FULL = Plan(warm_s=2.0, closed_s=15.0, light_s=30.0, loaded_s=20.0)


def main(argv: list[str]) -> int:
    """Run, show, write down; 1 where a side could not be measured."""
    words = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    words.add_argument("--full", action="store_true", help="about five times as long, for figures worth quoting")
    words.add_argument("--no-scaling", action="store_true", help="leave out the deep backlog and the many nodes")
    words.add_argument("--only", metavar="WORD", default="", help="only sides whose name holds this word")
    words.add_argument("--overhead", metavar="SIDE", help="only what this side costs more than `mcpfleet, HTTP`")
    words.add_argument("--rounds", type=int, default=40, help="of --overhead, about 4 s each")
    given = words.parse_args(argv)
    plan = FULL if given.full else Plan()
    logs = Path(mkdtemp(prefix="mcpfleet-bench-logs-"))
    print(f"logs in {logs}", file=sys.stderr)
    if given.overhead:
        named = {side.name: side for side in OURS}
        overhead.show(overhead.measure_overhead(named[given.overhead], named[BASE], logs, given.rounds))
        return 0
    with valkey(logs / "valkey.log") as broker:
        rows = [_row(side, broker, logs, plan) for side in (*PEERS, *OURS) if given.only.lower() in side.name.lower()]
        scaled: list[Scaled] = []
        if not given.no_scaling:
            scaled = measure_scaling(broker, logs, seconds=plan.closed_s, deep=DEEP)
    report.show(rows, scaled)
    report.write({"sides": [asdict(row) for row in rows], "scaling": [asdict(row) for row in scaled]})
    return int(any(row.why for row in rows))


def _row(side: Side, broker: Broker, logs: Path, plan: Plan) -> Row:
    if side.is_peer and not Path(python(peer=True)).exists():
        return Row(side.name, side.what, why="its environment is missing: make bench makes it")
    print(f"{side.name} …", file=sys.stderr, flush=True)
    broker.flush()
    try:
        with side.start(broker, logs) as running:
            return measure(side.name, side.what, running, plan, callers=side.callers)
    except (RuntimeError, TimeoutError, OSError) as error:
        return Row(side.name, side.what, why=str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
