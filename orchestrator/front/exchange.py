"""One POST to the MCP endpoint.

Reads the body, refuses what is not one clear JSON text, and answers the ordinary tools/call itself.
All else goes on to the SDK, with the body replayed.

The SDK spends several hundred µs of CPU on a call (three validations, a task group, two streams);
this spends a fraction of it and passes the tool's result on without reading it twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS, x_mcp_header_map
from mcp_types import PARSE_ERROR, SERVER_INFO_META_KEY
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.front.ask import is_input_required, missing_capabilities, refuse_missing
from orchestrator.front.calls import Asked, Refused, RequestKey
from orchestrator.front.faults import tool_error
from orchestrator.front.frames import refusal_of
from orchestrator.front.mcptasks import requires_task
from orchestrator.front.meta import PROJECT_HEADER
from orchestrator.front.ordinary import Ordinary, Recognizer
from orchestrator.front.reply import LongReply, write_json
from orchestrator.front.server import Built
from orchestrator.front.settings import FrontSettings
from orchestrator.front.who import AGAIN_KEY, METHOD_KEY, SCOPE_KEY, SESSION_HEADER, TRACE_KEY, request_key
from tasks.errors import FleetError
from tasks.invocation import TERMINAL, Invocation, Lane, Principal
from tasks.tool import ToolSpec

_AT_ONCE_BYTES = 256 * 1024
"""Larger bodies are read beside the loop, which other requests and the leader's lease need."""
_KNOWN_HOSTS_MAX = 256
_CARRIED = {name.encode(): name for name in (PROJECT_HEADER, "traceparent")}
"""Headers that make_call looks at."""


class Exchange:
    """The ASGI stage behind the guard and before the SDK."""

    def __init__(
        self,
        app: ASGIApp,
        built: Built,
        settings: FrontSettings,
        security: TransportSecuritySettings,
        parse: Callable[[bytes], Any],
    ) -> None:
        self._app = app
        self._built = built
        self._settings = settings
        self._security = TransportSecurityMiddleware(security)
        self._parse = parse
        self._server_info = built.server.server_info_stamp
        self._recognizer = Recognizer(with_handshake=not settings.legacy_sessions)
        self._hosts: set[bytes] = set()
        self._plain: dict[str, bool] = {}
        self._plain_version = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["method"] != "POST":
            # Without sessions there is nothing to listen to and nothing to end. Source: MCP, Streamable HTTP: 405.
            refusal = Response(status_code=405, headers={"Allow": "POST"})
            await (self._app if self._settings.legacy_sessions else refusal)(scope, receive, send)
            return
        body, is_late = await self._body(receive)
        if body is None:
            await Response("Request body too large", status_code=413)(scope, receive, send)
            return
        if is_late and not await scope[AGAIN_KEY]():
            await Response("This credential is not good any more", status_code=401)(scope, receive, send)
            return
        try:
            form = self._parse(body) if len(body) <= _AT_ONCE_BYTES else await asyncio.to_thread(self._parse, body)
        except (ValueError, FleetError) as error:
            await _malformed(error, send)
            return
        if (no_message := refusal_of(form)) is not None:
            await write_json(send, 400, orjson.dumps(no_message))
            return
        headers = dict(scope["headers"])
        scope[METHOD_KEY] = form.get("method")
        ordinary = None
        if len(headers) == len(scope["headers"]) and self._recognizer.may_be(headers):
            ordinary = self._recognizer.read(headers, form)
        if ordinary is not None and await self._is_served_here(scope, headers, ordinary):
            await self._serve(scope, headers, ordinary, receive, send)
            return
        if not self._settings.legacy_sessions:
            send = await self._sessionless(scope, headers, form, send)
        await self._app(scope, _replaying(body, receive), send)

    async def _sessionless(
        self, scope: Scope, headers: Mapping[bytes, bytes], form: Mapping[str, Any], send: Send
    ) -> Send:
        """The handshake era without sessions on our side.

        Its clients cancel by naming a request, which means something only together with a session: so
        each gets a name for one, and nothing is kept under it but the calls this replica waits for.
        """
        if form.get("method") == "initialize":
            return _naming_session(send, secrets.token_urlsafe(18))
        session = headers.get(SESSION_HEADER.encode(), b"").decode("latin-1")
        if form.get("method") == "notifications/cancelled" and session:
            key = request_key(session, (form.get("params") or {}).get("requestId"))
            if key is not None:
                await self._built.calls.cancel_request(key, scope[SCOPE_KEY])
        return send

    async def _body(self, receive: Receive) -> tuple[bytes | None, bool]:
        """The whole body, or None when it is over the limit; and whether it was waited for."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self._settings.body_limit_bytes:
                return None, True
            parts.append(part)
            if not message.get("more_body", False):
                return (parts[0], False) if len(parts) == 1 else (b"".join(parts), True)

    async def _is_served_here(self, scope: Scope, headers: Mapping[bytes, bytes], ordinary: Ordinary) -> bool:
        if not self._has_plain_tool(ordinary, scope[SCOPE_KEY]):
            return False
        host = headers.get(b"host", b"")
        if host not in self._hosts:
            if await self._security.validate_request(Request(scope), is_post=True) is not None:
                return False
            if len(self._hosts) < _KNOWN_HOSTS_MAX:
                self._hosts.add(host)
        return True

    def _has_plain_tool(self, ordinary: Ordinary, principal: Principal) -> bool:
        """A tool of the fleet with no headers of its own and no task to begin with."""
        version = self._built.fleet.tools_version
        if version != self._plain_version:
            self._plain_version = version
            self._plain.clear()
        is_plain = self._plain.get(ordinary.name)
        if is_plain is None:
            spec = self._built.fleet.tool(self._built.catalogue.fleet_name(ordinary.name, principal))
            if spec is None:
                return False
            is_plain = self._plain[ordinary.name] = _is_plain(spec)
        return is_plain

    async def _serve(
        self, scope: Scope, headers: Mapping[bytes, bytes], ordinary: Ordinary, receive: Receive, send: Send
    ) -> None:
        principal: Principal = scope[SCOPE_KEY]
        asked = Asked(
            tool=self._built.catalogue.fleet_name(ordinary.name, principal),
            params=ordinary.params,
            principal=principal,
            headers={name: headers[raw].decode("latin-1") for raw, name in _CARRIED.items() if raw in headers},
            request=None if ordinary.client is not None else _key(headers, ordinary),
        )
        reply = LongReply(send)
        try:
            result = await self._result(scope, ordinary, asked, reply, receive)
        except MCPError as error:
            status = ERROR_CODE_HTTP_STATUS.get(error.code, 200)
            await reply.end({"id": ordinary.id, "error": error.error.model_dump(exclude_none=True)}, status)
            return
        if result is not None:
            await reply.end({"id": ordinary.id, "result": result}, 200)

    async def _result(
        self, scope: Scope, ordinary: Ordinary, asked: Asked, reply: LongReply, receive: Receive
    ) -> dict[str, Any] | None:
        """What answers the call; None when nobody is there any more."""
        calls = self._built.calls
        try:
            invocation = await calls.accept(asked)
        except Refused as refused:
            return self._stamped(ordinary, refused.result)
        scope[TRACE_KEY] = invocation.call.trace_id
        invocation = await calls.finish(invocation, asked, window_s=self._settings.inline_window_s)
        if invocation.state not in TERMINAL:
            if ordinary.client is not None and ordinary.client.declares_tasks:
                return self._stamped(ordinary, self._built.tasks.created(invocation))
            ended = await reply.wait(calls.finish(invocation, asked), receive, self._settings.keepalive_s)
            if ended is None:
                return None
            invocation = ended
        return self._stamped(ordinary, await self._content(ordinary, asked, invocation))

    async def _content(self, ordinary: Ordinary, asked: Asked, invocation: Invocation) -> dict[str, Any]:
        result = await self._built.calls.answer(invocation)
        if not is_input_required(result):
            return result
        if ordinary.client is None:
            return tool_error(f"{asked.tool} needs input from its user, and this client holds no session to ask over")
        missing = missing_capabilities(result, ordinary.client.capabilities)
        if missing:
            raise refuse_missing(missing)
        return result

    def _stamped(self, ordinary: Ordinary, result: dict[str, Any]) -> dict[str, Any]:
        """As the SDK does: the 2026 era is told which server answered, the older one knows no resultType."""
        if ordinary.client is None:
            result.pop("resultType", None)
            return result
        meta = result.setdefault("_meta", {})
        meta.setdefault(SERVER_INFO_META_KEY, self._server_info)
        return result


def _is_plain(spec: ToolSpec) -> bool:
    return not requires_task(spec) and spec.lane is not Lane.AGENTS and not x_mcp_header_map(spec.input_schema)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what really comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _key(headers: Mapping[bytes, bytes], ordinary: Ordinary) -> RequestKey | None:
    session = headers.get(SESSION_HEADER.encode())
    return None if session is None else request_key(session.decode("latin-1"), ordinary.id)


def _naming_session(send: Send, session: str) -> Send:
    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (SESSION_HEADER.encode(), session.encode())]}
        await send(message)

    return named


async def _malformed(error: Exception, send: Send) -> None:
    """Source: JSON-RPC 2.0, section 5.1: -32700, with a null id."""
    text = orjson.dumps(
        {"jsonrpc": "2.0", "id": None, "error": {"code": PARSE_ERROR, "message": f"Parse error: {error}"}}
    )
    await write_json(send, 400, text)
