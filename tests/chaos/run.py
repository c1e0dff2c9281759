"""One run: start a fleet, let callers call, hurt it, let it heal, check the books."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from orchestrator.testing.postgres import Cluster
from tasks.queues import DOORBELL
from tests.chaos.asked import MISCHIEF_SHARE
from tests.chaos.books import Books, check
from tests.chaos.evidence import Evidence, read_marks
from tests.chaos.faults import FAULTS, OF_SQLITE, Fault
from tests.chaos.fleet import Fleet
from tests.chaos.gremlins import Gremlins
from tests.chaos.ground import Ground
from tests.chaos.terms import Terms
from tests.chaos.traffic import Callers

GREMLINS = 2
PLAIN = Ground()
HEALS_WITHIN_S = 120.0
ENDS_WITHIN_S = 120.0
REPLAYS = 6
DEFECTS = (
    "node_failed",
    "attempt_failed_in_node",
    "loop_failed",
    "streams_turn_failed",
    "event_not_taken",
    "publish_failed",
    "leadership_failed",
    "ledger.group_failed",
)
"""What the logs call an error that nobody expected: whatever the books say, it is one of ours."""
LAPSES = ("lease_lapsed", "node_is_back")
"""What an orchestrator says of a lease that was over: something was held under it, or it was renewed."""
REFUSED = ("outcome_refused", "settlement_refused", "delivery_refused")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Timing on a real machine never repeats; the seed repeats faults, targets and calls."""

    seed: int
    seconds: float
    nodes: int = 3
    callers: int = 6
    replicas: int = 1
    faults: tuple[Fault, ...] = FAULTS + OF_SQLITE
    is_sentinel: bool = False
    """Redis is a set that three sentinels watch."""
    terms: Terms = field(default_factory=Terms)
    opening: tuple[Fault, ...] = ()
    """These come first, one after the other and alone."""
    mischief_share: float = MISCHIEF_SHARE
    """Of the calls. One that kills its server makes the next start of it wait, for up to a minute in the end."""

    @property
    def node_names(self) -> tuple[str, ...]:
        """Of all nodes."""
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))


@dataclass
class Report:
    """What happened."""

    plan: Plan
    books: Books
    faults: Counter[str]
    calls: int
    accepted_after_s: list[float]
    refused: Counter[str] = field(default_factory=Counter)
    lapses: int = 0
    """Times that the log tells of a lease that was over."""
    replays: int = 0
    took_s: float = 0.0


async def run(
    plan: Plan,
    folder: Path,
    say: Callable[[str], None],
    database: Cluster | str | None = None,
    ground: Ground = PLAIN,
) -> Report:
    """Do it. The folder keeps the logs of every process; the ledger is in `database`, or in SQLite."""
    rng = random.Random(plan.seed)
    fleet = Fleet(folder, plan.node_names, database, plan.replicas, ground, plan.is_sentinel, plan.terms)
    callers = Callers(fleet, random.Random(rng.random()), plan.callers, mischief_share=plan.mischief_share)
    gremlins = Gremlins(fleet, plan.faults, random.Random(rng.random()), say)
    begun_s = time.monotonic()
    leftovers: list[str] = []
    try:
        await fleet.start()
        await _hurt(plan, callers, gremlins)
        say(f"faults are over; {len(callers.asked)} calls were asked for")
        await _healed(fleet, leftovers)
        letters = await _in_time(_looked_back(callers, say), leftovers)
        leftovers += await _keys_without_an_owner(fleet)
    finally:
        await fleet.close()
    leftovers += _processes_of(folder)
    leftovers += [f"{count} times in the logs: {name}" for name, count in _named(folder, DEFECTS).items()]
    books = check(callers.asked, _evidence(plan, fleet, callers, gremlins, letters))
    refused = [f"a caller was refused: {words}" for words in callers.refusals if not _is_honest(words)]
    books.violations += leftovers + refused
    return Report(
        plan,
        books,
        gremlins.done,
        calls=len(callers.asked),
        accepted_after_s=[asked.accepted_after_s for asked in callers.asked if asked.accepted_after_s],
        refused=_named(folder, REFUSED),
        lapses=_named(folder, LAPSES).total(),
        replays=len(callers.replays),
        took_s=time.monotonic() - begun_s,
    )


def _evidence(plan: Plan, fleet: Fleet, callers: Callers, gremlins: Gremlins, letters: Counter[str]) -> Evidence:
    return Evidence(
        marks=read_marks(fleet.marks),
        troubles=gremlins.troubles,
        linger_s=plan.terms.linger_s,
        lease_s=plan.terms.lease_ttl_s,
        letters=letters,
        replays=callers.replays,
        is_clock_true=fleet.ground.clocks is None,
    )


async def _hurt(plan: Plan, callers: Callers, gremlins: Gremlins) -> None:
    """While callers call."""
    until_s = time.monotonic() + plan.seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(callers.run(until_s))
        for fault in plan.opening:
            await gremlins.harm_once(fault)
        for _ in range(GREMLINS):
            group.create_task(gremlins.run(until_s))


async def _looked_back(callers: Callers, say: Callable[[str], None]) -> Counter[str]:
    """All has ended; some dead letters are replayed, and every end is asked for once more."""
    say("the fleet is whole")
    await callers.ended(ENDS_WITHIN_S)
    say("every call has ended")
    await callers.replay(REPLAYS)
    await callers.ended(ENDS_WITHIN_S)
    await callers.review()
    return await callers.letters()


async def _healed(fleet: Fleet, leftovers: list[str]) -> None:
    try:
        await fleet.healed(HEALS_WITHIN_S)
    except TimeoutError:
        leftovers.append(f"the fleet was not whole again {HEALS_WITHIN_S:.0f} s after the last fault")


async def _in_time(looking: Coroutine[Any, Any, Counter[str]], leftovers: list[str]) -> Counter[str]:
    try:
        async with asyncio.timeout(ENDS_WITHIN_S * 2):
            return await looking
    except TimeoutError:
        leftovers.append(f"calls and replays had not ended {ENDS_WITHIN_S * 2:.0f} s after the last fault")
        return Counter()


async def _keys_without_an_owner(fleet: Fleet) -> list[str]:
    """Redis keys are a node's, a pool's, or end by themselves."""
    owners = {name.encode() for name in fleet.node_names}
    async with fleet.redis() as redis:
        keys = [key async for key in redis.scan_iter(count=1000)]
        lasting = [key for key in keys if await redis.ttl(key) == -1]
    return [f"a Redis key without an owner: {key!r}" for key in lasting if not _is_owned(key, owners)]


def _is_owned(key: bytes, owners: set[bytes]) -> bool:
    return key == DOORBELL.encode() or key.startswith(b"_kombu.") or any(part in owners for part in key.split(b"."))


def _processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        where, words = process.info["cwd"] or "", " ".join(process.info["cmdline"] or ())
        if where.startswith(str(folder)) or f"{folder}/" in words:
            found.append(f"a process is left: {process.info['pid']} {words[:200]}")
    return found


def _named(folder: Path, names: Sequence[str]) -> Counter[str]:
    """How often the logs name these events."""
    found: Counter[str] = Counter()
    for log in folder.glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            found.update(name for name in names if f'"{name}"' in line)
    return found


def _is_honest(words: str) -> bool:
    """While every node is away nobody offers the tool, and that is what callers hear."""
    return "unknown_tool" in words or "unknown_capability" in words


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
