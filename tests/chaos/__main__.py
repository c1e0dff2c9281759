"""`make chaos`: hurt a real fleet for a while and check the books.

    python -m tests.chaos [--seed N] [--seconds S] [--nodes N] [--callers N] [--replicas N] [--postgresql]
                           [--sentinel] [--namespaces] [--disks] [--clocks] [--everything] [--only WORDS]
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
from tests.chaos import disks, network
from tests.chaos.failover import compare
from tests.chaos.faults import FAULTS, LEDGER, OF_POSTGRESQL, OF_REPLICAS, OF_SQLITE, Fault
from tests.chaos.faults_machine import OF_CLOCKS, OF_DISKS, OF_NETWORK
from tests.chaos.faults_sentinel import FAULTS_WITH_SENTINEL
from tests.chaos.ground import Ground
from tests.chaos.run import Plan, Report, percentile, run


def main() -> int:
    """The command line."""
    given = _given()
    size = (given.nodes, given.callers, given.replicas)
    plan = Plan(given.seed, given.seconds, *size, _faults(given), is_sentinel=given.sentinel)
    begun_s = time.monotonic()

    def say(words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun_s:7.1f} s  {words}\n")
        sys.stdout.flush()

    if given.failover:
        asyncio.run(compare(given.rounds, say))
        return 0
    say(f"seed {plan.seed}, {plan.seconds:g} s of faults, {plan.nodes} nodes, {plan.replicas} orchestrators")
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        cluster = stack.enter_context(_cluster()) if given.postgresql else None
        report = asyncio.run(run(plan, folder, say, cluster, _ground(given, plan, folder, stack)))
    sys.stdout.write(told(report))
    if report.books.violations:
        words = sys.argv[1:] if "--seed" in sys.argv else [*sys.argv[1:], "--seed", str(plan.seed)]
        sys.stdout.write(f"again: make chaos ARGS='{' '.join(words)}'\n")
    return 1 if report.books.violations else 0


def _given() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected")
    options.add_argument("--nodes", type=int, default=3)
    options.add_argument("--callers", type=int, default=6)
    options.add_argument("--replicas", type=int, default=1, help="orchestrators on one ledger")
    options.add_argument("--postgresql", action="store_true", help="keep the ledger there instead of in SQLite")
    options.add_argument("--sentinel", action="store_true", help="Redis is a set that three sentinels watch")
    options.add_argument("--namespaces", action="store_true", help="nodes on cables that are cut; as root")
    options.add_argument("--disks", action="store_true", help="nodes and ledger on small disks that fill up; as root")
    options.add_argument("--clocks", action="store_true", help="nodes' wall clocks are five minutes off at times")
    options.add_argument("--everything", action="store_true", help="two orchestrators and all of these but --sentinel")
    options.add_argument("--only", help="only faults with these words in their name")
    options.add_argument("--keep", type=Path, help="keep logs, ledger and marks there")
    options.add_argument("--failover", action="store_true", help="compare with stock Celery instead")
    options.add_argument("--rounds", type=int, default=3, help="of --failover")
    given = options.parse_args()
    if given.everything:
        given.replicas = max(2, given.replicas)
        given.postgresql = given.namespaces = given.disks = given.clocks = True
    return given


def _faults(given: argparse.Namespace) -> tuple[Fault, ...]:
    faults = (FAULTS_WITH_SENTINEL if given.sentinel else FAULTS) + (OF_POSTGRESQL if given.postgresql else OF_SQLITE)
    faults += OF_REPLICAS * (given.replicas > 1)
    faults += OF_NETWORK * given.namespaces + OF_CLOCKS * given.clocks
    faults += tuple(fault for fault in OF_DISKS * given.disks if fault.target != LEDGER or not given.postgresql)
    chosen = tuple(fault for fault in faults if (given.only or "") in fault.name)
    if not chosen:
        raise SystemExit(f"--only {given.only!r}: none of " + "; ".join(fault.name for fault in faults))
    return chosen


def _ground(given: argparse.Namespace, plan: Plan, folder: Path, stack: ExitStack) -> Ground:
    if given.namespaces and given.sentinel:
        raise SystemExit(
            "--namespaces and --sentinel: the set listens on loopback, where nodes on cables do not reach it"
        )
    for is_wanted, option, why_not in (
        (given.namespaces, "--namespaces", network.why_not),
        (given.disks, "--disks", disks.why_not),
    ):
        if is_wanted and (why := why_not()) is not None:
            raise SystemExit(f"{option}: {why}")
    folders = [folder / name for name in (*plan.node_names, LEDGER)]
    clocks = folder / "clocks"
    clocks.mkdir(exist_ok=True)
    return Ground(
        stack.enter_context(network.Network.laid(plan.node_names)) if given.namespaces else None,
        stack.enter_context(disks.Disks.mounted(folders)) if given.disks else None,
        clocks if given.clocks else None,
    )


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
    accepted = report.accepted_after_s
    lines.append(f"accepted after: p50 {percentile(accepted, 0.5):.2f} s, p99 {percentile(accepted, 0.99):.2f} s")
    lines.append(f"safe calls whose effect happened more than once: {books.repeated}")
    lines.append("refused: " + (", ".join(f"{n} {name}" for name, n in report.refused.items()) or "nothing"))
    lines.append(f"{books.cancelled} cancelled by their callers, {books.chained} in chains, {report.replays} replayed")
    lines.append(f"leases lapsed: {report.lapses} lines in the logs")
    for stretched, words in ((False, "alone"), (True, "while Redis, ledger or orchestrator were hurt")):
        took_s = [each.took_s for each in books.failovers if each.is_stretched is stretched]
        if took_s:
            p50, most = percentile(took_s, 0.5), max(took_s)
            lines.append(f"failover of {len(took_s)} calls, {words}: p50 {p50:.1f} s, max {most:.1f} s")
    lines += [f"VIOLATION  {words}" for words in books.violations]
    lines.append("" if books.violations else "the books are right: nothing lost, nothing twice")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
