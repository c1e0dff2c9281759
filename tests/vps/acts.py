"""The acts of `make vps-demo`: load comes, machines come; load goes, machines go. Each with its checks.

An act does not say when a machine is ordered or ended: the orchestrator does, by the act's pools file. It brings
the load, hurts a machine where that is the point, waits until the cloud is empty again, and looks what is left:
in the kernel, on the disk, and in the books of the cloud's API.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.testing.waiting import until
from tests.vps.api import Api
from tests.vps.calls import TOOL, Books, Load, books, first_starts
from tests.vps.centre import DataCentre
from tests.vps.hall import Hall
from tests.vps.pools import POOL
from tests.vps.seen import Story, Watcher

Say = Callable[[str], None]


GIVEN_BACK_WITHIN_S = 20.0
"""From a machine that nobody lists any more to the last of its files."""


class NotSeen(Exception):
    """What an act waits for did not come."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is played.

    Attributes:
        cloud: whose API.
        machines: that the load needs; the pool may have no more.
        depth: calls that wait or run at any time, while load comes.
        is_golden: machines boot as nodes; else Ansible makes them nodes.
        is_from_zero: the pool is left alone until it has gone to nothing, and then load comes.
        kills: spot machines, of which one is taken away, without a word, while calls run on it.
    """

    name: str
    image: str
    cloud: str = "hetzner"
    machines: int = 3
    depth: int = 24
    call_s: float = 2.0
    slots: int = 2
    is_golden: bool = True
    is_from_zero: bool = False
    kills: bool = False
    joins_within_s: float = 600.0
    ends_within_s: float = 300.0
    empty_within_s: float = 420.0


@dataclass(frozen=True, slots=True)
class Played:
    """How an act went. `wrong` is empty if every promise held."""

    act: Act
    stories: list[Story]
    books: Books
    decisions: list[dict[str, Any]]
    took_s: float
    wrong: tuple[str, ...]
    killed: str = ""
    asked: Mapping[str, int] = field(default_factory=dict)
    """Of the cloud's API, by operation."""


async def play(act: Act, hall: Hall, api: Api, say: Say) -> Played:
    """One act, from an empty cloud to an empty cloud."""
    begun_s = time.monotonic()
    load = Load(hall, POOL, act.call_s, act.depth)
    watcher = Watcher(api.centre, hall, say)
    async with watcher.held():
        await _learnt(act, hall, api.centre, say)
        killed = await _worked(act, load, api, say)
        await _until("every machine is gone", lambda: _is_empty(api.centre), act.empty_within_s, api.centre)
        say("every machine is gone")
        await _until("every claim is gone", lambda: _is_closed(hall), act.empty_within_s, api.centre)
        say("every claim is gone")
    with contextlib.suppress(TimeoutError):  # what is there then is said below
        await until(lambda: not api.centre.left(), GIVEN_BACK_WITHIN_S)
    await watcher.look()
    claims = await hall.claims()
    stories = _told(load, watcher, claims)
    said = books(load)
    wrong = [*said.wrong, *await _left(api), *_unseen(act, stories, said, killed), *_open(stories, claims)]
    took_s = time.monotonic() - begun_s
    return Played(act, stories, said, await hall.decisions(), took_s, tuple(wrong), killed, api.asked())


async def _until(what: str, holds: Callable[[], object], within_s: float, centre: DataCentre) -> None:
    """Wait; what was waited for, and what the data centre knows of, is said where it does not come."""
    try:
        await until(holds, within_s)
    except TimeoutError as error:
        there = ", ".join(f"{machine.name} ({machine.power.value})" for machine in await centre.machines()) or "none"
        known = "; ".join(centre.failures()) or "no failure known to the data centre"
        raise NotSeen(f"not seen within {within_s:.0f} s: {what}. Machines: {there}; {known}") from error


async def _learnt(act: Act, hall: Hall, centre: DataCentre, say: Say) -> None:
    """Nobody knows yet what the pool's machines offer, so one is ordered to learn it from."""

    async def joined() -> bool:
        return await hall.offers(TOOL) > 0

    await _until("a first machine joins", joined, act.joins_within_s, centre)
    say("the first machine, ordered to learn what its like offers, has joined")
    if act.is_from_zero:
        await _until("the pool goes to zero", lambda: _is_empty(centre), act.empty_within_s, centre)
        say("nobody called: the pool is at zero")


async def _worked(act: Act, load: Load, api: Api, say: Say) -> str:
    """Load comes and goes; the machine that was taken away meanwhile."""
    killed, needed = "", act.machines
    say(f"calls of {act.call_s:g} s arrive, {act.depth} at a time")
    async with load.coming():
        few = f"{needed} nodes take calls"
        await _until(few, lambda: len(load.nodes()) >= needed, act.joins_within_s, api.centre)
        say(few)
        if act.kills:
            killed = await _taken_away(api, load)
            say(f"machine {killed} is taken away, with calls running on it")
            before = load.nodes()
            other = "another machine takes calls"
            await _until(other, lambda: load.nodes() - before, act.joins_within_s, api.centre)
            say(f"{', '.join(load.nodes() - before)}, ordered in its place, takes calls")
    await load.ended(act.ends_within_s)
    say(f"no more calls arrive, and all {len(load.ids)} have ended")
    return killed


async def _taken_away(api: Api, load: Load) -> str:
    """As a spot market does it, behind everybody's back: the machine on which the most calls run now."""
    running = await until(lambda: _running(load))
    nodes = list(running.values())
    busiest = max((machine.name for machine in await api.centre.machines()), key=nodes.count)
    await until(lambda: _begun(load, busiest, running))  # not a moment before its end
    await api.takes(busiest)
    return busiest


async def _running(load: Load) -> dict[str, str]:
    """Calls that run now, and where."""
    await load.look()
    views = [view for view in load.views if view["state"] == "running" and view["attempts"]]
    return {view["id"]: view["attempts"][-1]["node"] for view in views}


async def _begun(load: Load, node: str, before: Mapping[str, str]) -> bool:
    now = await _running(load)
    return any(where == node and call not in before for call, where in now.items())


async def _is_empty(centre: DataCentre) -> bool:
    return not await centre.machines()


async def _is_closed(hall: Hall) -> bool:
    return all(claim["state"] == "gone" for claim in await hall.claims())


def _told(load: Load, watcher: Watcher, claims: list[dict[str, Any]]) -> list[Story]:
    """Counted from the claim, which is written before the cloud is asked."""
    ordered = {claim["node"]: claim["created_at"] for claim in claims}
    starts = first_starts(load.views)
    for story in watcher.stories.values():
        story.ordered_at = ordered.get(story.name, story.ordered_at)
        if story.name in starts:
            story.first("first call", starts[story.name])
    return sorted(watcher.stories.values(), key=lambda story: story.ordered_at)


async def _left(api: Api) -> list[str]:
    """In the cloud's books, in the kernel, on the disk."""
    wrong = [f"left behind in the cloud's books: {each}" for each in await api.left()]
    return wrong + [f"left behind: {what}: {', '.join(those)}" for what, those in api.centre.left().items()]


def _open(stories: list[Story], claims: list[dict[str, Any]]) -> list[str]:
    """Claims and machines, one for one."""
    machines, claimed = {story.name for story in stories}, {claim["node"] for claim in claims}
    wrong = [f"{claim['node']} is {claim['state']}, not gone" for claim in claims if claim["state"] != "gone"]
    wrong += [f"{name} has no claim" for name in sorted(machines - claimed)]
    return wrong + [f"{name} was claimed, and no machine of it was ever seen" for name in sorted(claimed - machines)]


def _unseen(act: Act, stories: list[Story], said: Books, killed: str) -> list[str]:
    """What the act was to show, and did not."""
    wrong = []
    for story in stories:
        must = {"API: create", "booted", "gone"} | (
            {"left", "API: delete"} if "joined" in story.at and story.name != killed else set()
        )
        wrong += [f"{story.name} was never seen {step}" for step in sorted(must - story.at.keys())]
    if len(said.nodes) < act.machines:
        wrong.append(f"only {', '.join(said.nodes)} answered calls")
    if killed and not said.repeated:
        wrong.append(f"no call was running on {killed}")
    if not killed and said.repeated:
        wrong.append(f"{said.repeated} calls were started twice, though no machine was lost")
    return wrong
