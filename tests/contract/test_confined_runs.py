"""A run uses what it may, whatever it does: real control groups, a real fork bomb, real memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.agents import bench
from tests.contract.chat_node import glm, run
from tests.contract.confined_rig import BOMB, HOG, MEMORY_BYTES, groups_of, needs_groups
from worker.testing import messages_double
from worker.testing.chat_double import ChatDouble, Step, use

ENOUGH = 100
"""Processes that a run in these tests may have."""


@needs_groups
async def test_a_fork_bomb_in_a_command_hurts_its_own_run_alone(tmp_path: Path) -> None:
    """It meets the limit of its run; the run goes on, the node too, and nothing is left."""
    model = ChatDouble([Step(calls=(use("run_command", command=BOMB),)), Step("it was refused")])
    async with glm(tmp_path, model, processes=ENOUGH) as server:
        assert f"{ENOUGH} processes" in str(server.status().limits)
        answer = await run(server)
        assert groups_of(tmp_path / "state/sidecars/glm") == []
    assert (answer["isError"], answer["content"][0]["text"]) == (False, "it was refused")
    assert "fork" in str(model.requests[-1]["messages"]).lower()


@needs_groups
async def test_a_run_that_uses_all_its_memory_ends_as_that(tmp_path: Path) -> None:
    """An answer that names the limit, with what it did until then; not a runtime that broke."""
    model = ChatDouble(
        [Step(calls=(use("run_command", command=HOG),)), Step(calls=(use("run_command", command="sleep 60"),))]
    )
    async with glm(tmp_path, model, memory_bytes=MEMORY_BYTES) as server:
        answer = await run(server)
    assert (answer["isError"], answer["structuredContent"]["ending"]) == (True, "limit")
    assert answer["structuredContent"]["fault"] == "memory"
    assert "512 MiB" in answer["content"][0]["text"]


@needs_groups
async def test_memory_is_of_all_commands_together(tmp_path: Path) -> None:
    """Two halves that each fit do not fit beside each other."""
    half = "python3 -c 'import time; x = bytearray(350 << 20); time.sleep(20)'"
    waits = Step(calls=(use("run_command", command="sleep 60"),))
    model = ChatDouble([Step(calls=(use("run_command", command=f"{half} & {half}"),)), waits])
    async with glm(tmp_path, model, memory_bytes=MEMORY_BYTES) as server:
        answer = await run(server)
    assert answer["structuredContent"]["fault"] == "memory"


@pytest.mark.live("claude")
@needs_groups
async def test_a_fork_bomb_in_claude_code_ends_with_its_run(tmp_path: Path) -> None:
    """Its Bash lets it go on in the background; the run's end does not. Claude Code may get no thread either."""
    script = [[messages_double.use("Bash", command=BOMB)], [messages_double.text("it was refused")]]
    async with bench(tmp_path, script, processes=ENOUGH) as at:
        answer = await at.call(allowed_tools=["Bash"])
        assert at.sandboxes() == []
        assert groups_of(tmp_path / "state/sidecars/claude_code") == []
    if answer["isError"]:
        assert (answer["structuredContent"]["ending"], answer["structuredContent"]["fault"]) == ("limit", "processes")
        assert f"all of its {ENOUGH} processes" in answer["content"][0]["text"]
    else:
        assert answer["content"][0]["text"] == "it was refused"
        assert "fork" in " ".join(at.model.results()).lower()


@pytest.mark.live("claude")
@needs_groups
async def test_memory_ends_a_run_of_claude_code(tmp_path: Path) -> None:
    """Whether the kernel ends the command or the agent."""
    script = [[messages_double.use("Bash", command=HOG)], [messages_double.use("Bash", command="sleep 60")]]
    async with bench(tmp_path, script, memory_bytes=MEMORY_BYTES) as at:
        answer = await at.call(allowed_tools=["Bash"])
        assert at.sandboxes() == []
    assert (answer["structuredContent"]["ending"], answer["structuredContent"]["fault"]) == ("limit", "memory")
    assert "memory_bytes" in answer["content"][0]["text"]
