"""problem+json becomes the error it was made from."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from tasks.errors import FleetError, NotAllowed, OrchestratorDown, Permanent, Retryable

REFUSED = frozenset({401, 403})
GATEWAY = frozenset({502, 503, 504})


def error_of(status: int, body: bytes, url: str) -> FleetError:
    """The error an answer stands for: its class by `code`, its fields by name.

    Args:
        status: the HTTP status, which decides where the code is not one of ours.
        body: RFC 9457, or whatever a proxy in between answered.
        url: named where it was not the orchestrator that answered.
    """
    form = _form(body)
    if form is None:
        if status in GATEWAY:
            return OrchestratorDown(url, f"a proxy answered {status}")
        return _made(NotAllowed if status in REFUSED else Permanent, f"{url} answered {status} without a reason", {})
    detail, fields = str(form.get("detail", "")), form.get("fields")
    kind = _kind(str(form.get("code", "")), status)
    error = _made(kind, detail, fields if isinstance(fields, dict) else {})
    if form.get("trace_id"):
        error.add_note(f"trace_id {form['trace_id']}")
    return error


def _form(body: bytes) -> dict[str, object] | None:
    try:
        form = orjson.loads(body)
    except ValueError:
        return None
    return form if isinstance(form, dict) and "detail" in form else None


def _kind(code: str, status: int) -> type[FleetError]:
    for kind in _kinds(FleetError):
        if kind.code == code and kind.__module__ == FleetError.__module__:
            return kind
    if status in REFUSED:
        return NotAllowed
    return Retryable if status in {429, *GATEWAY} else Permanent


def _kinds(root: type[FleetError]) -> Iterator[type[FleetError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


def _made(kind: type[FleetError], detail: str, fields: dict[str, object]) -> FleetError:
    """An instance with its message as it was; the constructors make messages from fields."""
    error = kind.__new__(kind)
    FleetError.__init__(error, detail)
    for name, value in fields.items():
        if name.isidentifier() and not name.startswith("_") and not callable(getattr(kind, name, None)):
            setattr(error, name, value)
    return error
