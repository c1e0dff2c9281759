"""What a project lends to its agents: the node's own MCP servers, called by the real Claude Code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tests.conftest import tool
from tests.contract.agents import bench
from tests.contract.test_claude_code import _repository
from worker.sidecars.lent import lender
from worker.testing.messages_double import text, use
from worker.testing.upstreams_kit import running
from worker.upstreams.servers_file import parse_servers
from worker.workspaces.names import Project

LENT = "mcp__time__get_current_time"
Form = dict[str, dict[str, object]]
SCRIPT = [
    [use("Write", file_path="/workspace/when.txt", content="soon\n")],
    [use(LENT, timezone="Asia/Tokyo")],
    [text("It is late in Tokyo.")],
]


@pytest.mark.live("claude", "servers")
async def test_a_run_edits_a_file_and_calls_a_server_of_the_node(tmp_path: Path) -> None:
    """A third party's server that the sandbox has not: the node runs it, for the projects that list it alone."""
    remote = _repository(tmp_path)
    projects = {
        "shop": Project.of("shop", str(remote), ("time",)),
        "other": Project.of("other", str(remote)),
    }
    form: Form = {"mcpServers": {"time": {"command": tool("mcp-server-time"), "args": []}}}
    async with running(form) as kit, bench(tmp_path, SCRIPT, projects, lender(kit.upstreams, "1")) as at:
        answer = await at.call(allowed_tools=["Write", "mcp__time"], project="shop")
        told = at.model.results()
        await at.call(allowed_tools=["Write", "mcp__time"], project="other", invocation="inv-2")
        others = at.model.results()
    structured = answer["structuredContent"]
    assert (answer["content"][0]["text"], structured["files"], structured["denials"]) == ("It is late in Tokyo.", 1, [])
    assert "Asia/Tokyo" in told[-1]
    assert "No such tool" in others[-1]


@pytest.mark.live("claude", "servers")
async def test_a_server_that_is_lent_still_needs_the_calls_permission(tmp_path: Path) -> None:
    """The operator says what a project has; what one run may use of it, its caller says."""
    projects = {"shop": Project.of("shop", str(_repository(tmp_path)), ("time",))}
    form: Form = {"mcpServers": {"time": {"command": tool("mcp-server-time"), "args": []}}}
    async with running(form) as kit, bench(tmp_path, SCRIPT, projects, lender(kit.upstreams, "1")) as at:
        answer = await at.call(allowed_tools=["Write"], project="shop")
    assert answer["structuredContent"]["denials"] == [LENT]


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ({"git": "/srv/shop.git", "servers": ["tiem"]}, "'tiem' is no MCP server of this node; known are time"),
        ({"git": "/srv/shop.git", "servers": ["glm"]}, "'glm' is no MCP server of this node"),
        ({"git": "/srv/shop.git", "servers": "time"}, "servers: Input should be a valid tuple"),
        ({"servers": ["time"]}, "git: Field required"),
        ({"git": "/srv/shop.git", "branch": "x"}, "branch: Extra inputs are not permitted"),
        ("/srv/shop.git", "shop"),
    ],
)
def test_what_is_wrong_with_a_project_is_named(project: object, said: str) -> None:
    """Agents are not lent: a run that starts runs is the fleet's to count."""
    sidecars = {"glm": {"kind": "openai_chat", "url": "http://127.0.0.1:1/v1", "model": "glm-5"}}
    form = {
        "mcpServers": {"time": {"command": "mcp-server-time"}},
        "mcpfleet": {"sidecars": sidecars, "projects": {"shop": project}},
    }
    with pytest.raises(SettingsError, match="shop") as refused:
        parse_servers(json.dumps(form), source="here", environ={})
    assert said in refused.value.message
