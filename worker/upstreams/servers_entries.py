"""What a servers file says of each MCP server. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StdioEntry:
    """A server that the node starts and speaks with over its stdin and stdout."""

    name: str
    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole environment of the process, nothing is inherited beside it."""
    cwd: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that came from variables: never logged."""


@dataclass(frozen=True, slots=True)
class HttpEntry:
    """A server that answers on Streamable HTTP."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_private: bool = False
    """Its name may lead to addresses of this machine or of a private network."""


@dataclass(frozen=True, slots=True)
class ModuleEntry:
    """A server that runs inside the node: `package.module:attribute`."""

    name: str
    target: str


ServerEntry = StdioEntry | HttpEntry | ModuleEntry


def texts_of(entry: StdioEntry | HttpEntry) -> tuple[str, ...]:
    """Where a secret may be named in it."""
    return tuple(entry.headers.values()) if isinstance(entry, HttpEntry) else (*entry.env.values(), *entry.args)
