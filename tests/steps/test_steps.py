"""Kill -9 between any two named steps of one call's life, and what its caller then hears.

Each row kills the real orchestrator, or the real node, exactly there (dying.py), with a call that is safe to
repeat and one that is not on their way, from a caller who asks again with his idempotency keys. What may
come of it is what docs/faults.md promises for that very step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.queues import DOORBELL
from tests.conftest import ROOT, Valkey
from tests.steps.stepped_fleet import NODE, SLOTS, SteppedFleet

SAFE, UNSAFE = "effects.put", "effects.apply"


@dataclass(frozen=True)
class End:
    """How a call ends, how often its effect happens, and how many attempts may have started."""

    state: str
    effects: int
    tries: int = 1


ONCE = End("succeeded", 1)


@dataclass(frozen=True)
class Step:
    """One place to die.

    Attributes:
        name: as dying.py calls it.
        calls: how many calls must stand there.
        walk: what brings them there.
        unsafe: the end of the call that is not safe to repeat.
        safe: the end of the one that is.
    """

    name: str
    calls: int = 1
    walk: Callable[[SteppedFleet, str], Any] | None = None
    unsafe: End = ONCE
    safe: End = ONCE


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[SteppedFleet]:
    """For the whole table: only who dies starts anew."""
    with valkey.client() as client:
        client.flushall()
    with SteppedFleet(tmp_path_factory.mktemp("steps"), valkey.url).running() as fleet:
        yield fleet
    with valkey.client() as client:
        client.flushall()


# ---------------------------------------------------------------- walks


def _pair(step: str, **more: Any) -> list[dict[str, Any]]:
    """One of each; the id, the idempotency key and the mark are the same words."""
    return [
        {"tool": tool, "id": name, "idempotency_key": name, "arguments": {"key": name, **more}}
        for tool, name in ((UNSAFE, f"{step}-unsafe"), (SAFE, f"{step}-safe"))
    ]


def _call(fleet: SteppedFleet, step: str) -> list[str]:
    """Ask for both, die, ask again: the same two calls."""
    fleet.whole()
    fleet.arm(step, STEPS[step].calls, step)
    ids = fleet.accept(_pair(step))
    fleet.until_reached(step)
    assert fleet.accept(_pair(step)) == ids, "the key finds the call"
    return ids


def _run(fleet: SteppedFleet, step: str) -> list[str]:
    """Both run while it happens."""
    fleet.whole()
    ids = fleet.accept(_pair(step, seconds=2))
    fleet.until(lambda: set(_keys(step)) <= set(fleet.effects()), "both run")
    fleet.arm(step, STEPS[step].calls, step)
    fleet.until_reached(step)
    return ids


def _mark(fleet: SteppedFleet, step: str) -> list[str]:
    """A renewal says for the first time that they run: armed before they do, or another renewal may have said it."""
    fleet.whole()
    fleet.arm(step, 1, step)
    ids = fleet.accept(_pair(step, seconds=2))
    fleet.until_reached(step)
    return ids


def _take_over(fleet: SteppedFleet, step: str) -> list[str]:
    """The orchestrator that comes after a dead one dies too, before it has read what is open."""
    fleet.whole()
    fleet.arm(step)
    fleet.arm("release-before-commit")
    ids = fleet.accept(_pair(step))
    fleet.until_reached(step)
    return ids


def _drain(fleet: SteppedFleet, step: str) -> list[str]:
    """All slots are taken, both wait at the node, and it is told to go."""
    fleet.whole()
    fillers = [{"tool": SAFE, "arguments": {"key": f"{step}.{n}", "seconds": 1}} for n in range(SLOTS)]
    fleet.accept(fillers)
    fleet.until(lambda: sum(_running(fleet)) == SLOTS, "all slots are taken")
    ids = fleet.accept(_pair(step))
    fleet.until(lambda: sum(_waiting(fleet)) == len(ids), "both wait at the node")
    fleet.arm(step, STEPS[step].calls, step)
    fleet.post(f"/v1/nodes/{NODE}/state", {"state": "draining"})
    fleet.until_reached(step)
    return ids


def _cancel(fleet: SteppedFleet, step: str) -> list[str]:
    """Both run, both are cancelled, and nobody asks a second time."""
    fleet.whole()
    ids = fleet.accept(_pair(step, seconds=600))
    fleet.until(lambda: set(_keys(step)) <= set(fleet.effects()), "both run")
    fleet.arm(step, STEPS[step].calls, step)
    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(lambda one: fleet.post_once(f"/v1/invocations/{one}/cancel"), ids))
    fleet.until_reached(step)
    return ids


def _join(fleet: SteppedFleet, step: str) -> list[str]:
    """The node died while both ran; its next process, or the orchestrator, dies while it joins."""
    fleet.whole()
    fleet.arm(step)
    fleet.arm("start-journaled", 2, step)
    ids = fleet.accept(_pair(step))
    fleet.until_reached(step)
    return ids


def _keys(step: str) -> list[str]:
    return [call["arguments"]["key"] for call in _pair(step)]


def _running(fleet: SteppedFleet) -> list[int]:
    return [sum(node["running"].values()) for node in fleet.get("/v1/nodes")["items"]]


def _waiting(fleet: SteppedFleet) -> list[int]:
    nodes = fleet.get("/v1/nodes")["items"]
    return [sum(node["outstanding"].values()) - sum(node["running"].values()) for node in nodes]


# ---------------------------------------------------------------- the table

CANCELLED = End("cancelled", 1)
NOT_STARTED = End("lost", 0)
SECOND = End("succeeded", 1)
"""The node was lost with the first attempt, which uses up no try."""
TWICE = End("succeeded", 2)
TABLE = (
    # the orchestrator
    Step("accept-before-commit", walk=_call),
    Step("accept-after-commit", walk=_call),
    Step("release-before-commit", walk=_call),
    Step("release-after-commit", walk=_call),
    Step("published", walk=_call),
    Step("outcome-read", walk=_call),
    Step("settle-before-commit", walk=_call),
    Step("settle-after-commit", walk=_call),
    Step("settled-not-said", walk=_call),
    Step("settled-said", walk=_call),
    Step("renewal-heard", walk=_run),
    Step("renewal-taken", walk=_run),
    Step("mark_started-before-commit", walk=_mark),
    Step("mark_started-after-commit", walk=_mark),
    Step("epoch-taken", walk=_take_over),
    Step("return-heard", 2, walk=_drain),
    Step("return-taken", 2, walk=_drain),
    Step("leave-heard", walk=_drain),
    Step("leave-taken", walk=_drain),
    Step("node-forgotten", walk=_drain),
    Step("cancel-not-sent", 2, walk=_cancel, unsafe=CANCELLED, safe=CANCELLED),
    Step("join-heard", walk=_join, unsafe=NOT_STARTED, safe=SECOND),
    Step("join-taken", walk=_join, unsafe=NOT_STARTED, safe=SECOND),
    # the node
    Step("received", walk=_call),
    Step("start-not-journaled", walk=_call),
    Step("start-journaled", 2, walk=_call, unsafe=NOT_STARTED, safe=SECOND),
    Step("tool-ran", 2, walk=_call, unsafe=End("lost", 1), safe=TWICE),
    Step("outcome-journaled", 2, walk=_call),
    Step("outcome-reported", 2, walk=_call),
    Step("settled-heard", 2, walk=_call),
    Step("handed-back", walk=_drain),
    Step("joined-not-adopted", walk=_join, unsafe=NOT_STARTED, safe=SECOND),
    Step("lease-granted", walk=_run, unsafe=End("lost", 1), safe=TWICE),
)
STEPS = {step.name: step for step in TABLE}


@pytest.mark.parametrize("step", TABLE, ids=lambda step: step.name)
def test_a_death_at_this_step_keeps_every_promise(fleet: SteppedFleet, step: Step) -> None:
    """Every accepted call ends once, with the outcome that is true of this step; what is unsafe ran once at most."""
    assert step.walk is not None
    ids = step.walk(fleet, step.name)
    views = [fleet.ended(one) for one in ids]
    effects = fleet.effects()
    keys = _keys(step.name)
    said = [End(view["state"], effects[key], view["tries"]) for view, key in zip(views, keys, strict=True)]
    assert said == [step.unsafe, step.safe], f"{views}\n{fleet.logs()}"
    for view, key in zip(views, keys, strict=True):
        if view["state"] == "succeeded":
            assert [block["text"] for block in view["result"]["content"]] == [key]
    assert fleet.reached(step.name)


def test_no_step_is_named_and_not_tried() -> None:
    """Every step that dying.py knows is in the table, and every step of the table is on the page."""
    words = Path(__file__).with_name("dying.py").read_text()
    known = set(re.findall(r'(?:before=|after=|steps\.at\()"([\w-]+)"', words))
    assert known <= set(STEPS)
    assert len(known) > len(STEPS) // 2, "the pattern finds them"
    page = (ROOT / "docs" / "faults.md").read_text()
    assert [name for name in STEPS if f"`{name}`" not in page] == []


@pytest.mark.parametrize("step", ["accept-before-commit", "accept-after-commit"])
def test_a_dead_letter_is_replayed_once(fleet: SteppedFleet, step: str) -> None:
    """The orchestrator dies while it replays; the operator, who heard nothing, asks again: one replay."""
    fleet.whole()
    (lost,) = fleet.accept(
        [{"tool": UNSAFE, "timeout_s": 0.2, "arguments": {"key": f"dead-{step}", "mischief": "hang"}}]
    )
    assert fleet.ended(lost)["state"] == "failed"
    others = [letter["id"] for letter in fleet.get("/v1/dead-letters")["items"]]
    others.remove(lost)
    fleet.post("/v1/dead-letters:discard", {"ids": others})
    (fleet.folder / f"{step}.reached").unlink(missing_ok=True)
    fleet.arm(step)
    fleet.post("/v1/dead-letters:replay", {})
    assert fleet.reached(step)
    items = fleet.get("/v1/invocations", limit=200)["items"]
    assert len([one for one in items if one["replay_of"] == lost]) == 1


def test_a_node_that_leaves_after_all_this_leaves_nothing(fleet: SteppedFleet, valkey: Valkey) -> None:
    """The last test of this fleet: its journal is empty, and nothing in Redis bears its name."""
    fleet.whole()
    fleet.leave()
    assert fleet.journal_rows() == 0
    with valkey.client() as client:
        fleet.until(lambda: not client.keys(f"*.n.{NODE}.*"), f"no key bears the name, of {client.keys('*')}")
        others = set(client.scan_iter())
    assert others <= {DOORBELL.encode()}
