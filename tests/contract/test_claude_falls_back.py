"""The real Claude Code, whose credential fails: another sidecar of the node does the run, or it waits in its middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchestrator.testing.serving import serving
from tasks.clock import SystemClock
from tasks.errors import OrchestratorDown
from tasks.outcome import SPENT_MIDWAY, Failure
from tasks.spend import Spent
from tasks.tool import ToolPolicy
from tests.contract.agents import WAIT_S, lends_nothing
from tests.contract.capsule_store import Store
from tests.contract.claude_binary import BINARY, VERSION
from tests.contract.workspace_rig import Rig
from worker.sidecars.agent_server import AgentServer
from worker.sidecars.assemble import agent_server, agent_servers
from worker.sidecars.sidecars_file import parse_sidecars
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS, MessagesDouble, Trouble, text, use
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Ask, Keeping
from worker.workspaces.names import Project

pytestmark = [pytest.mark.live("claude"), pytest.mark.timeout(180)]

GLM_USD = (INPUT_TOKENS * 1.0 + OUTPUT_TOKENS * 2.0) / 1_000_000
"""Of one answer."""
CLAUDE_USD = (INPUT_TOKENS * 3.0 + OUTPUT_TOKENS * 15.0) / 1_000_000
REFUSED = Trouble(status=401)
SPENT = Trouble(status=429, headers={"retry-after": "1800", "x-should-retry": "false"})
EDITS = [
    [use("Write", file_path="/workspace/made.txt", content="first\n")],
    [use("Bash", command="echo second >> made.txt")],
    [text("All is done.")],
]
TOOLS: dict[str, Any] = {"allowed_tools": ["Bash", "Write"]}
Models = tuple[MessagesDouble, MessagesDouble]


@dataclass
class Node:
    """Two sidecars, of which one falls back to the other, and their models."""

    servers: dict[str, AgentServer]
    claude: MessagesDouble
    glm: MessagesDouble
    lines: list[str] = field(default_factory=list)
    spent: Spent = ()

    async def call(
        self, project: str | None = None, keeping: Keeping | None = None, tool: str = "claude_code", **said: Any
    ) -> dict[str, Any]:
        """One run; the CallToolResult."""

        def spend(spent: Spent) -> None:
            self.spent = spent

        ask = Ask("inv-1", None, None, lambda _done, _of, line: self.lines.append(line or ""), project, spend, keeping)
        async with asyncio.timeout(WAIT_S):
            arguments = {"prompt": "remember the word plum"} | said
            answer: dict[str, Any] = orjson.loads(await self.servers[tool].call("run", arguments, ask))
        return answer


def _said(folder: Path, claude_url: str, glm_url: str) -> dict[str, dict[str, Any]]:
    """In the servers file."""
    for name in ("claude", "glm"):
        (folder / f"{name}.key").write_text(f"not-a-secret-of-{name}")
    common = {"kind": "claude_code", "binary": str(BINARY), "version": VERSION, "capsule_every_s": 0.1}
    claude = {
        "key_file": str(folder / "claude.key"),
        "url": claude_url,
        "model": "claude-sonnet-5",
        "prices": {"claude-sonnet": {"input": 3.0, "output": 15.0}},
    }
    prices = {"glm-5": {"input": 1.0, "output": 2.0}}
    glm = {"key_file": str(folder / "glm.key"), "url": glm_url, "bearer": True, "model": "glm-5", "prices": prices}
    return {"claude_code": common | claude, "glm_code": common | glm}


@asynccontextmanager
async def node(
    folder: Path,
    models: Models,
    projects: Mapping[str, Project] | None = None,
    clock: SystemClock | None = None,
    **policy: Any,
) -> AsyncIterator[Node]:
    """Claude and GLM, in this order. Without a policy nobody falls back."""
    folder.mkdir(exist_ok=True)
    claude, glm = models
    async with serving(claude.app) as claude_url, serving(glm.app) as glm_url:
        said = _said(folder, claude_url, glm_url)
        if policy:
            said["claude_code"]["falls_back"] = {"to": "glm_code"} | policy
        entries = parse_sidecars(said, "test")
        make = partial(agent_server, state=folder / "state", projects=projects or {}, clock=clock or SystemClock())
        make = partial(make, policy_of=lambda _: ToolPolicy(), lend=lends_nothing)
        servers = dict[str, AgentServer]()

        def add(one: Any) -> AgentServer:
            server: AgentServer = one(lambda: None)
            servers[server.name] = server
            return server

        agent_servers(entries, add, make)
        for server in servers.values():
            await server.start()
        try:
            yield Node(servers, claude, glm)
        finally:
            for server in servers.values():
                await server.close()


def models(script: Sequence[Sequence[dict[str, Any]]] = EDITS) -> Models:
    """Both know the same. One pair for all nodes of a test: no two answers of a session may have one id."""
    return MessagesDouble(script), MessagesDouble(script)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A project."""
    made = Rig(tmp_path)
    made.begin()
    return made


async def test_a_run_of_a_refused_key_is_done_by_the_other_provider(tmp_path: Path, rig: Rig) -> None:
    """Found out by the run itself; its money is the model's that answered, and nobody can think that Claude did it."""
    async with node(tmp_path / "a", models(), projects={"shop": rig.project}, after_wait_s=300) as at:
        at.claude.always = REFUSED
        answer = await at.call("shop", **TOOLS)
        status = at.servers["claude_code"].status()
    structured = answer["structuredContent"]
    assert (answer["isError"], answer["content"][0]["text"]) == (False, "All is done.")
    assert structured["ran_by"] == "glm_code"
    assert "refused (401)" in structured["fell_back"]
    assert "+first\n+second\n" in structured["patch"]
    assert structured["cost_usd"] == pytest.approx(3 * GLM_USD)
    assert [(one.model, one.requests, one.cost_usd) for one in at.spent] == [("glm-5", 3, pytest.approx(3 * GLM_USD))]
    assert {headers["authorization"] for headers in at.glm.headers} == {"Bearer not-a-secret-of-glm"}
    assert len([line for line in at.lines if line.startswith("falls back to glm_code: claude_code:")]) == 1
    assert status.unhealthy is None
    assert "credential claude_code is refused" in str(status.note)
    assert "runs fall back to glm_code" in str(status.note)


class Skipping(SystemClock):
    """Time that nobody has to wait for."""

    skipped_s = 0.0

    def mono_s(self) -> float:
        """With what was skipped."""
        return super().mono_s() + self.skipped_s


async def test_the_time_that_the_first_one_took_is_taken_off(tmp_path: Path) -> None:
    """Its caller said how long it may be in all."""
    clock = Skipping()
    async with node(tmp_path / "a", models([[text("done")]]), clock=clock, after_wait_s=300) as at:
        at.claude.always = REFUSED
        at.claude.holds, at.glm.holds = {0}, {0}
        running = asyncio.create_task(at.call(max_s=590.0))
        for model, skipped_s in ((at.claude, 500.0), (at.glm, 600.0)):
            async with asyncio.timeout(WAIT_S):
                while not model.requests:  # noqa: ASYNC110 - a list that the double grows
                    await asyncio.sleep(0.01)
            clock.skipped_s = skipped_s
            model.holds.clear()
        structured = (await running)["structuredContent"]
    assert (structured["ran_by"], structured["ending"], structured["fault"]) == ("glm_code", "limit", "wall")


async def test_only_who_may_goes_and_only_for_long(tmp_path: Path) -> None:
    """A model that was named, a caller that says no, a wait that is worth waiting: nothing is asked of the other."""
    async with node(tmp_path / "a", models([[text("done")]]), after_wait_s=3600) as at:
        at.claude.always = SPENT
        with pytest.raises(UpstreamError) as spent:
            await at.call()
        assert (spent.value.info.code, spent.value.info.failure) == ("credential_spent", Failure.WAIT_UNTIL)
        assert "is spent until" in str(at.servers["claude_code"].status().unhealthy)
    async with node(tmp_path / "b", models([[text("done")]]), after_wait_s=300) as at:
        at.claude.always = SPENT
        for said in ({"model": "claude-opus-5"}, {"fallback": False}):
            with pytest.raises(UpstreamError, match="does not fall back to glm_code") as stays:
                await at.call(**said)
            assert stays.value.info.retry_after_s == pytest.approx(1800, abs=60)
        assert at.glm.requests == []
        assert (await at.call())["structuredContent"]["ran_by"] == "glm_code"
        at.glm.always = REFUSED
        with pytest.raises(UpstreamError, match="credential claude_code is spent"):
            await at.call()
        assert "is spent until" in str(at.servers["claude_code"].status().unhealthy)  # both: passed by


async def test_a_run_that_fell_back_goes_on_with_the_model_that_it_has(tmp_path: Path, rig: Rig) -> None:
    """Cut off and gone on elsewhere, though Claude is well there; a node without such a policy does not touch it."""
    store, both = Store(), models()
    async with node(tmp_path / "a", both, projects={"shop": rig.project}, after_wait_s=300) as at:
        at.claude.always = REFUSED
        at.glm.holds.add(1)
        running = asyncio.create_task(at.call("shop", store, **TOOLS))
        await store.until_turn(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    asked = len(both[0].requests)
    async with node(tmp_path / "b", both, projects={"shop": rig.project}) as at:
        with pytest.raises(UpstreamError) as unfit:
            await at.call("shop", store.of_the_next(), **TOOLS)
        assert (unfit.value.info.code, unfit.value.info.failure) == ("capsule_unfit", Failure.WAIT_UNTIL)
    async with node(tmp_path / "c", both, projects={"shop": rig.project}, after_wait_s=300) as at:
        at.glm.holds.clear()
        answer = await at.call("shop", store.of_the_next(), **TOOLS)
        assert len(at.claude.requests) == asked
    structured = answer["structuredContent"]
    assert (structured["ran_by"], structured["resumed"], structured["resumed_from"]) == ("glm_code", 1, ["a1"])
    assert "had fallen back" in structured["fell_back"]
    assert "+first\n" in structured["patch"]


async def test_a_quota_in_the_middle_waits_and_goes_on_from_there(tmp_path: Path, rig: Rig) -> None:
    """Nothing falls back that has begun; what was done is there, once, and is paid once."""
    store, both = Store(), models()
    async with node(tmp_path / "a", both, projects={"shop": rig.project}, after_wait_s=0) as at:
        at.claude.at_step[1] = SPENT
        with pytest.raises(UpstreamError) as waits:
            await at.call("shop", store, **TOOLS)
        info = waits.value.info
        assert (info.code, info.failure) == (SPENT_MIDWAY, Failure.WAIT_UNTIL)
        assert info.retry_after_s == pytest.approx(1800, abs=60)
        assert "the run's session is saved" in at.lines[-1]
        assert at.glm.requests == []
    asked = len(both[0].requests)
    both[0].at_step.clear()
    async with node(tmp_path / "b", both, projects={"shop": rig.project}, after_wait_s=0) as at:
        answer = await at.call("shop", store.of_the_next(), **TOOLS)
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["ran_by"], structured["resumed"]) == (False, "claude_code", 1)
    assert "+first\n+second\n" in structured["patch"]
    conversation = str(at.claude.requests[asked]["messages"])
    assert "plum" in conversation
    assert "You were interrupted" in conversation
    assert structured["cost_usd"] == pytest.approx(3 * CLAUDE_USD)


@pytest.mark.parametrize("why", ["no project", "too large", "store down", "deadline"])
async def test_a_quota_in_the_middle_without_a_capsule_is_an_answer(tmp_path: Path, rig: Rig, why: str) -> None:
    """With what it did until then: nothing may be lost for it, nor done twice."""
    store = Store(limit_bytes=10 if why == "too large" else 10**7, until=0.0 if why == "deadline" else None)
    if why == "store down":
        store = Down()
    async with node(tmp_path / "a", models(), projects={"shop": rig.project}, after_wait_s=0) as at:
        at.claude.at_step[1] = SPENT
        answer = await at.call(None if why == "no project" else "shop", store, **TOOLS)
        assert at.glm.requests == []
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["ending"], structured["fault"]) == (True, "failed", "quota")
    if why != "no project":
        assert "+first\n" in structured["patch"]


class Down(Store):
    """Nobody takes what is saved."""

    async def save(self, number: int, data: bytes) -> None:
        """Not now."""
        raise OrchestratorDown("http://x", "away")
