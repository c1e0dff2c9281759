"""Recognizes the ordinary tools/call: the one request worth a path of its own.

Ordinary means that nothing about it needs the SDK's machinery: one tools/call, well-formed in every
part that the SDK checks, without progress, log messages, answers to questions, parameter headers or
a session. What is not certainly ordinary is left to the SDK, which then judges it: so this module
never refuses anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    ClientCapabilities,
    Implementation,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from orchestrator.front.mcptasks import EXTENSION

_MODERN = frozenset(version.encode() for version in MODERN_PROTOCOL_VERSIONS)
_HANDSHAKE = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)
_PARAMS = frozenset({"name", "arguments", "_meta"})
_ENVELOPE = frozenset({"jsonrpc", "id", "method", "params"})
_ODD_META = frozenset({"progressToken", LOG_LEVEL_META_KEY})
_KNOWN_CLIENTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Client:
    """What a client of the 2026 era says of itself in every request."""

    capabilities: ClientCapabilities
    declares_tasks: bool


@dataclass(frozen=True, slots=True)
class Ordinary:
    """An ordinary tools/call. `client` is None in the handshake era."""

    id: str | int
    name: str
    params: Mapping[str, Any]
    client: Client | None


class Recognizer:
    """Recognizes; remembers the clients it has checked, for they say the same every time.

    `with_handshake`: also calls of that era, where the SDK keeps no sessions for it.
    """

    def __init__(self, *, with_handshake: bool) -> None:
        self._with_handshake = with_handshake
        self._clients: dict[bytes, Client] = {}

    def may_be(self, headers: Mapping[bytes, bytes]) -> bool:
        """By the headers alone: whether the body is worth a look."""
        accept = headers.get(b"accept", b"")
        if b"application/json" not in accept or b"text/event-stream" not in accept:
            return False
        if not headers.get(b"content-type", b"").startswith(b"application/json") or b"origin" in headers:
            return False
        version = headers.get(b"mcp-protocol-version")
        if version in _MODERN:
            return headers.get(b"mcp-method") == b"tools/call"
        return self._with_handshake and version in _HANDSHAKE

    def read(self, headers: Mapping[bytes, bytes], form: Any) -> Ordinary | None:  # noqa: ANN401 - JSON is anything
        """The call, or None where the SDK must look."""
        if not isinstance(form, dict) or form.keys() != _ENVELOPE or form["method"] != "tools/call":
            return None
        params, request_id = form["params"], form["id"]
        if form["jsonrpc"] != "2.0" or type(request_id) not in {str, int} or not isinstance(params, dict):
            return None
        name, meta = params.get("name"), params.get("_meta", {})
        if not isinstance(name, str) or not isinstance(meta, dict) or not isinstance(params.get("arguments", {}), dict):
            return None
        if not params.keys() <= _PARAMS or not _ODD_META.isdisjoint(meta):
            return None
        version = headers[b"mcp-protocol-version"]
        if version not in _MODERN:
            return None if PROTOCOL_VERSION_META_KEY in meta else Ordinary(request_id, name, params, None)
        if meta.get(PROTOCOL_VERSION_META_KEY) != version.decode() or headers.get(b"mcp-name") != name.encode():
            return None
        client = self._client(meta)
        return None if client is None else Ordinary(request_id, name, params, client)

    def _client(self, meta: Mapping[str, Any]) -> Client | None:
        said = {key: meta.get(key) for key in (CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY)}
        key = orjson.dumps(said)
        known = self._clients.get(key)
        if known is None:
            known = _check(said)
            if known is not None and len(self._clients) < _KNOWN_CLIENTS_MAX:
                self._clients[key] = known
        return known


def _check(said: Mapping[str, Any]) -> Client | None:
    try:
        capabilities = ClientCapabilities.model_validate(said[CLIENT_CAPABILITIES_META_KEY], by_name=False)
        if said[CLIENT_INFO_META_KEY] is not None:
            Implementation.model_validate(said[CLIENT_INFO_META_KEY], by_name=False)
    except ValidationError:
        return None
    return Client(capabilities, EXTENSION in (capabilities.extensions or {}))
