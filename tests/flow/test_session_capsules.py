"""A machine dies under an agent: its session goes on on another node, by real processes and the real Claude Code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from orchestrator.testing.serving import serving
from tests.contract.workspace_rig import Rig
from tests.flow.agents_fleet import COST_USD, WITHIN_S, Fleet
from worker.testing.messages_double import MessagesDouble, text, use

pytestmark = pytest.mark.live("claude")

SCRIPT = [
    [text("I begin."), use("Write", file_path="/workspace/made.txt", content="made before\n")],
    [use("Bash", command="rm readme.txt && echo 'price = 2' > src/shop.py")],
    [text("Held, and never heard.")],  # Claude Code, resumed, says a word of its own in this place
    [use("Bash", command="cat made.txt src/shop.py && ls && echo more >> made.txt")],
    [text("All is done.")],
]


@pytest.fixture
def model() -> MessagesDouble:
    """It is slow, as models are: after each edit it waits until it is told to answer."""
    made = MessagesDouble(SCRIPT)
    made.holds |= {1, 2}
    return made


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str, model: MessagesDouble) -> AsyncIterator[Fleet]:
    """Two nodes, either of which can run it."""
    rig = Rig(tmp_path)
    rig.begin()
    async with (
        serving(model.app) as model_url,
        Fleet(tmp_path, redis_url, model_url, str(rig.remote)).up("a1", "b1") as made,
    ):
        yield made


async def test_a_session_goes_on_elsewhere_when_its_machine_dies(fleet: Fleet, model: MessagesDouble) -> None:
    """Edited on one node, killed -9 with it, ended on the other: one patch, one conversation, one bill."""
    arguments = {"prompt": "remember the word plum", "allowed_tools": ["Bash", "Write"], "max_turns": 9}
    call = await fleet.post("/v1/invocations", {"tool": "claude_code.run", "project": "shop", "arguments": arguments})
    path = f"/v1/invocations/{call['id']}"
    await fleet.until(lambda: fleet.capsule_of(call["id"]), "a capsule of the first edit is in the ledger")
    model.holds.remove(1)
    saved = await fleet.until(lambda: fleet.capsule_of(call["id"], 2), "one of both edits is there")
    await fleet.until(lambda: fleet.blobs() == [saved], "the one before is released")
    (first,) = (await fleet.get(path))["attempts"]
    family = await fleet.kill(first["node"])
    assert psutil.wait_procs(family, WITHIN_S)[1] == []  # the run died with its node
    asked = len(model.requests)
    model.holds.clear()
    view = await fleet.ended(path)
    assert view["state"] == "succeeded", (view, fleet.logs())
    assert [(each["fence"], each["ending"]) for each in view["attempts"]] == [(1, "superseded"), (2, "succeeded")]
    assert view["attempts"][1]["node"] not in {None, first["node"]}
    conversation = str(model.requests[asked]["messages"])
    assert "plum" in conversation
    assert "made before" in conversation
    assert "You were interrupted" in conversation
    answer = view["result"]["structuredContent"]
    assert (answer["ending"], answer["resumed"], answer["resumed_from"]) == ("succeeded", 1, [first["node"]])
    for line in ("+made before", "+more", "+price = 2", "deleted file mode"):
        assert line in answer["patch"]
    assert answer["files"] == 3
    assert (answer["turns"], answer["cost_usd"]) == (4, pytest.approx(4 * COST_USD))
    assert fleet.capsule_of(call["id"]) is None


async def test_a_node_that_is_cut_off_ends_what_another_goes_on_with(fleet: Fleet, model: MessagesDouble) -> None:
    """Its machine is well and the network is not: only one of them works and is paid, and its end is the call's."""
    arguments = {"prompt": "remember the word plum", "allowed_tools": ["Bash", "Write"], "max_turns": 9}
    call = await fleet.post("/v1/invocations", {"tool": "claude_code.run", "project": "shop", "arguments": arguments})
    path = f"/v1/invocations/{call['id']}"
    await fleet.until(lambda: fleet.capsule_of(call["id"]), "a capsule of the first edit is in the ledger")
    (first,) = (await fleet.get(path))["attempts"]
    fleet.way_of[first["node"]].cut()
    family = psutil.Process(fleet.running[first["node"]].pid).children(recursive=True)
    agents = [process for process in family if "claude" in " ".join(process.cmdline())]
    assert agents
    await fleet.until(lambda: psutil.wait_procs(agents, 0)[1] == [], "its node has ended the run by itself")
    model.holds.clear()
    fleet.way_of[first["node"]].mend()
    view = await fleet.ended(path)
    assert view["state"] == "succeeded", (view, fleet.logs())
    assert [each["fence"] for each in view["attempts"]] == [1, 2]
    # Its own word of its end travels through Redis, which is not cut: it may come before the lease is over.
    assert [each["ending"] for each in view["attempts"]] in [["superseded", "succeeded"], ["failed", "succeeded"]]
    assert view["result"]["structuredContent"]["resumed_from"] == [first["node"]]
    assert "cut_off" in (fleet.folder / f"{first['node']}.log").read_text()
