"""The file that says which MCP servers a node runs: the `mcpServers` form, plus our sibling key.

    {"mcpServers": {"git": {"command": "mcp-server-git", "args": [], "env": {"TOKEN": "${TOKEN}"}, "cwd": "/srv"},
                    "web": {"url": "http://127.0.0.1:9000/mcp", "headers": {"Authorization": "Bearer ${WEB}"}}},
     "mcpfleet":   {"tools":   {"git.git_log": {"is_safe": true}, "web.*": {"timeout_s": 60}},
                    "modules": {"mine": "package.module:server"}}}

`secret_ref:OWNER:NAME` in env and headers is filled in when the server starts (`filling.py`).
`${VAR}` and `${VAR:-default}` are taken from the environment that is passed in. `modules` names MCP
servers that run inside the node: an `mcp` `Server` or `MCPServer`, or a callable that makes one.

Owns form and limits of the file; refuses to start anything and to guess at what it does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import SettingsError, near
from tasks.secretref import NotARef
from tasks.tool import ToolPolicy
from worker.sidecars.sidecars_file import SidecarEntry, key_ref, parse_projects, parse_sidecars
from worker.upstreams.egress import allowed_by
from worker.upstreams.secret_words import refs_in, why_not_here
from worker.upstreams.servers_entries import HttpEntry, ModuleEntry, ServerEntry, StdioEntry, texts_of
from worker.workspaces.names import Project

SERVER_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
"""A server's name is the first part of `server.tool`, and a capability: no dots, 63 characters."""
MODULE_PATTERN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
RESERVED = frozenset({"probe"})
FILE_LIMIT_BYTES = 1_000_000
SECRET_CHARS = 6
"""A substituted value at least this long is struck out of the server's logs; shorter ones are words."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")
_STDIO_KEYS = frozenset({"type", "command", "args", "env", "cwd"})
_HTTP_KEYS = frozenset({"type", "url", "headers", "private"})
_TYPES = {
    "stdio": "command",
    "http": "url",
    "streamable-http": "url",
    "streamableHttp": "url",
    "streamable_http": "url",
}


@dataclass(frozen=True, slots=True)
class ServersFile:
    """Which servers, and what the operator declares about their tools."""

    servers: tuple[ServerEntry, ...] = ()
    policies: Mapping[str, ToolPolicy] = field(default_factory=dict)
    """By exact `server.tool`, or by glob."""
    sidecars: Mapping[str, SidecarEntry] = field(default_factory=dict)
    """Agent runtimes, by name."""
    projects: Mapping[str, Project] = field(default_factory=dict)
    """Whose files agents work in, by name."""

    def names_secrets(self) -> bool:
        """Whether any server, or any agent, is to be given one."""
        texts = [text for one in self.servers if not isinstance(one, ModuleEntry) for text in texts_of(one)]
        return any(map(refs_in, texts)) or any(key_ref(one.key_file) for one in self.sidecars.values())

    def policy_of(self, tool: str) -> ToolPolicy:
        """The exact name wins, then the longest glob that matches."""
        exact = self.policies.get(tool)
        if exact is not None:
            return exact
        matching = [pattern for pattern in self.policies if fnmatchcase(tool, pattern)]
        return self.policies[max(matching, key=len)] if matching else ToolPolicy()


def load_servers(path: Path, environ: Mapping[str, str]) -> ServersFile:
    """Read and check the file.

    Raises:
        SettingsError: it cannot be read, or anything in it is wrong: file, server and field are named.
    """
    try:
        if path.stat().st_size > FILE_LIMIT_BYTES:
            raise SettingsError(f"{path}: larger than {FILE_LIMIT_BYTES} bytes; this is not a servers file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); check --servers") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_servers(text, source=str(path), environ=environ)


def parse_servers(text: str, *, source: str, environ: Mapping[str, str]) -> ServersFile:
    """Check the text of a servers file; `source` stands in messages.

    Raises:
        SettingsError: as `load_servers`.
    """
    form = _Node(source, _json(text, source))
    form.only({"mcpServers", "mcpfleet"})
    ours = form.child("mcpfleet")
    ours.only({"tools", "modules", "sidecars", "projects"})
    listed = form.child("mcpServers")
    servers: list[ServerEntry] = [_server(name, listed.child(name), environ) for name in listed.fields()]
    modules = ours.child("modules")
    for name in modules.fields():
        if name in listed.fields():
            raise modules.wrong(name, "is a server in mcpServers already; names are unique")
        servers.append(_module(name, modules))
    agents = _sidecars(ours.child("sidecars"), {server.name for server in servers})
    names = [*(server.name for server in servers), *agents]
    policies = ours.child("tools")
    declared = {key: _policy(key, policies, names) for key in policies.fields()}
    listed = ours.child("projects")
    projects = parse_projects(listed.fields(), listed.where, {server.name for server in servers})
    return ServersFile(tuple(servers), declared, agents, projects)


def _sidecars(listed: _Node, taken: set[str]) -> dict[str, SidecarEntry]:
    for name in listed.fields():
        _check_name(name, listed)
        if name in taken:
            raise listed.wrong(name, "is an MCP server already; names are unique")
    return parse_sidecars(listed.fields(), listed.where)


def _json(text: str, source: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        form: dict[str, object] = {}
        for key, value in pairs:
            if key in form:
                raise SettingsError(f"{source}: the key {key!r} stands twice in one object; remove one")
            form[key] = value
        return form

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{source}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise SettingsError(f"{source}: nested too deeply") from error


@dataclass(frozen=True, slots=True)
class _Node:
    """One JSON object of the file, and where it stands."""

    where: str
    value: object

    def __post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise SettingsError(f"{self.where}: must be an object, not {_kind(self.value)}")

    def fields(self) -> dict[str, object]:
        assert isinstance(self.value, dict)
        return self.value

    def only(self, allowed: set[str] | frozenset[str]) -> None:
        for key in self.fields():
            if key not in allowed:
                hint = near(key, sorted(allowed)) or f"; allowed are {', '.join(sorted(allowed))}"
                raise SettingsError(f"{self.where}: unknown key {key!r}{hint}")

    def child(self, key: str) -> _Node:
        return _Node(f"{self.where}: {key}", self.fields().get(key, {}))

    def wrong(self, key: str, why: str) -> SettingsError:
        return SettingsError(f"{self.where}: {key}: {why}")

    def text(self, key: str) -> str:
        value = self.fields().get(key)
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.wrong(key, f"must be a non-empty string, not {_kind(value)}")
        return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


class _Expander:
    """Replaces `${VAR}`, and remembers the values as secrets."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.secrets: list[str] = []

    def text(self, value: str, node: _Node, key: str, *, can_be_file: bool = False) -> str:
        """With its variables; refuses secrets: `mapping` has those."""
        text = self._expanded(value, node, key)
        if (why := why_not_here(text, can_be_file=can_be_file)) is not None:
            raise node.wrong(key, why)
        return text

    def _expanded(self, value: str, node: _Node, key: str) -> str:
        def replace(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            found = self._environ.get(name)
            if found is None and default is None:
                raise node.wrong(key, f"the environment variable {name} is not set; set it, or write ${{{name}:-}}")
            if found is not None and len(found) >= SECRET_CHARS:
                self.secrets.append(found)
            return found if found is not None else default or ""

        return _VARIABLE.sub(replace, value)

    def field(self, node: _Node, key: str) -> str:
        return self.text(node.text(key), node, key)

    def mapping(self, node: _Node, key: str) -> dict[str, str]:
        inner = node.child(key)
        expanded = {}
        for name, value in inner.fields().items():
            if not isinstance(value, str) or "\0" in value:
                raise inner.wrong(name, f"must be a string, not {_kind(value)}")
            expanded[name] = self._expanded(value, inner, name)
            try:
                refs_in(expanded[name])
            except NotARef as error:
                raise inner.wrong(name, str(error)) from None
        return expanded

    def items(self, node: _Node, key: str) -> tuple[str, ...]:
        value = node.fields().get(key, [])
        if not isinstance(value, list) or any(not isinstance(item, str) or "\0" in item for item in value):
            raise node.wrong(key, "must be a list of strings")
        return tuple(self.text(item, node, f"{key}[{index}]", can_be_file=True) for index, item in enumerate(value))


def _server(name: str, node: _Node, environ: Mapping[str, str]) -> ServerEntry:
    _check_name(name, node)
    keys = node.fields()
    if ("command" in keys) == ("url" in keys):
        both = "both command and url" if "command" in keys else "neither command nor url"
        raise SettingsError(f"{node.where}: has {both}; give one: command for stdio, url for Streamable HTTP")
    wanted = "command" if "command" in keys else "url"
    node.only(_STDIO_KEYS if wanted == "command" else _HTTP_KEYS)
    kind = keys.get("type", "stdio" if wanted == "command" else "http")
    if kind == "sse":
        raise node.wrong(
            "type", "the old HTTP+SSE transport is not supported; use the server's Streamable HTTP address"
        )
    if not isinstance(kind, str) or _TYPES.get(kind) != wanted:
        raise node.wrong("type", f"{kind!r} does not go with {wanted}; leave it out")
    expand = _Expander(environ)
    return _stdio(name, node, expand, environ) if wanted == "command" else _http(name, node, expand)


def _stdio(name: str, node: _Node, expand: _Expander, environ: Mapping[str, str]) -> StdioEntry:
    from mcp.client.stdio import DEFAULT_INHERITED_ENV_VARS

    command, args = expand.field(node, "command"), expand.items(node, "args")
    inherited = {key: environ[key] for key in DEFAULT_INHERITED_ENV_VARS if key in environ}
    env = inherited | expand.mapping(node, "env")
    cwd = expand.field(node, "cwd") if node.fields().get("cwd") is not None else None
    return StdioEntry(name, command, args, env, cwd, tuple(expand.secrets))


def _http(name: str, node: _Node, expand: _Expander) -> HttpEntry:
    url = expand.field(node, "url")
    if not url.startswith(("http://", "https://")):
        raise node.wrong("url", "must begin with http:// or https://")
    is_private = node.fields().get("private", False)
    if not isinstance(is_private, bool):
        raise node.wrong("private", "must be true or false")
    try:
        allowed_by(url, is_private=is_private)
    except ValueError as error:
        raise node.wrong("url", f"leads nowhere that a node goes: {error}") from error
    return HttpEntry(name, url, expand.mapping(node, "headers"), tuple(expand.secrets), is_private)


def _module(name: str, node: _Node) -> ModuleEntry:
    _check_name(name, node)
    target = node.text(name)
    if not MODULE_PATTERN.fullmatch(target):
        raise node.wrong(name, f"{target!r} is not of the form package.module:attribute")
    return ModuleEntry(name, target)


def _check_name(name: str, node: _Node) -> None:
    if not SERVER_PATTERN.fullmatch(name):
        form = "use 1 to 63 of A-Z, a-z, 0-9, - and _, beginning with a letter or digit"
        raise SettingsError(f"{node.where}: server name {name[:80]!r} is not allowed: {form}")
    if name in RESERVED:
        raise SettingsError(f"{node.where}: the server name {name!r} is built in; choose another")


def _policy(key: str, node: _Node, names: list[str]) -> ToolPolicy:
    server, dot, tool = key.partition(".")
    if not dot or not tool:
        raise node.wrong(key, "must be server.tool, or a glob such as server.*")
    known = [*names, *RESERVED]
    if not any(fnmatchcase(name, server) for name in known):
        raise node.wrong(key, f"no server {server!r} in this file{near(server, known)}")
    value = node.child(key).fields()
    try:
        return ToolPolicy.model_validate(value, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_name = ".".join(str(part) for part in first["loc"])
        raise node.wrong(key, f"{field_name}: {first['msg']}") from error
