"""The file that says which servers a node runs: what is taken, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.tool import ToolPolicy
from worker.upstreams.servers_file import HttpEntry, ModuleEntry, ServersFile, StdioEntry, load_servers, parse_servers

ENVIRON = {"PATH": "/bin", "HOME": "/root", "TOKEN": "s3cret-token", "MCPFLEET_NODE_JOIN_TOKEN": "join"}


def parse(form: object) -> ServersFile:
    """As from a file called f.json."""
    return parse_servers(json.dumps(form), source="f.json", environ=ENVIRON)


def servers(**entries: object) -> dict[str, object]:
    """The outer form."""
    return {"mcpServers": entries}


def test_both_transports_and_modules_are_read() -> None:
    """The form that MCP users have is taken as it is; modules stand in our own key."""
    form = {
        "mcpServers": {
            "git": {"command": "mcp-server-git", "args": ["-r", "."], "env": {"A": "b"}, "cwd": "/srv"},
            "web": {"type": "http", "url": "http://127.0.0.1:1/mcp", "headers": {"X": "y"}},
        },
        "mcpfleet": {"modules": {"mine": "package.module:server"}},
    }
    git, web, mine = parse(form).servers
    assert git == StdioEntry(
        "git", "mcp-server-git", ("-r", "."), {"PATH": "/bin", "HOME": "/root", "A": "b"}, "/srv", ()
    )
    assert web == HttpEntry("web", "http://127.0.0.1:1/mcp", {"X": "y"}, ())
    assert mine == ModuleEntry("mine", "package.module:server")


def test_a_server_inherits_no_secret_of_the_node() -> None:
    """The node's own variables do not reach the servers it runs."""
    (entry,) = parse(servers(git={"command": "x"})).servers
    assert isinstance(entry, StdioEntry)
    assert "MCPFLEET_NODE_JOIN_TOKEN" not in entry.env


def test_variables_are_filled_in_and_never_shown() -> None:
    """`${VAR}` and `${VAR:-default}` work in every text, and what they held stays out of what is printed."""
    form = servers(
        git={"command": "x", "args": ["--at=${WHERE:-here}"], "env": {"T": "Bearer ${TOKEN}"}},
        web={"url": "https://h/${TOKEN}", "headers": {"Authorization": "Bearer ${TOKEN}"}},
    )
    git, web = parse(form).servers
    assert isinstance(git, StdioEntry)
    assert isinstance(web, HttpEntry)
    assert (git.args, git.env["T"], git.secrets) == (("--at=here",), "Bearer s3cret-token", ("s3cret-token",))
    assert web.headers["Authorization"] == "Bearer s3cret-token"
    assert "s3cret" not in repr(git) + repr(web)


REFUSED = [
    pytest.param(servers(git={}), "f.json: mcpServers: git: has neither command nor url", id="nothing to run"),
    pytest.param(servers(git={"command": "x", "url": "http://h"}), "git: has both command and url", id="both"),
    pytest.param(servers(git={"command": "x", "arg": []}), "git: unknown key 'arg', did you mean 'args'", id="near"),
    pytest.param(servers(git={"url": "http://h", "env": {}}), "git: unknown key 'env'", id="key of the other kind"),
    pytest.param(servers(git={"command": 1}), "git: command: must be a non-empty string", id="command is a number"),
    pytest.param(servers(git={"command": ""}), "git: command: must be a non-empty string", id="empty command"),
    pytest.param(servers(git={"command": "x", "args": "y"}), "git: args: must be a list of strings", id="args"),
    pytest.param(servers(git={"command": "x", "env": {"A": 1}}), "git: env: A: must be a string", id="env value"),
    pytest.param(servers(git={"command": "x", "env": []}), "git: env: must be an object, not a list", id="env"),
    pytest.param(servers(git={"command": "x", "env": {"A": "${NOPE}"}}), "variable NOPE is not set", id="no variable"),
    pytest.param(servers(git={"url": "ftp://h"}), "git: url: must begin with http", id="scheme"),
    pytest.param(servers(git={"url": "http://h", "type": "sse"}), "HTTP+SSE transport is not supported", id="sse"),
    pytest.param(servers(git={"command": "x", "type": "http"}), "type: 'http' does not go with command", id="type"),
    pytest.param(servers(**{"a.b": {"command": "x"}}), "server name 'a.b' is not allowed", id="dot in the name"),
    pytest.param(servers(**{"x" * 64: {"command": "x"}}), "is not allowed: use 1 to 63", id="long name"),
    pytest.param(servers(probe={"command": "x"}), "'probe' is built in", id="reserved"),
    pytest.param({"mcpserver": {}}, "f.json: unknown key 'mcpserver', did you mean 'mcpServers'", id="outer key"),
    pytest.param([], "f.json: must be an object, not a list", id="not an object"),
    pytest.param({"mcpfleet": {"modules": {"m": "nope"}}}, "not of the form package.module:attribute", id="module"),
    pytest.param(
        {"mcpServers": {"m": {"command": "x"}}, "mcpfleet": {"modules": {"m": "a:b"}}}, "names are unique", id="twice"
    ),
    pytest.param({"mcpfleet": {"tools": {"gti.log": {}}}}, "no server 'gti' in this file", id="policy without server"),
    pytest.param({"mcpfleet": {"tools": {"probe": {}}}}, "must be server.tool", id="policy without tool"),
    pytest.param({"mcpfleet": {"tools": {"probe.*": {"timeout": 1}}}}, "timeout: Extra inputs", id="policy key"),
    pytest.param({"mcpfleet": {"tools": {"probe.*": {"timeout_s": -1}}}}, "timeout_s: Input should", id="policy value"),
]


@pytest.mark.parametrize(("form", "words"), REFUSED)
def test_what_is_wrong_is_named(form: object, words: str) -> None:
    """Each mistake stops the start with its file, server and field."""
    with pytest.raises(SettingsError) as caught:
        parse(form)
    assert caught.value.message.startswith("f.json")
    assert words in caught.value.message


def test_a_key_that_stands_twice_is_refused() -> None:
    """JSON lets the last one win, and the operator would look for hours."""
    with pytest.raises(SettingsError, match="'git' stands twice"):
        parse_servers('{"mcpServers": {"git": {"command": "a"}, "git": {"command": "b"}}}', source="f", environ={})


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"mcpServers": {"a": {"command": "x\\u0000"}}}', ""])
def test_broken_text_is_a_settings_error(text: str) -> None:
    """Whatever stands in the file, the start ends with a sentence and not with a traceback."""
    with pytest.raises(SettingsError):
        parse_servers(text, source="f", environ={})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, binary or huge: the path is in the message."""
    binary, huge = tmp_path / "binary", tmp_path / "huge"
    binary.write_bytes(b"\xff\xfe")
    huge.write_bytes(b" " * 1_000_001)
    for path in (tmp_path / "missing", binary, huge, tmp_path):
        with pytest.raises(SettingsError, match=str(path)):
            load_servers(path, {})


def test_the_exact_policy_wins_then_the_longest_glob() -> None:
    """An operator can declare a rule and its exceptions."""
    form = {
        "mcpServers": {"git": {"command": "x"}},
        "mcpfleet": {
            "tools": {
                "*.*": {"timeout_s": 1},
                "git.*": {"timeout_s": 2},
                "git.git_l*": {"timeout_s": 3},
                "git.git_log": {"is_safe": True},
            }
        },
    }
    file = parse(form)
    limits = [file.policy_of(name).timeout_s for name in ("git.git_log", "git.git_ls", "git.x", "probe.echo", "nodot")]
    assert limits == [None, 3, 2, 1, None]
    assert file.policy_of("git.git_log") == ToolPolicy(is_safe=True)
