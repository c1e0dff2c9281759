"""The real Claude Code, by the real SDK, in a real sandbox; the model behind it is a double of the API."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tasks.outcome import Failure
from tests.contract.agents import KEY, bench
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS, Trouble, text, use
from worker.upstreams.errors import UpstreamError
from worker.workspaces.names import Project

pytestmark = pytest.mark.live("claude")

COST_USD = (INPUT_TOKENS * 3.0 + OUTPUT_TOKENS * 15.0) / 1_000_000
"""Of one answer."""
LOOKS = "id -u; ls /; cat /etc/shadow; cat /etc/ssl/private/*; cat /proc/*/environ /proc/*/cmdline"
WRITES = [
    [text("I look."), use("Bash", command=LOOKS)],
    [use("Write", file_path="/workspace/hello.txt", content="hello\n")],
    [text("It is written.")],
]


async def test_a_run_works_in_a_world_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not root, no secrets of the machine, no key; and what it did, said and cost comes back."""
    monkeypatch.setenv("A_SECRET_OF_THE_NODE", "not-to-be-seen")
    async with bench(tmp_path, WRITES) as at:
        answer = await at.call(allowed_tools=["Bash", "Write"])
    assert (answer["isError"], answer["content"][0]["text"]) == (False, "It is written.")
    structured = answer["structuredContent"]
    assert (structured["ending"], structured["turns"], structured["denials"]) == ("succeeded", 3, [])
    assert structured["usage"] == {
        "input": 3000,
        "output": 150,
        "cache_read": 0,
        "cache_write": 0,
        "is_estimated": False,
    }
    assert structured["cost_usd"] == pytest.approx(3 * COST_USD)
    seen = " ".join(at.model.results())
    assert "1000" in seen
    assert "No such file" in seen  # /etc/shadow
    assert "ANTHROPIC_BASE_URL" in seen
    assert KEY not in seen
    assert "not-to-be-seen" not in seen
    assert "File created" in seen
    assert {headers["x-api-key"] for headers in at.model.headers} == {KEY}
    assert [line for line in at.lines if "Bash" in line or "written" in line] == [
        f"Bash: {LOOKS}",
        "It is written.",
    ]
    assert at.sandboxes() == []


async def test_a_session_goes_on_and_costs_only_what_is_new(tmp_path: Path) -> None:
    """The second run is sent the first one's conversation, and says its own cost."""
    async with bench(tmp_path, [[text("first")], [text("second")]]) as at:
        first = await at.call("remember the word plum")
        session = first["structuredContent"]["session_id"]
        second = await at.call("which word?", session=session, invocation="inv-2")
        unknown = await at.call("?", session="00000000-0000-0000-0000-000000000000", invocation="inv-3")
    assert second["content"][0]["text"] == "second"
    assert "plum" in str(at.model.requests[-1]["messages"])
    assert second["structuredContent"]["cost_usd"] == pytest.approx(COST_USD)
    assert (unknown["isError"], unknown["structuredContent"]["fault"]) == (True, "session")


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    """Neither the agent nor what it started."""
    async with bench(tmp_path, [[use("Bash", command="sleep 1000")]]) as at:
        running = asyncio.create_task(at.call(allowed_tools=["Bash"]))
        async with asyncio.timeout(60):
            while not any("sleep" in line for line in at.lines):  # noqa: ASYNC110 - lines come by callback
                await asyncio.sleep(0.01)
        assert at.sandboxes() != []
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert at.sandboxes() == []


async def test_money_ends_a_run(tmp_path: Path) -> None:
    """What it did until then is there, and what it cost."""
    script = [[use("Bash", command=f"echo {step}")] for step in range(9)]
    async with bench(tmp_path, script, cost_usd=2.5 * COST_USD) as at:
        answer = await at.call(allowed_tools=["Bash"])
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["ending"], structured["fault"]) == (True, "limit", "money")
    assert structured["cost_usd"] == pytest.approx(3 * COST_USD)


async def test_turns_end_a_run(tmp_path: Path) -> None:
    """As the caller said."""
    script = [[use("Bash", command=f"echo {step}")] for step in range(9)]
    async with bench(tmp_path, script) as at:
        answer = await at.call(allowed_tools=["Bash"], max_turns=2)
    assert (answer["structuredContent"]["ending"], answer["structuredContent"]["fault"]) == ("limit", "turns")


async def test_a_model_that_says_nothing_ends_by_the_clock(tmp_path: Path) -> None:
    """And leaves nothing."""
    async with bench(tmp_path, [], wall_s=8.0) as at:
        at.model.always = Trouble(hangs=True)
        answer = await at.call()
        assert at.sandboxes() == []
    assert (answer["structuredContent"]["ending"], answer["structuredContent"]["fault"]) == ("limit", "wall")


async def test_a_refused_key_marks_the_node_until_it_is_replaced(tmp_path: Path) -> None:
    """The call may go elsewhere at once; the node is passed by; a new key in the file makes it whole."""
    async with bench(tmp_path, [[text("well again")]]) as at:
        at.model.always = Trouble(status=401)
        with pytest.raises(UpstreamError) as refused:
            await at.call()
        assert (refused.value.info.code, refused.value.info.failure) == ("agent_auth", Failure.NOT_STARTED)
        assert "refused" in str(at.server.status().unhealthy)
        with pytest.raises(UpstreamError, match="put a valid one in its place"):
            await at.call(invocation="inv-2")
        at.model.always = None
        (tmp_path / "key").write_text("another-one")
        assert at.server.status().unhealthy is None
        assert (await at.call(invocation="inv-3"))["content"][0]["text"] == "well again"


async def test_a_spent_quota_waits_for_its_reset(tmp_path: Path) -> None:
    """It costs no try, and the time is the provider's."""
    async with bench(tmp_path, []) as at:
        at.model.always = Trouble(status=429, headers={"retry-after": "1800", "x-should-retry": "false"})
        with pytest.raises(UpstreamError) as spent:
            await at.call()
        info = spent.value.info
        assert (info.code, info.failure) == ("credential_spent", Failure.WAIT_UNTIL)
        assert info.retry_after_s == pytest.approx(1800, abs=60)
        asked = len(at.model.requests)
        with pytest.raises(UpstreamError, match="is spent for another"):
            await at.call(invocation="inv-2")
        assert len(at.model.requests) == asked


async def test_another_version_is_not_offered(tmp_path: Path) -> None:
    """And the node says which there is and which is wanted."""
    async with bench(tmp_path, [], version="1.0.0") as at:
        assert at.server.tools() == ()
        assert "wanted is 1.0.0" in str(at.server.status().error)


def _git(*words: str, at: Path) -> str:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(at), "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{role}_NAME": "somebody", f"GIT_{role}_EMAIL": "somebody@example.org"}
    ran = subprocess.run(["git", *words], cwd=at, env=environ, check=True, capture_output=True, text=True, timeout=30)
    return ran.stdout.strip()


def _repository(folder: Path) -> Path:
    """With one commit on main."""
    source, remote = folder / "source", folder / "shop.git"
    source.mkdir()
    _git("init", "-q", "-b", "main", at=source)
    (source / "total.py").write_text("total = 1\n")
    _git("add", ".", at=source)
    _git("commit", "-qm", "Begin", at=source)
    _git("clone", "-q", "--bare", str(source), str(remote), at=folder)
    return remote


async def test_a_project_comes_back_as_a_patch_and_a_branch(tmp_path: Path) -> None:
    """The agent edits a clone of its own; the repository has the work as `agent/<run>`, and main as it was."""
    source, remote = tmp_path / "source", tmp_path / "shop.git"
    source.mkdir()
    _git("init", "-q", "-b", "main", at=source)
    (source / "total.py").write_text("total = 1\n")
    _git("add", ".", at=source)
    _git("commit", "-qm", "Begin", at=source)
    _git("clone", "-q", "--bare", str(source), str(remote), at=tmp_path)
    script = [
        [use("Bash", command="git log --oneline; sed -i s/1/2/ total.py; echo new > added.txt")],
        [text("Mended.")],
    ]
    async with bench(tmp_path, script, {"shop": Project.of("shop", str(remote))}) as at:
        answer = await at.call(allowed_tools=["Bash"], project="shop", push=True)
        with pytest.raises(UpstreamError, match="knows no project 'other'"):
            await at.call(project="other", invocation="inv-2")
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["files"]) == (False, 2)
    assert "+total = 2" in structured["patch"]
    assert "Begin" in " ".join(at.model.results())
    branch = structured["branch"]
    assert (branch, _git("show", f"{branch}:added.txt", at=remote)) == ("agent/claude_code-inv-1", "new")
    assert _git("show", "main:total.py", at=remote) == "total = 1"
    _git("checkout", "-q", structured["base"], at=source)
    (tmp_path / "work.patch").write_text(structured["patch"])
    _git("apply", str(tmp_path / "work.patch"), at=source)
    assert (source / "total.py").read_text() == "total = 2\n"


async def test_what_a_run_did_is_there_though_its_branch_could_not_be_pushed(tmp_path: Path) -> None:
    """Nothing is run again for it, and nothing that was paid is lost."""
    remote = _repository(tmp_path)
    script = [[use("Bash", command="echo 2 > total.py")], [text("Mended.")]]
    async with bench(tmp_path, script, {"shop": Project.of("shop", str(remote))}) as at:
        (remote / "hooks").mkdir(exist_ok=True)
        hook = remote / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
        answer = await at.call(allowed_tools=["Bash"], project="shop", push=True)
    structured = answer["structuredContent"]
    assert (answer["content"][0]["text"], structured["push_error"]["code"]) == ("Mended.", "push_refused")
    assert "+2" in structured["patch"]


async def test_a_session_of_one_project_is_not_anothers(tmp_path: Path) -> None:
    """Nor does a run's own word put it among those of another session."""
    remote = _repository(tmp_path)
    async with bench(tmp_path, [[text("first")], [text("second")]], {"shop": Project.of("shop", str(remote))}) as at:
        assert at.server.status().mirrors == ()
        changes = len(at.changes)
        first = await at.call(project="shop")
        assert (at.server.status().mirrors, len(at.changes) > changes) == (("shop",), True)  # the fleet is told
        session = first["structuredContent"]["session_id"]
        other = await at.call(session=session, invocation="inv-2")
        same = await at.call(session=session, invocation="inv-3", project="shop")
    assert other["structuredContent"]["fault"] == "session"
    assert same["content"][0]["text"] == "second"
