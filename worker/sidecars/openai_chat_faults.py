"""What went wrong with a request to a chat model, by who has to do something. Pure.

Sources: the public reference of the OpenAI chat API (status, `error.code`); Z.ai's and BigModel's tables of
codes (`error.code` "1113" and its kind, under HTTP 429); what vLLM and llama.cpp say of a context that is too long.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from worker.sidecars.credential import OVERLOADED
from worker.sidecars.sidecar import Fault

SAID_CHARS = 500
_TOO_LONG = (
    "context_length",
    "context length",
    "context window",
    "context size",
    "exceed_context",
    "prompt is too long",
    "prompt exceeds",
    "maximum input length",
)
_TOO_LONG_CODE = "1261"
_OWNER = frozenset({"1110", "1111", "1112", "1113", "1121", "1309", "1311", "1313", "insufficient_quota"})
"""HTTP 429 or 400, and no time heals it: the account is empty, locked, or may not use the model."""
_CREDENTIAL = frozenset({"1000", "1001", "1002", "1003", "1004", "1220", "invalid_api_key"})
_BUSY = frozenset({"1305", "1312"})
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY})
_MAY_BE_TOO_LONG = frozenset({400, 403, 413, 422, 500})
"""vLLM and most say 400, Together 403, llama.cpp 400 or, before it knew better, 500."""
_STATUSES = range(400, 600)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer."""

    fault: Fault
    message: str
    """What, and what to do."""
    status: int | None = None
    """Of HTTP; None where no answer came."""
    retry_after_s: float | None = None
    """As the provider asked."""
    may_pass: bool = False
    """The same request may succeed in a moment."""


def failures() -> tuple[type[Exception], ...]:
    """What the library raises: it wraps its transport's errors, and does not wrap JSON that is none."""
    import openai

    return (openai.OpenAIError, ValueError, TimeoutError)


def of_error(error: Exception, url: str, *, stall_s: float, now_s: float) -> Trouble:
    """Of one of `failures()`. `now_s` is the wall clock's: a `Retry-After` may be a date."""
    import openai

    if isinstance(error, openai.APIStatusError):
        retry_after_s = _retry_after_s(error.response.headers, now_s)
        return of_status(error.status_code, _said(error.body, error.message), url, retry_after_s)
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        said = f"{url} said nothing for {stall_s:g} s; look whether it is overloaded, or raise the backend's stall_s"
        return Trouble(Fault.UNREACHABLE, said, may_pass=True)
    if isinstance(error, openai.APIConnectionError):
        cause = str(error.__cause__ or error) or type(error).__name__
        said = f"{url} does not answer ({cause}); check that it runs and that the backend's base_url is right"
        return Trouble(Fault.UNREACHABLE, said, may_pass=True)
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIResponseValidationError):
        return _in_stream(_said(error.body, error.message), url)
    said = f"{url} answered what is no chat completion ({_short(error)}); check that base_url names such an API"
    return Trouble(Fault.PROTOCOL, said, may_pass=True)


def of_status(status: int, said: str, url: str, retry_after_s: float | None = None) -> Trouble:
    """Of a refusal."""
    code = _code(said)
    at = f"({status}) at {url}"
    if status == HTTPStatus.UNAUTHORIZED or code in _CREDENTIAL:
        return Trouble(Fault.AUTH, f"the key was refused {at}: give the backend a valid one: {said}", status)
    if status == HTTPStatus.PAYMENT_REQUIRED or code in _OWNER:
        return Trouble(Fault.AUTH, f"the account has no money or no right {at}: top it up: {said}", status)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (status in _MAY_BE_TOO_LONG and _is_too_long(said)):
        return Trouble(Fault.CONTEXT, too_long(said), status)
    if status == HTTPStatus.FORBIDDEN:
        return Trouble(Fault.AUTH, f"the key may not do this {at}: check its rights and the model: {said}", status)
    if status == HTTPStatus.NOT_FOUND:
        what = "check the model's name (the tool `models` lists them) and the backend's base_url"
        return Trouble(Fault.REFUSED, f"not known {at}: {what}: {said}", status)
    if status == HTTPStatus.TOO_MANY_REQUESTS and code not in _BUSY:
        when = f"in {retry_after_s:g} s" if retry_after_s is not None else "later"
        said = f"the key has nothing left for now {at}: again {when}: {said}"
        return Trouble(Fault.QUOTA, said, status, retry_after_s, may_pass=True)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT or code in _BUSY:
        is_busy = status == OVERLOADED or code in _BUSY or retry_after_s is not None
        fault = Fault.OVERLOADED if is_busy else Fault.PROVIDER_FAILED
        said = f"failed or overloaded {at}: call again later, or look at its log: {said}"
        return Trouble(fault, said, status, retry_after_s, may_pass=True)
    return Trouble(Fault.REFUSED, f"the request was refused {at}: {said}", status)


def too_long(said: str) -> str:
    """For whoever gave too much."""
    return f"this is more than the model reads at once: give it less, or begin a new session: {said}"


def _in_stream(said: str, url: str) -> Trouble:
    """An error that came after the 200, as an event of the stream."""
    if _is_too_long(said):
        return Trouble(Fault.CONTEXT, too_long(said))
    code = _code(said)
    status = int(code) if code.isdecimal() and int(code) in _STATUSES else 0
    if status or code in _CREDENTIAL | _OWNER | _BUSY:
        return of_status(status or HTTPStatus.TOO_MANY_REQUESTS, said, url)
    return Trouble(Fault.PROVIDER_FAILED, f"{url} broke off its answer: call again later: {said}", may_pass=True)


def _said(body: object, message: str) -> str:
    """The provider's own words, in one short line with its code."""
    error: object = body
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping | str):
        error = body["error"]
    if isinstance(error, Mapping):
        named = {key: error.get(key) for key in ("code", "type", "message")}
        known = {key: str(value)[:SAID_CHARS] for key, value in named.items() if isinstance(value, str | int)}
        if known:
            return json.dumps(known, ensure_ascii=False)
    return (error if isinstance(error, str) and error else message)[:SAID_CHARS]


def _code(said: str) -> str:
    try:
        words: Any = json.loads(said)
    except ValueError:
        return ""
    return str(words.get("code", "")) if isinstance(words, dict) else ""


def _is_too_long(said: str) -> bool:
    lower = said.lower()
    return _code(said) == _TOO_LONG_CODE or any(word in lower for word in _TOO_LONG)


def _retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds, or an HTTP date (RFC 9110, 10.2.3). Nonsense counts as nothing."""
    said = headers.get("retry-after", "").strip()
    if said.replace(".", "", 1).isdecimal():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
