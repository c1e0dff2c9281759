"""Errors as answers: `application/problem+json`. Source: RFC 9457.

Owns which status, code and headers an error has. Refuses to show what went wrong inside us: a 500
carries a trace id, the traceback is in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import orjson
from pydantic import ValidationError

from orchestrator.api.reply import Reply
from orchestrator.wanted import wanted_of_field
from tasks.errors import FleetError, InvalidCall, NotAllowed, Permanent, Retryable

MEDIA_TYPE = b"application/problem+json"
CHALLENGE = 'Bearer realm="mcpfleet"'
RETRY_AFTER_S = 1
"""Seconds a caller is asked to wait where the error does not know better."""
REFRESH = (b"refresh", b"2")
"""A person's browser asks again by itself after so many seconds: it may be looking at a page of the console."""
ERRORS_SHOWN_MAX = 20
NOT_FIELDS = frozenset({"message", "places", "allowed", "__notes__"})
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class InvalidBody(InvalidCall):
    """The body, or the query, is not what the operation takes. `places` names each path."""

    def __init__(self, places: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for path, message in places[:3]))
        self.places = places


class NotYours(Permanent):
    """These credentials are good, but not for this."""

    code = "forbidden"
    http_status = 403


class WrongHost(Permanent):
    """A `Host` header that is not ours."""

    code = "wrong_host"
    http_status = 421


class NotLeading(Retryable):
    """This orchestrator cannot prove that it leads, or another does."""

    code = "not_leading"

    def __init__(self) -> None:
        super().__init__("this orchestrator does not lead, or cannot reach the ledger to prove it; ask again")


class NoSuchPath(Permanent):
    """Nothing is at this path."""

    code = "no_such_path"
    http_status = 404


class WrongMethod(Permanent):
    """The path exists, the method does not."""

    code = "wrong_method"
    http_status = 405

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method[:20]} is not possible here; use {' or '.join(allowed)}")
        self.allowed = allowed


class WrongMediaType(Permanent):
    """The body is not JSON."""

    code = "wrong_media_type"
    http_status = 415


def invalid(error: ValidationError) -> InvalidBody:
    """Pydantic's findings in our words, each with the path of the value it is about."""
    return InvalidBody(
        [(".".join(str(part) for part in found["loc"]) or "body", wanted_of_field(found)) for found in error.errors()]
    )


def problem(error: FleetError, trace_id: str, challenge: str = CHALLENGE) -> Reply:
    """The answer to an error we raised; `challenge` is what a 401 names (RFC 6750, section 3)."""
    places = error.places[:ERRORS_SHOWN_MAX] if isinstance(error, InvalidBody) else ()
    form = {
        "type": f"urn:mcpfleet:error:{error.code}",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "errors": [{"path": path, "message": message} for path, message in places],
        "fields": {name: value for name, value in vars(error).items() if name not in NOT_FIELDS},
        "trace_id": trace_id,
    }
    return Reply(orjson.dumps(form, default=_text), error.http_status, MEDIA_TYPE, _headers(error, challenge))


def internal(trace_id: str) -> Reply:
    """The answer to an error nobody expected."""
    detail = f"an error in the orchestrator; its log has the details under trace_id {trace_id}"
    return problem(FleetError(detail), trace_id)


def _text(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _headers(error: FleetError, challenge: str) -> tuple[tuple[bytes, bytes], ...]:
    if error.http_status in BUSY:
        wait_s = getattr(error, "retry_after_s", None) or RETRY_AFTER_S
        retry = (b"retry-after", str(max(1, round(wait_s))).encode())
        return (retry, REFRESH) if isinstance(error, NotLeading) else (retry,)
    if isinstance(error, NotAllowed):
        return ((b"www-authenticate", challenge.encode()),)
    if isinstance(error, WrongMethod):
        return ((b"allow", ", ".join(error.allowed).encode()),)
    return ()
