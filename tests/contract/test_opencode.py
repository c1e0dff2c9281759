"""The real opencode, by its configuration in docs/agents.md, in a real sandbox; the model behind it is a double."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.contract.acp_rig import KEY, ONE_ANSWER_USD, ROOT, AcpBench, bench
from tests.contract.claude_binary import OPENCODE, OPENCODE_VERSION
from tests.contract.person import NO, YES, Person
from tests.contract.reach_rig import NAME, tls_server
from worker.testing.chat_double import Step, Trouble, use
from worker.upstreams.errors import UpstreamError
from worker.workspaces.destinations import Destination
from worker.workspaces.names import Project

pytestmark = pytest.mark.live("opencode")

PAGE = (ROOT / "docs/agents.md").read_text()
OURS = ("kind", "command", "version", "environ", "files", "sessions")


@asynccontextmanager
async def opencode(
    folder: Path, script: Sequence[Step], projects: Mapping[str, Project] | None = None, **more: Any
) -> AsyncIterator[AcpBench]:
    """As the page says, but for where its program, key and model are."""
    said = re.search(r'```json\n(\{\n  "opencode": .*?)\n```', PAGE, re.DOTALL)
    assert said is not None
    entry = orjson.loads(said[1])["opencode"]
    entry = {name: entry[name] for name in OURS} | {"read_only": {str(OPENCODE.parent): "/opt/opencode"}}
    entry["environ"] |= more.pop("more_environ", {})
    async with bench(folder, entry | more, script, projects) as made:
        yield made


def _git(*words: str, at: Path) -> str:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(at), "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environ |= {f"GIT_{role}_NAME": "somebody", f"GIT_{role}_EMAIL": "somebody@example.org"}
    ran = subprocess.run(["git", *words], cwd=at, env=environ, check=True, capture_output=True, text=True, timeout=30)
    return ran.stdout.strip()


def _shop(folder: Path, destinations: tuple[Destination, ...] = (), **files: str) -> dict[str, Project]:
    """A project with one commit on main."""
    source, remote = folder / "source", folder / "shop.git"
    source.mkdir()
    _git("init", "-q", "-b", "main", at=source)
    for name, text in {"total.py": "total = 1\n", **files}.items():
        (source / name).write_text(text)
    _git("add", ".", at=source)
    _git("commit", "-qm", "Begin", at=source)
    _git("clone", "-q", "--bare", str(source), str(remote), at=folder)
    return {"shop": Project.of("shop", str(remote), (), destinations)}


def test_the_page_has_the_pinned_version() -> None:
    """What is described is what is tried."""
    assert f'"version": "{OPENCODE_VERSION}"' in PAGE


async def test_it_edits_a_file_and_ends_with_its_answer(tmp_path: Path) -> None:
    """The patch has the edit; every request to the model is counted, and none has the key from inside."""
    edit = use("edit", filePath="/workspace/total.py", oldString="total = 1", newString="total = 2")
    look = use("bash", command="cat /proc/*/environ; ls /", description="look")
    script = [
        Step("I look.", (look,)),
        Step("I mend it.", (use("read", filePath="/workspace/total.py"), edit)),
        Step("Mended."),
    ]
    async with opencode(tmp_path, script, _shop(tmp_path)) as at:
        answer = await at.call("the total is wrong", project="shop", allowed_tools=["bash"])
        assert at.processes() == []
    structured = answer["structuredContent"]
    assert (answer["isError"], answer["content"][0]["text"]) == (False, "Mended.")
    assert (structured["files"], structured["denials"]) == (1, [])
    assert "+total = 2" in structured["patch"]
    assert structured["turns"] == len(at.model.requests) == 4  # one for a title
    assert structured["cost_usd"] == pytest.approx(4 * ONE_ANSWER_USD)
    seen = " ".join(at.model.results())
    assert "MCPFLEET_MODEL_URL" in seen
    assert KEY not in seen
    assert {headers["authorization"] for headers in at.model.headers} == {f"Bearer {KEY}"}
    assert [line for line in at.lines if line.startswith(("bash", "edit"))] == [
        "bash: cat /proc/*/environ; ls /",
        "edit: /workspace/total.py",
    ]


async def test_what_it_may_not_do_is_denied_and_listed(tmp_path: Path) -> None:
    """Its configuration makes it ask, the policy of the call says no."""
    script = [Step("", (use("write", filePath="/workspace/a.txt", content="a"),)), Step("I could not.")]
    async with opencode(tmp_path, script, _shop(tmp_path)) as at:
        answer = await at.call(project="shop", permission_mode="default")
    assert answer["structuredContent"]["denials"] == ["write"]
    assert answer["structuredContent"]["files"] == 0


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    """Neither it nor what it started."""
    script = [Step("", (use("bash", command="sleep 1000", description="wait"),))]
    async with opencode(tmp_path, script) as at:
        running = asyncio.create_task(at.call(allowed_tools=["bash"]))
        await at.until_line("sleep")
        assert at.processes() != []
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert at.processes() == []


async def test_money_ends_a_run(tmp_path: Path) -> None:
    """The way out refuses, it gives up, and what it cost until then is told."""
    script = [Step("", (use("bash", command=f"echo {step}", description="say"),)) for step in range(9)]
    async with opencode(tmp_path, script, cost_usd=3.5 * ONE_ANSWER_USD) as at:
        answer = await at.call(allowed_tools=["bash"])
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["ending"], structured["fault"]) == (True, "limit", "money")
    assert 3.5 * ONE_ANSWER_USD < structured["cost_usd"] < 6 * ONE_ANSWER_USD  # its question for a title is one more


async def test_a_session_goes_on(tmp_path: Path) -> None:
    """The model is sent what was said before, and only the second answer is the answer."""
    async with opencode(tmp_path, [Step("first"), Step("second")]) as at:
        first = await at.call("remember the word plum")
        session = first["structuredContent"]["session_id"]
        second = await at.call("which word?", session=session, invocation="inv-2")
    assert (second["isError"], second["content"][0]["text"]) == (False, "second")
    assert "plum" in str(at.model.requests[-1]["messages"])
    assert second["structuredContent"]["cost_usd"] == pytest.approx(ONE_ANSWER_USD)


async def test_a_refused_key_is_the_nodes_matter(tmp_path: Path) -> None:
    """It says so in its own words, and the fleet in its own."""
    async with opencode(tmp_path, []) as at:
        at.model.always = Trouble(status=401)
        with pytest.raises(UpstreamError) as refused:
            await at.call()
    assert refused.value.info.code == "agent_auth"


async def test_a_person_allows_one_edit_and_denies_a_command(tmp_path: Path) -> None:
    """Each is shown as it will be done, and only what was allowed is; what the caller named asks nobody."""
    person = Person(YES, NO)
    todo = {"content": "mend it", "status": "pending", "priority": "high"}
    script = [
        Step("", (use("todowrite", todos=[todo]),)),
        Step("", (use("edit", filePath="/workspace/total.py", oldString="total = 1", newString="total = 2"),)),
        Step("", (use("bash", command="echo ran > proof", description="a proof"),)),
        Step("Done."),
    ]
    async with opencode(tmp_path, script, _shop(tmp_path)) as at:
        at.approver = person
        answer = await at.call(project="shop", permission_mode="ask", allowed_tools=["todowrite"])
    edit, bash = (orjson.loads(question.arguments_json) for question in person.asked)
    assert (edit["kind"], edit["input"]["newString"]) == ("edit", "total = 2")
    assert "+total = 2" in edit["rawInput"]["diff"]
    assert (bash["kind"], bash["rawInput"]) == ("execute", {"command": "echo ran > proof"})
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["files"], structured["denials"]) == (False, 1, ["bash"])
    assert "proof" not in structured["patch"]
    assert answer["content"][0]["text"] == "Done."


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_project_cannot_allow_itself_anything(tmp_path: Path, is_closed: bool) -> None:
    """Its settings are not read where the page says how; else what it allowed itself ends the run."""
    rules = orjson.dumps({"permission": {"bash": "allow"}, "agent": {"build": {"permission": {"bash": "allow"}}}})
    projects = _shop(tmp_path, **{"opencode.json": rules.decode()})
    script = [Step("", (use("bash", command="echo it-ran", description="a proof"),)), Step("Done.")]
    more = {"OPENCODE_DISABLE_PROJECT_CONFIG": "1"} if is_closed else {}
    person = Person(NO)
    async with opencode(tmp_path, script, projects, more_environ=more) as at:
        at.approver = person
        answer = await at.call(project="shop", permission_mode="ask")
    assert [question.tool for question in person.asked] == (["bash"] if is_closed else [])
    assert answer["structuredContent"]["fault"] == (None if is_closed else "protocol")
    assert is_closed or "used bash without asking" in answer["content"][0]["text"]


async def test_its_commands_reach_what_the_project_lists(tmp_path: Path) -> None:
    """By the variables; its own requests to its model go past the proxy."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "hello.txt").write_text("hello")
    with tls_server(served) as server:
        command = f"curl -sS -k {server.url}/hello.txt; curl -sS https://example.org/"
        script = [Step("", (use("bash", command=command, description="look"),)), Step("Done.")]
        async with opencode(tmp_path, script, _shop(tmp_path, (server.listed,))) as at:
            answer = await at.call(project="shop", allowed_tools=["bash"])
    assert answer["content"][0]["text"] == "Done."
    assert "hello" in at.model.results()[0]
    assert list(answer["structuredContent"]["reached"]) == [f"{NAME}:{server.port}"]
    assert "example.org:443" in answer["structuredContent"]["not_reached"]  # it asks for packages of its own too
