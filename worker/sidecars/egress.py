"""The only way out of a sandbox: model traffic, with the key put in, metered, within the run's money.

One small HTTP service on a unix socket of the node. It knows which run is asking by a token made for that
run, replaces it by the credential, passes the request on to the one endpoint, and counts from the
provider's own `usage` as the answer streams by. Refuses every other way, and a run whose money is spent.
Owns no policy: the credential's state is told to whoever keeps it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx
import orjson
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from worker.sidecars.bill import Bill, loop_s
from worker.sidecars.meter import StreamMeter
from worker.sidecars.openai_chat_stream import tokens
from worker.sidecars.sidecar import Usage
from worker.sidecars.spend import Prices

REQUEST_MAX_BYTES = 64_000_000
CONNECT_S = 15.0
TOKEN_BYTES = 24
MESSAGES = "/v1/messages"
OUTPUT_TOKENS = 4000
"""What an answer under way is reckoned with."""
_PASSED_ON = frozenset({"accept", "anthropic-beta", "anthropic-version", "content-type", "user-agent"})
_PASSED_BACK = frozenset({"content-type", "retry-after", "request-id", "x-should-retry"})
_PASSED_BACK_PREFIX = "anthropic-ratelimit-"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where model traffic goes, and with what."""

    url: str
    """Without the path: `https://api.anthropic.com`."""
    headers: Callable[[], dict[str, str]] = field(repr=False)
    """The credential, read when it is needed."""
    paths: frozenset[str] = frozenset({MESSAGES, "/v1/messages/count_tokens"})
    asks: str = MESSAGES
    """The path that is asked of a model: what is answered there tells of the credential."""
    read_s: float = 600.0
    """Between two parts of an answer."""


@dataclass(slots=True)
class Asked:
    """What a run asked of the model so far."""

    requests: int = 0
    """That were answered well."""
    under_way: int = 0
    """That are not answered yet."""
    trouble: int | None = None
    """Status of the last one, where it was not."""


@dataclass(slots=True)
class _Run:
    bill: Bill
    limit_usd: float | None
    limit_requests: int | None = None
    asked: Asked = field(default_factory=Asked)
    answers: dict[StreamMeter, tuple[str, float, float]] = field(default_factory=dict)
    """That come in now: the model that each was asked of, what was reserved for it, when it was asked."""
    reserved_usd: float = 0.0

    @property
    def taken(self) -> int:
        """Requests that count, those under way too."""
        return self.asked.requests + self.asked.under_way


class Egress:
    """An ASGI application, and the book of runs that may use it."""

    def __init__(
        self,
        endpoint: Endpoint,
        prices: Prices,
        *,
        on_answer: Callable[[httpx.Response], None] = lambda _: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._endpoint, self._prices, self._on_answer = endpoint, prices, on_answer
        timeout = httpx.Timeout(endpoint.read_s, connect=CONNECT_S)
        self._client = httpx.AsyncClient(base_url=endpoint.url, timeout=timeout, transport=transport)
        self._runs: dict[str, _Run] = {}
        self.app = Starlette(routes=[Route("/{path:path}", self._pass_on, methods=["GET", "POST", "HEAD"])])

    def admit(self, limit_usd: float | None, bill: Bill, limit_requests: int | None = None) -> str:
        """Let a run in. Its token; what it uses is put on the bill."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._runs[token] = _Run(bill, limit_usd, limit_requests)
        return token

    def asked(self, token: str) -> Asked:
        """What that run asks of the model, kept up to date. Raises KeyError for a token that was dismissed."""
        return self._runs[token].asked

    def dismiss(self, token: str) -> None:
        """The run is over: its token is worth nothing any more. What streams still is counted as far as it came."""
        run = self._runs.pop(token, None)
        if run is not None:
            for meter in list(run.answers):
                self._count(meter, run)

    async def close(self) -> None:
        """Close the connections to the endpoint."""
        await self._client.aclose()

    async def _pass_on(self, request: Request) -> Response:
        run = self._runs.get(_token(request))
        if run is None:
            return _refusal(401, "authentication_error", "this token belongs to no run")
        if request.url.path not in self._endpoint.paths:
            return _refusal(404, "not_found_error", f"{request.url.path} is not passed on")
        began_s, body = loop_s(), await _bounded(request)
        if body is None:
            return _refusal(413, "request_too_large", f"a request may have {REQUEST_MAX_BYTES} bytes")
        asked, is_asked = _model(body), request.url.path == self._endpoint.asks
        reserved_usd = self._reserved_usd(asked, len(body))
        why_not = self._why_not(run, asked, is_asked=is_asked)
        if why_not is not None:
            return _refusal(403, "permission_error", why_not)
        request_on = self._client.build_request(
            request.method, request.url.path, params=request.query_params, content=body, headers=_passed_on(request)
        )
        request_on.headers.update(self._endpoint.headers())
        answer: httpx.Response | None = None
        run.asked.under_way += is_asked
        run.reserved_usd += reserved_usd
        try:
            answer = await self._client.send(request_on, stream=True)
        except httpx.HTTPError as error:
            _log.warning("egress_unreachable", url=self._endpoint.url, error=str(error) or type(error).__name__)
            run.asked.trouble = HTTPStatus.BAD_GATEWAY
            return _refusal(502, "api_error", f"the endpoint does not answer: {type(error).__name__}")
        finally:
            run.asked.under_way -= is_asked
            if answer is None:
                run.reserved_usd -= reserved_usd
        if is_asked:
            self._on_answer(answer)  # what else is answered says nothing of a quota
            run.asked.trouble = answer.status_code if answer.is_error else None
            run.asked.requests += answer.is_success
        meter = StreamMeter(is_stream="event-stream" in answer.headers.get("content-type", ""), asked_bytes=len(body))
        if answer.is_success and is_asked:  # a refusal costs nothing
            run.answers[meter] = (asked, reserved_usd, began_s)
        else:
            run.reserved_usd -= reserved_usd
        return StreamingResponse(self._metered(answer, meter, run), answer.status_code, headers=_headers(answer))

    async def _metered(self, answer: httpx.Response, meter: StreamMeter, run: _Run) -> AsyncIterator[bytes]:
        """The answer as it comes. Where it breaks off, it is counted as far as it came."""
        try:
            async for chunk in answer.aiter_bytes():
                meter.feed(chunk)
                if meter.is_over:
                    self._count(meter, run)  # before who asked can know the end and make up its own bill
                yield chunk
        finally:
            self._count(meter, run)  # first: who hangs up cancels every wait
            await answer.aclose()

    def _why_not(self, run: _Run, model: str, *, is_asked: bool) -> str | None:
        """By what the run has used, and may be using now: nothing is awaited from here to its request."""
        if run.limit_usd is not None:
            if run.bill.known_usd >= run.limit_usd:
                return f"the run's money is spent: {run.bill.known_usd:.4f} of {run.limit_usd:.4f} US dollars"
            if self._prices.of(model) is None:
                return f"model {model[:80]!r} has no price on this node, and the run's money is limited"
            if run.bill.known_usd + run.reserved_usd >= run.limit_usd:
                return f"the run's money is spent: what is under way may take all of {run.limit_usd:.4f} US dollars"
        if is_asked and run.limit_requests is not None and run.taken >= run.limit_requests:
            return f"the run's turns are used: {run.limit_requests}"
        return None

    def _reserved_usd(self, model: str, asked_bytes: int) -> float:
        """What a request may well cost: the next one beside it is refused where both would not fit."""
        price = self._prices.of(model)
        return 0.0 if price is None else price.of(Usage(input=tokens(asked_bytes), output=OUTPUT_TOKENS))

    def _count(self, meter: StreamMeter, run: _Run) -> None:
        """Once."""
        found = run.answers.pop(meter, None)
        if found is None:
            return
        asked, reserved_usd, began_s = found
        run.reserved_usd -= reserved_usd
        answered, usage = meter.total()
        model, price = self._prices.billed(answered, asked)
        run.bill.add(model, usage, None if price is None else price.of(usage), loop_s() - began_s)


def _token(request: Request) -> str:
    return request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")


def _passed_on(request: Request) -> dict[str, str]:
    return {key: value for key, value in request.headers.items() if key in _PASSED_ON}


def _model(body: bytes) -> str:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(said.get("model", "")) if isinstance(said, dict) else ""


async def _bounded(request: Request) -> bytes | None:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > REQUEST_MAX_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _headers(answer: httpx.Response) -> dict[str, str]:
    return {
        key: value
        for key, value in answer.headers.items()
        if key in _PASSED_BACK or key.startswith(_PASSED_BACK_PREFIX)
    }


def _refusal(status: int, kind: str, message: str) -> JSONResponse:
    """As the provider itself would say it: the runtime inside understands nothing else."""
    return JSONResponse({"type": "error", "error": {"type": kind, "message": f"mcpfleet: {message}"}}, status)
