"""What became of each machine, and when: looked at from outside, whoever ordered it.

Asks the data centre, the network, the machine's disk and the orchestrator; knows no autoscaler.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median

from orchestrator.autoscaler.cloud.provider import Machine
from tests.vps.centre import DataCentre
from tests.vps.hall import Hall

SSH = 22
LOOK_EVERY_S = 0.2
CONNECT_S = 0.5
STEPS = (
    *("API: create", "booted", "ssh", "cloud-init", "provisioned", "joined", "first call"),
    *("draining", "left", "API: delete", "gone"),
)
"""In this order. What a machine passed by is left out."""
CELL = 12
UNIT = "etc/systemd/system/mcpfleet-node.service"
"""On a machine's own disk where Ansible wrote it, which is when all that the node needs is installed."""
HERE, LEAVING = frozenset({"active", "cordoned"}), frozenset({"draining"})


@dataclass
class Story:
    """One machine's: step → wall clock."""

    name: str
    ordered_at: float
    at: dict[str, float] = field(default_factory=dict)

    def first(self, step: str, at: float | None = None) -> None:
        """It was seen for the first time."""
        self.at.setdefault(step, time.time() if at is None else at)

    def after_s(self, step: str) -> float | None:
        """Since it was ordered."""
        return self.at[step] - self.ordered_at if step in self.at else None


class Watcher:
    """Looks, as long as it is held."""

    def __init__(self, centre: DataCentre, hall: Hall, say: Callable[[str], None]) -> None:
        self._centre, self._hall, self._say = centre, hall, say
        self._said: set[tuple[str, str]] = set()
        self.stories: dict[str, Story] = {}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Watcher]:
        """From now on."""
        over = asyncio.Event()
        looking = asyncio.create_task(self._look_until(over))
        try:
            yield self
        finally:
            over.set()
            await looking

    async def _look_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await over.wait()

    async def look(self) -> None:
        """Once."""
        machines = await self._centre.machines()
        for machine in machines:
            await self._look_at(machine)
        states, is_told = await self._hall.node_states(), await self._hall.answers(next(iter(self._hall.orchestrators)))
        listed = {machine.name for machine in machines}
        for story in self.stories.values():
            state = states.get(story.name)
            if state in HERE:
                story.first("joined")
            elif state in LEAVING:
                story.first("draining")
            elif is_told and "joined" in story.at:
                story.first("left")
            if story.name in self._centre.asked.to_end:
                story.first("API: delete", self._centre.asked.to_end[story.name])
            if story.name not in listed:
                story.first("gone")
        self._tell()

    def _tell(self) -> None:
        """What was seen for the first time, in the order in which it came about."""
        news = [(at, name, step) for name, story in self.stories.items() for step, at in story.at.items()]
        for _, name, step in sorted(news):
            if (name, step) not in self._said:
                self._said.add((name, step))
                self._say(f"    {name}  {step}")

    async def _look_at(self, machine: Machine) -> None:
        story = self.stories.setdefault(machine.name, Story(machine.name, machine.created_at))
        if machine.name in self._centre.asked.to_build:
            story.first("API: create", self._centre.asked.to_build[machine.name])
        disk = self._centre.state_dir / "machines" / machine.id / "upper"
        for finished in disk.glob("var/lib/cloud/instances/*/boot-finished"):
            with contextlib.suppress(FileNotFoundError):
                story.first("cloud-init", finished.stat().st_mtime)
        with contextlib.suppress(FileNotFoundError):
            story.first("provisioned", (disk / UNIT).stat().st_mtime)
        if machine.power == "running":
            story.first("booted")
        if "ssh" not in story.at and machine.address and await _listens(machine.address):
            story.first("ssh")


def table(stories: list[Story]) -> str:
    """Seconds since each machine was ordered, step by step, and the median of all."""
    rows = {story.name: [story.after_s(step) for step in STEPS] for story in stories}
    return grid("s from the order", rows | {"median": medians(stories)})


def medians(stories: list[Story]) -> list[float | None]:
    """Of those who took the step."""
    found: list[float | None] = []
    for step in STEPS:
        known = [after_s for story in stories if (after_s := story.after_s(step)) is not None]
        found.append(median(known) if known else None)
    return found


def grid(corner: str, rows: Mapping[str, Sequence[float | None]]) -> str:
    """A row each, a column for each step."""
    width = max(len(name) for name in (corner, *rows))
    lines = [corner.ljust(width) + "".join(f"{step:>{CELL}}" for step in STEPS)]
    for name, times in rows.items():
        cells = (f"{'-':>{CELL}}" if each is None else f"{each:{CELL}.1f}" for each in times)
        lines.append(name.ljust(width) + "".join(cells))
    return "\n".join(lines)


async def _listens(address: str) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(address, SSH)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
