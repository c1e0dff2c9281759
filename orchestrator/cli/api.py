"""The HTTP API as the command line uses it: one call per method, wire models in and out.

Owns how answers become errors with an exit status. Refuses to print. Synchronous on purpose: a
command does one thing at a time, and Ctrl-C must land in it.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from orchestrator.cli.exits import NotTrusted, Refused
from tasks.errors import FleetError, NotAllowed, OrchestratorDown
from tasks.wire import CallRequest, EventView, ExplainView, InvocationView, Page

CONNECT_S = 5.0
ANSWER_S = 30.0
WAIT_MAX_S = 25.0
"""One long poll; below what proxies cut off, repeated by the caller."""
EVENT_SILENCE_S = 60.0
"""The stream sends a comment at least this often; past it the connection is dead."""

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, str | int | float | Sequence[str] | None]


class Api:
    """A connection to one orchestrator."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self.traceparent: str | None = None
        """Where in a trace calls are made."""
        self._http = httpx.Client(
            base_url=url,
            transport=transport,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=False,
            # The machine's authorities, and what SSL_CERT_FILE names: `mcpfleet ca` prints a fleet's own.
            verify=ssl.create_default_context() if url.startswith("https://") else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def submit(self, call: CallRequest) -> InvocationView:
        """Accept one call; durable when this returns."""
        body = call.model_dump(mode="json", exclude_defaults=True, exclude={"idempotency_key"})
        headers = {"Idempotency-Key": call.idempotency_key} if call.idempotency_key else {}
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
        return InvocationView.model_validate_json(self._send("POST", "/v1/invocations", json=body, headers=headers))

    def invocation(self, invocation_id: str, wait_s: float | None = None) -> InvocationView:
        """As it stands; with `wait_s` as soon as it ended, or when the time is over."""
        params = {} if wait_s is None else {"wait": round(min(wait_s, WAIT_MAX_S), 3)}
        path = f"/v1/invocations/{quote(invocation_id, safe='')}"
        return self.get(path, InvocationView, params, extra_s=wait_s or 0.0)

    def events(self, invocation_id: str, silence_s: float = EVENT_SILENCE_S) -> Iterator[EventView]:
        """History so far, then live; ends after the kind `ended`.

        Raises:
            OrchestratorDown: the stream broke, or said nothing for `silence_s` seconds.
        """
        path = f"/v1/invocations/{quote(invocation_id, safe='')}/events"
        timeout = httpx.Timeout(max(silence_s, 0.001), connect=CONNECT_S)
        with self._errors(), self._http.stream("GET", path, timeout=timeout, headers=_SSE) as answer:
            if answer.is_error:
                answer.read()
                raise _problem(answer)
            for event in _server_sent(answer.iter_lines()):
                yield event
                if event.kind == "ended":
                    return

    def act(self, invocation_id: str, verb: str) -> InvocationView:
        """`cancel` or `replay`."""
        return self.post(f"/v1/invocations/{quote(invocation_id, safe='')}/{verb}", InvocationView)

    def explain(self, invocation_id: str) -> ExplainView:
        """Why it waits, or why it is where it is."""
        return self.get(f"/v1/invocations/{quote(invocation_id, safe='')}/why", ExplainView)

    def get(self, path: str, model: type[M], params: Params | None = None, extra_s: float = 0.0) -> M:
        """One object."""
        return model.model_validate_json(self._send("GET", path, params=params, extra_s=extra_s))

    def post(self, path: str, model: type[M], body: object = None) -> M:
        """One object, answered to `body`."""
        return model.model_validate_json(self._send("POST", path, json=body))

    def send(self, method: str, path: str, body: object = None, params: Params | None = None) -> object:
        """Whatever JSON is answered; None for an empty answer."""
        raw = self._send(method, path, json=body, params=params)
        return json.loads(raw) if raw else None

    def pages(self, path: str, model: type[M], params: Params | None = None) -> Iterator[M]:
        """Every item of a listing, page by page. A bare JSON list is one page."""
        cursor: str | None = None
        while True:
            raw = json.loads(self._send("GET", path, params={**(params or {}), "cursor": cursor}))
            page = Page[Any].model_validate({"items": raw} if isinstance(raw, list) else raw)
            yield from (model.model_validate(item) for item in page.items)
            cursor = page.next
            if cursor is None:
                return

    def date_header(self) -> str | None:
        """The orchestrator's own clock, from `GET /health`."""
        with self._errors():
            answer = self._http.get("/health")
        if answer.is_error:
            raise _problem(answer)
        date: str | None = answer.headers.get("date")
        return date

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        extra_s: float = 0.0,
    ) -> bytes:
        timeout = httpx.Timeout(ANSWER_S + extra_s, connect=CONNECT_S)
        with self._errors():
            answer = self._http.request(
                method, path, params=_given(params), json=json, headers=headers, timeout=timeout
            )
        if answer.is_error:
            raise _problem(answer)
        return answer.content

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise OrchestratorDown(self.url, f"no answer in time: {type(error).__name__}") from error
        except httpx.TransportError as error:
            if isinstance(_cause(error), ssl.SSLCertVerificationError):
                raise NotTrusted(self.url, str(error)) from error
            raise OrchestratorDown(self.url, str(error) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise OrchestratorDown(self.url, f"not an address: {error}") from error


def _cause(error: BaseException) -> BaseException:
    """What began it: httpx wraps what the TLS library said."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


_SSE = {"Accept": "text/event-stream", "Cache-Control": "no-store"}


def _given(params: Params | None) -> dict[str, Any]:
    return {key: value for key, value in (params or {}).items() if value is not None}


def _problem(answer: httpx.Response) -> FleetError:
    """The answer's own words (RFC 9457), or its status where it has none."""
    try:
        form = answer.json()
        detail, code = str(form["detail"]), str(form.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        detail, code = f"{answer.request.url.path} answered {answer.status_code} {answer.reason_phrase}", ""
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return NotAllowed(detail if "MCPFLEET_TOKEN" in detail else f"{detail}; check MCPFLEET_TOKEN")
    if answer.status_code == httpx.codes.FORBIDDEN:
        return NotAllowed(detail)
    return Refused(detail, status=answer.status_code, code=code)


def _server_sent(lines: Iterator[str]) -> Iterator[EventView]:
    """Events of a stream; lines that are not ours are skipped.

    Source: WHATWG HTML, 9.2.6 (event stream interpretation).
    """
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            event = _event("\n".join(data))
            data = []
            if event is not None:
                yield event


def _event(text: str) -> EventView | None:
    try:
        return EventView.model_validate_json(text)
    except ValidationError:
        return None


def listed(items: Iterator[M], limit: int) -> Sequence[M]:
    """The first `limit` of a listing; stops asking for pages when it has them."""
    found: list[M] = []
    for item in items:
        if len(found) >= limit:
            break
        found.append(item)
    return found
