"""A key that fails under an agent's run: real processes, the real Claude Code, doubles of both providers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.testing.serving import serving
from tests.contract.claude_binary import BINARY, VERSION
from tests.contract.workspace_rig import Rig
from tests.flow.agents_fleet import COST_USD, Fleet
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS, MessagesDouble, Trouble, text, use

pytestmark = pytest.mark.live("claude")

GLM_USD = (INPUT_TOKENS * 1.0 + OUTPUT_TOKENS * 2.0) / 1_000_000
SCRIPT = [
    [use("Write", file_path="/workspace/made.txt", content="made before\n")],
    [use("Bash", command="cat made.txt && echo more >> made.txt")],
    [text("All is done.")],
]
CALL = {
    "tool": "claude_code.run",
    "project": "shop",
    "arguments": {"prompt": "remember the word plum", "allowed_tools": ["Bash", "Write"]},
}


class Both(Fleet):
    """Each node has Claude, which falls back to GLM."""

    glm_url: str = ""

    def sidecars(self) -> dict[str, Any]:
        """As the servers file has them."""
        key = self.folder / "key"
        key.write_text("not-a-secret")
        common = {"kind": "claude_code", "binary": str(BINARY), "version": VERSION, "key_file": str(key)}
        claude = common | {
            "url": self.model_url,
            "model": "claude-sonnet-5",
            "prices": {"claude-sonnet": {"input": 3.0, "output": 15.0}},
            "falls_back": {"to": "glm_code", "after_wait_s": 0},
        }
        prices = {"glm-5": {"input": 1.0, "output": 2.0}}
        glm = common | {"url": self.glm_url, "bearer": True, "model": "glm-5", "prices": prices}
        return {"claude_code": claude, "glm_code": glm}


@pytest.fixture
def claude() -> MessagesDouble:
    """The first provider."""
    return MessagesDouble(SCRIPT)


@pytest.fixture
def glm() -> MessagesDouble:
    """The second one."""
    return MessagesDouble(SCRIPT)


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str, claude: MessagesDouble, glm: MessagesDouble) -> AsyncIterator[Both]:
    """An orchestrator and one node."""
    rig = Rig(tmp_path)
    rig.begin()
    async with serving(claude.app) as claude_url, serving(glm.app) as glm_url:
        made = Both(tmp_path, redis_url, claude_url, str(rig.remote))
        made.glm_url = glm_url
        async with made.up("a1"):
            yield made


async def test_a_refused_key_leaves_the_run_to_the_other_provider(
    fleet: Both, claude: MessagesDouble, glm: MessagesDouble
) -> None:
    """The call is one that succeeded, at the first try; its money is GLM's, and the node says what is wrong."""
    claude.always = Trouble(status=401)
    call = await fleet.post("/v1/invocations", CALL)
    view = await fleet.ended(f"/v1/invocations/{call['id']}")
    assert view["state"] == "succeeded", (view, fleet.logs())
    assert len(view["attempts"]) == 1
    answer = view["result"]["structuredContent"]
    assert answer["ran_by"] == "glm_code"
    assert "refused (401)" in answer["fell_back"]
    assert "patch" in answer, (answer, fleet.logs())
    for line in ("+made before", "+more"):
        assert line in answer["patch"]
    costs = (await fleet.get("/v1/costs", by="model"))["rows"]
    assert [(row["key"], row["requests"]) for row in costs] == [("glm-5", 3)]
    assert costs[0]["cost_usd"] == pytest.approx(3 * GLM_USD)
    (node,) = (await fleet.get("/v1/nodes"))["items"]
    assert node["unhealthy"] == {}
    assert "credential claude_code is refused" in node["notes"]["claude_code"]
    assert "runs fall back to glm_code" in node["notes"]["claude_code"]
    assert len(glm.requests) >= 3


async def test_a_quota_in_the_middle_of_a_run_is_waited_for(
    fleet: Both, claude: MessagesDouble, glm: MessagesDouble
) -> None:
    """It goes on with its edit, on the same model, and its answer is one: at no cost in tries."""
    claude.at_step[1] = Trouble(status=429, headers={"retry-after": "5", "x-should-retry": "false"})
    call = await fleet.post("/v1/invocations", CALL)
    path = f"/v1/invocations/{call['id']}"

    async def waits() -> dict[str, Any] | None:
        view = await fleet.get(path)
        return view if view["attempts"] and view["attempts"][0]["ended_at"] else None

    view = await fleet.until(waits, "the first attempt has ended")
    claude.at_step.clear()
    first = view["attempts"][0]
    assert (view["ended_at"], view["tries"]) == (None, 0)
    assert first["error"]["code"] == "credential_spent_midway", json.dumps(view)
    asked = len(claude.requests)
    view = await fleet.ended(path)
    assert view["state"] == "succeeded", (view, fleet.logs())
    assert view["tries"] == 1
    conversation = str(claude.requests[asked]["messages"])
    for word in ("plum", "made before", "You were interrupted"):
        assert word in conversation
    answer = view["result"]["structuredContent"]
    assert (answer["ran_by"], answer["resumed"], answer["resumed_from"]) == ("claude_code", 1, ["a1"])
    for line in ("+made before", "+more"):
        assert line in answer["patch"]
    assert answer["files"] == 1
    assert answer["cost_usd"] == pytest.approx(3 * COST_USD)
    assert glm.requests == []
    assert fleet.capsule_of(call["id"]) is None
