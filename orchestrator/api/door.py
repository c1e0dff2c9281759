"""One path of the API as an ASGI application: who calls, what they sent, what they get.

Plain ASGI, no middleware per request: every call to the fleet passes here. Owns authentication,
body limits and the last `except`. Refuses to know what an operation does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from orchestrator.api.auditing import REFUSALS, Auditor, is_audited
from orchestrator.api.operation import NOBODY, Ask, Operation, read_query
from orchestrator.api.ports import Meter, Verifier
from orchestrator.api.problems import CHALLENGE, NotYours, WrongMediaType, WrongMethod, internal, invalid, problem
from orchestrator.api.reply import Reply, Stream
from orchestrator.api.settings import ApiSettings
from orchestrator.api.strict_json import parse
from orchestrator.api.trace import trace_of
from orchestrator.presented import Presented, presented
from tasks.errors import FleetError, NotAllowed, PayloadTooLarge
from tasks.invocation import Principal
from tasks.labels import OTHER
from tasks.scopes import require

log = structlog.get_logger("mcpfleet.api")


STRANGERS_BYTES = 4096
"""Of a body that needs no token: a challenge's, or its answer's."""
GONE = 499
"""Counted for a caller that went before its answer. Source: nginx, ngx_http_special_response: client closed request."""
AT_ONCE_BYTES = 256 * 1024
"""Read on the loop: 2 ms, or 15 ms for the worst JSON of that size."""


class CallerGone(Exception):
    """The connection ended before the body did."""


class Door:
    """All operations of one path."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        verifier: Verifier,
        settings: ApiSettings,
        auditor: Auditor,
        meter: Meter,
    ) -> None:
        self._operations, self._verifier, self._auditor = dict(operations), verifier, auditor
        self._meter = meter
        self._limit_bytes, metadata = settings.body_limit_bytes, settings.resource_metadata
        self._challenge = f'{CHALLENGE}, resource_metadata="{metadata}"' if metadata else CHALLENGE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        began_s, trace_id, status = self._meter.begin(), trace_of(headers), GONE
        try:
            with bound_contextvars(trace_id=trace_id):
                status = await self._serve(scope, headers, trace_id, receive, send)
        except Exception:
            status = 500
            raise
        finally:
            operation = self._operations.get(scope["method"])
            self._meter.answered(operation.name if operation else OTHER, status, began_s, trace_id)

    async def _serve(
        self, scope: Scope, headers: dict[bytes, bytes], trace_id: str, receive: Receive, send: Send
    ) -> int:
        """The status of the answer."""
        try:
            reply = await self._answer(scope, headers, trace_id, receive)
        except FleetError as error:
            was_shown = ', error="invalid_token"' if b"authorization" in headers else ""
            reply = problem(error, trace_id, self._challenge + was_shown)
            if error.http_status >= 500:  # noqa: PLR2004
                log.warning("request_refused", path=scope["path"], code=error.code, detail=error.message)
        except CallerGone:
            return GONE
        except Exception:
            log.exception("request_failed", path=scope["path"])
            reply = internal(trace_id)
        await self._send(reply, scope, receive, send)
        return reply.status

    async def _send(self, reply: Reply | Stream, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await reply.send(receive, send)
        except Exception:
            log.exception("answer_broke_off", path=scope["path"])
            raise

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], trace_id: str, receive: Receive
    ) -> Reply | Stream:
        operation = self._operations.get(scope["method"])
        if operation is None:
            raise WrongMethod(scope["method"], sorted(self._operations))
        shown = presented(scope)
        principal = await self._known(operation, shown)
        ask = Ask(principal, trace_id, scope["path_params"], headers, presented=shown)
        try:
            self._admit(operation, principal, scope["path_params"])
        except FleetError as error:
            await self._auditor.forbidden(operation, ask, error)
            raise
        ask._query = read_query(scope["query_string"], operation.query)  # noqa: SLF001 - filled here only
        if operation.takes_stream:
            ask.chunks = _chunks(receive)
        elif operation.body is not None:
            text, is_late = await self._text(operation, headers, receive)
            ask._body = await _form(operation.body, text)  # noqa: SLF001
            if is_late:  # what was good when the first byte came may have been revoked since
                self._admit(operation, await self._known(operation, shown), scope["path_params"])
        return await self._carry_out(operation, ask)

    async def _carry_out(self, operation: Operation, ask: Ask) -> Reply | Stream:
        """The handler; the audit log hears of an act before it begins, and of one that did not come off."""
        if not is_audited(operation):
            try:
                return await operation.handler(ask)
            except FleetError as error:
                if error.http_status in REFUSALS:
                    await self._auditor.forbidden(operation, ask, error)
                raise
        row = await self._auditor.begins(operation, ask)
        try:
            return await operation.handler(ask)
        except Exception as error:
            await self._auditor.failed(operation, ask, row, error)
            raise

    async def _known(self, operation: Operation, shown: Presented) -> Principal:
        if operation.scope is None:
            return NOBODY
        if not shown.token:
            raise NotAllowed("this needs a token: send `Authorization: Bearer …` (MCPFLEET_TOKEN)")
        principal = await self._verifier.verify(shown)
        if principal is None:
            raise NotAllowed("this token is not known here; check MCPFLEET_TOKEN")
        return principal

    @staticmethod
    def _admit(operation: Operation, principal: Principal, path: Mapping[str, str]) -> None:
        if operation.scope is None:
            return
        require(principal, operation.scope)
        if operation.is_for_itself and principal.id != path["name"]:
            raise NotYours(f"the token of node {principal.id!r} does not speak for {path['name']!r}")

    async def _text(self, operation: Operation, headers: Mapping[bytes, bytes], receive: Receive) -> tuple[bytes, bool]:
        """The body, and whether it was waited for."""
        kind = headers.get(b"content-type", b"application/json")
        if not kind.startswith(b"application/json"):
            raise WrongMediaType(f"send application/json, not {kind[:80].decode('latin-1')}")
        limit_bytes = self._limit_bytes if operation.scope is not None else STRANGERS_BYTES
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit_bytes:
            raise PayloadTooLarge("the body", int(declared), limit_bytes)
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            is_late = False
        else:
            body, is_late = await _gathered(message, receive, limit_bytes), True
        if len(body) > limit_bytes:
            raise PayloadTooLarge("the body", len(body), limit_bytes)
        return body, is_late


async def _gathered(first: Mapping[str, Any], receive: Receive, limit_bytes: int) -> bytes:
    """What comes in parts, to the end or to a little over the limit."""
    parts, size = [first.get("body", b"")], len(first.get("body", b""))
    async for part in _chunks(receive, first):
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            break
    return b"".join(parts)


async def _form(model: type[BaseModel], text: bytes) -> BaseModel:
    """A body as its model; a large one is read beside the loop, which other requests and the leader's lease need."""
    if len(text) <= AT_ONCE_BYTES:
        return _read(model, text)
    return await asyncio.to_thread(_read, model, text)


def _read(model: type[BaseModel], text: bytes) -> BaseModel:
    parse(text)  # pydantic would take the last of two equal keys
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise invalid(error) from None


async def _chunks(receive: Receive, first: Mapping[str, object] | None = None) -> AsyncIterator[bytes]:
    """The body's parts; after `first`, which was read already."""
    message: Mapping[str, object] = {"type": "http.request", "more_body": True} if first is None else first
    while True:
        if message["type"] == "http.disconnect":
            raise CallerGone
        if not message.get("more_body", False):
            return
        message = await receive()
        body = message.get("body", b"")
        if body:
            yield body
