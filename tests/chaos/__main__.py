"""`make chaos`: hurt a real fleet for a while and check the books.

    python -m tests.chaos [--seed N] [--seconds S] [--nodes N] [--callers N] [--postgresql] [--sentinel]
                         [--keep DIR]
    python -m tests.chaos --failover [--rounds N]

Exit status: 0 all promises held, 1 some did not.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orchestrator.testing.postgres import Cluster, postgres_bin
from tests.chaos.failover import compare
from tests.chaos.faults import FAULTS, OF_POSTGRESQL, OF_SQLITE
from tests.chaos.faults_sentinel import FAULTS_WITH_SENTINEL
from tests.chaos.run import Plan, Report, percentile, run


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected")
    options.add_argument("--nodes", type=int, default=3)
    options.add_argument("--callers", type=int, default=6)
    options.add_argument("--postgresql", action="store_true", help="keep the ledger there instead of in SQLite")
    options.add_argument("--sentinel", action="store_true", help="Redis is a set that three sentinels watch")
    options.add_argument("--keep", type=Path, help="keep logs, ledger and marks there")
    options.add_argument("--failover", action="store_true", help="compare with stock Celery instead")
    options.add_argument("--rounds", type=int, default=3, help="of --failover")
    given = options.parse_args()
    faults = (FAULTS_WITH_SENTINEL if given.sentinel else FAULTS) + (OF_POSTGRESQL if given.postgresql else OF_SQLITE)
    plan = Plan(given.seed, given.seconds, given.nodes, given.callers, faults, is_sentinel=given.sentinel)
    begun_s = time.monotonic()

    def say(words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun_s:7.1f} s  {words}\n")
        sys.stdout.flush()

    if given.failover:
        asyncio.run(compare(given.rounds, say))
        return 0
    say(f"seed {plan.seed}, {plan.seconds:g} s of faults, {plan.nodes} nodes")
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(run(plan, folder, say, stack.enter_context(_cluster()) if given.postgresql else None))
    sys.stdout.write(told(report))
    return 1 if report.books.violations else 0


@contextmanager
def _cluster() -> Iterator[Cluster]:
    programs = postgres_bin()
    if programs is None:
        raise SystemExit("--postgresql: PostgreSQL is not installed; `make postgres` does it, as root on Debian")
    with tempfile.TemporaryDirectory(prefix="mcpfleet-pg-") as folder:
        cluster = Cluster(programs, Path(folder))
        cluster.make()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def told(report: Report) -> str:
    """The report, for people."""
    books = report.books
    lines = ["", f"{report.calls} calls in {report.took_s:.0f} s, {report.faults.total()} faults:"]
    lines += [f"  {count:4d}  {name}" for name, count in report.faults.most_common()]
    lines.append("ends: " + ", ".join(f"{count} {state}" for state, count in books.states.most_common()))
    lines.append(f"safe calls whose effect happened more than once: {books.repeated}")
    lines.append("refused: " + (", ".join(f"{n} {name}" for name, n in report.refused.items()) or "nothing"))
    if books.failovers_s:
        p50, most = percentile(books.failovers_s, 0.5), max(books.failovers_s)
        lines.append(f"failover of {len(books.failovers_s)} calls: p50 {p50:.1f} s, max {most:.1f} s")
    lines += [f"VIOLATION  {words}" for words in books.violations]
    lines.append("" if books.violations else "the books are right: nothing lost, nothing twice")
    if books.violations:
        more = " --sentinel" if report.plan.is_sentinel else ""
        lines.append(f"again: make chaos ARGS='--seed {report.plan.seed} --seconds {report.plan.seconds:g}{more}'")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
