"""The acts of `make vps-demo`: load comes, machines come; load goes, machines go. Each with its checks.

An act does not say when a machine is ordered or ended: its scaler does. It brings the load, hurts a machine
where that is the point, waits until the cloud is empty again, and looks what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.testing.waiting import until
from tests.vps.calls import TOOL, Books, Load, books, first_starts
from tests.vps.ground import left_of, provider
from tests.vps.hall import Hall
from tests.vps.seen import Story, Watcher

CLUSTER = "demo"
POOL = "vps"
Say = Callable[[str], None]


class Scaler(Protocol):
    """Whoever orders and ends machines."""

    async def grow(self, machines: int) -> None:
        """Load has come; so many would be right."""
        ...

    async def empty(self) -> None:
        """Load has gone."""
        ...


@dataclass(frozen=True, slots=True)
class Act:
    """What is played.

    Attributes:
        first: machines before the load comes.
        machines: with it.
        depth: calls that wait or run at any time, while load comes.
        kills: a machine is taken away, without a word, while calls run on it.
    """

    name: str
    image: str
    first: int = 1
    machines: int = 3
    depth: int = 24
    call_s: float = 2.0
    slots: int = 2
    kills: bool = False
    joins_within_s: float = 240.0
    ends_within_s: float = 300.0
    empty_within_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Played:
    """How an act went. `wrong` is empty if every promise held."""

    act: Act
    stories: list[Story]
    books: Books
    took_s: float
    wrong: tuple[str, ...]
    killed: str = ""


async def play(act: Act, hall: Hall, cloud: LocalVps, scaler: Scaler, *, state_dir: Path, say: Say) -> Played:
    """One act, from an empty cloud to an empty cloud."""
    begun_s, killed = time.monotonic(), ""
    load = Load(hall, POOL, act.call_s, act.depth)
    watcher = Watcher(cloud, CLUSTER, hall, state_dir)

    async def joined() -> bool:
        return await hall.offers(TOOL) >= act.first

    async with watcher.held():
        await scaler.grow(act.first)
        await until(joined, act.joins_within_s)
        say(f"{act.first} node is there; calls of {act.call_s:g} s arrive, {act.depth} at a time")
        async with load.coming():
            await scaler.grow(act.machines)
            await until(lambda: len(load.nodes()) >= act.machines, act.joins_within_s)
            say(f"{act.machines} nodes take calls")
            if act.kills:
                killed = await _taken_away(cloud, state_dir, load)
                say(f"machine {killed} is taken away, with calls running on it")
        await load.ended(act.ends_within_s)
        say(f"no more calls arrive, and all {len(load.ids)} have ended")
        await scaler.empty()
        await until(lambda: _is_empty(cloud), act.empty_within_s)
        say("every machine is gone")
    await watcher.look()
    for name, at in first_starts(load.views).items():
        if name in watcher.stories:
            watcher.stories[name].first("first call", at)
    said = books(load)
    wrong = [*said.wrong, *_left(state_dir), *_unseen(act, list(watcher.stories.values()), said, killed)]
    stories = sorted(watcher.stories.values(), key=lambda story: story.ordered_at)
    return Played(act, stories, said, time.monotonic() - begun_s, tuple(wrong), killed)


async def _taken_away(cloud: LocalVps, state_dir: Path, load: Load) -> str:
    """As a spot market does it, behind everybody's back: the machine on which the most calls run now."""
    await until(lambda: _runs_somewhere(load))
    running = [view["attempts"][-1]["node"] for view in load.views if view["state"] == "running" and view["attempts"]]
    machines = {machine.name: machine for machine in await cloud.machines(CLUSTER)}
    busiest = max(machines, key=running.count)
    market = provider(state_dir, Path("unused"), stop_s=0)
    await market.terminate(machines[busiest].id)
    return busiest


async def _runs_somewhere(load: Load) -> bool:
    await load.look()
    return any(view["state"] == "running" for view in load.views)


async def _is_empty(cloud: LocalVps) -> bool:
    return not await cloud.machines(CLUSTER)


def _left(state_dir: Path) -> list[str]:
    return [f"left behind: {what}: {', '.join(those)}" for what, those in left_of(state_dir).items()]


def _unseen(act: Act, stories: list[Story], said: Books, killed: str) -> list[str]:
    """What the act was to show, and did not."""
    wrong = []
    if len(stories) < act.machines:
        wrong.append(f"{len(stories)} machines were ordered, not {act.machines}")
    for story in stories:
        must = ("booted", "joined", "gone") if story.name == killed else ("booted", "joined", "left", "gone")
        wrong += [f"{story.name} was never seen {step}" for step in must if step not in story.at]
    if len(said.nodes) < act.machines - bool(killed):
        wrong.append(f"only {', '.join(said.nodes)} answered calls")
    if killed and not said.repeated:
        wrong.append(f"no call was running on {killed}")
    if not killed and said.repeated:
        wrong.append(f"{said.repeated} calls were started twice, though no machine was lost")
    return wrong
