"""Values to rows and back. No SQL, no rules.

What statements filter on, or what a delivery needs, has a column. The rest of a `Call` (its retry
policy, its `then` chain, the caller's own `not_before` …) is one JSON column that is NULL for most
calls: a field that `Call` gains later is kept there without a migration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import lru_cache
from typing import Any

import orjson

from orchestrator.ledger.tables import INVOCATIONS
from orchestrator.ledger.values import NewInvocation
from tasks.invocation import TRUST_LEAST, Attempt, Call, Invocation, Lane, Principal, State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.retry import RetryPolicy

_COLUMNS = frozenset(
    {
        "tool",
        "arguments_json",
        "project",
        "requires",
        "pool",
        "priority",
        "expires_at",
        "timeout_s",
        "idempotency_key",
        "trace_id",
        "meta_json",
    }
)
"""Fields of `Call` that have a column. `not_before` is not one: a retry moves that column."""

NEW = (
    "id",
    "tenant",
    "principal",
    "tool",
    "project",
    "lane",
    "priority",
    "pool",
    "accepted_at",
    "not_before",
    "expires_at",
    "timeout_s",
    "trace_id",
    "idempotency_key",
    "call_digest",
    "replay_of",
    "root",
    "depth",
    "requires_json",
    "arguments_blob",
    "rest_json",
    "meta_json",
    "arguments_json",
)
"""What `new_row` fills; every other column begins the same for all."""

READ = tuple(column.name for column in INVOCATIONS.columns)
LIGHT = tuple(name for name in READ if name not in {"arguments_json", "result_json", "meta_json"})
"""For listings: everything but the big texts."""


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


_DEFAULTS = {field.name: _default(field) for field in fields(Call)}
_REST = tuple((name, default) for name, default in _DEFAULTS.items() if name not in _COLUMNS)
_RETRY = tuple(field.name for field in fields(RetryPolicy))


def new_row(new: NewInvocation) -> dict[str, object]:
    """The row of an Invocation that is being accepted."""
    invocation, call = new.invocation, new.invocation.call
    return {
        "id": invocation.id,
        "tenant": invocation.principal.tenant,
        "principal": invocation.principal.id,
        "tool": call.tool,
        "project": call.project,
        "lane": invocation.lane.value,
        "priority": call.priority,
        "pool": call.pool,
        "accepted_at": invocation.accepted_at,
        "not_before": call.not_before,
        "expires_at": call.expires_at,
        "timeout_s": call.timeout_s,
        "trace_id": call.trace_id,
        "idempotency_key": call.idempotency_key,
        "call_digest": new.call_digest,
        "replay_of": invocation.replay_of,
        "root": invocation.root,
        "depth": invocation.depth or None,
        "requires_json": dumps(sorted(call.requires)) if call.requires else None,
        "arguments_blob": new.arguments_blob,
        "rest_json": _rest_json(invocation),
        "meta_json": call.meta_json,
        "arguments_json": call.arguments_json,
    }


def invocation_of(row: Mapping[str, Any], attempts: tuple[Attempt, ...] = ()) -> Invocation:
    """An Invocation from a row with the columns `READ`, or `LIGHT` for a listing."""
    rest = orjson.loads(row["rest_json"]) if row["rest_json"] else {}
    principal = principal_of(row["principal"], row["tenant"], rest)
    return Invocation(
        id=row["id"],
        call=_call_of_row(row, rest),
        principal=principal,
        lane=Lane(row["lane"]),
        state=State(row["state"]),
        accepted_at=row["accepted_at"],
        fence=row["fence"],
        tries=row["tries"],
        cancel_requested=bool(row["cancel_requested"]),
        ended_at=row["ended_at"],
        outcome=_outcome_of(row),
        replay_of=row["replay_of"],
        root=row["root"],
        depth=row["depth"] or 0,
        attempts=attempts,
        capsule=row["capsule_blob"],
    )


def principal_of(name: str, tenant: str, rest: dict[str, Any]) -> Principal:
    """Who called, as far as it was kept; takes it out of `rest`. One object for all calls of one principal."""
    return _principal(
        name,
        tenant,
        frozenset(rest.pop("roles", ())),
        frozenset(rest.pop("groups", ())),
        rest.pop("trust", TRUST_LEAST),
    )


@lru_cache(10_000)
def _principal(name: str, tenant: str, roles: frozenset[str], groups: frozenset[str], trust: int) -> Principal:
    return Principal(id=name, tenant=tenant, roles=roles, groups=groups, trust=trust)


def attempt_of(row: Mapping[str, Any]) -> Attempt:
    """An Attempt from a row of the attempts' table."""
    return Attempt(
        invocation_id=row["invocation_id"],
        fence=row["fence"],
        node=row["node"],
        incarnation=row["incarnation"],
        pool=row["pool"],
        lane=Lane(row["lane"]),
        queue=row["queue"],
        released_at=row["released_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        ending=row["ending"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        reasons=tuple(orjson.loads(row["reasons_json"])),
    )


def error_json(error: ErrorInfo | None) -> str | None:
    """An ErrorInfo as JSON text."""
    if error is None:
        return None
    form = {"code": error.code, "message": storable(error.message), "failure": error.failure.value}
    if error.retry_after_s is not None:
        form["retry_after_s"] = error.retry_after_s  # type: ignore[assignment]
    return dumps(form)


def error_of(stored: str | None) -> ErrorInfo | None:
    """An ErrorInfo from its JSON text."""
    if stored is None:
        return None
    form = orjson.loads(stored)
    return ErrorInfo(
        code=form["code"],
        message=form["message"],
        failure=Failure(form["failure"]),
        retry_after_s=form.get("retry_after_s"),
    )


def storable(text: str) -> str:
    """Text that both databases take: without NUL, and without half of a surrogate pair.

    Only for messages that people read: a node's error text must never be what keeps its outcome out.
    """
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def dumps(value: object) -> str:
    """JSON text."""
    return orjson.dumps(value).decode()


def strings_of(stored: str | None) -> frozenset[str]:
    """A set of strings from its JSON text; NULL is the empty set."""
    return frozenset(orjson.loads(stored)) if stored else frozenset()


def is_chained(rest_json: str | None) -> bool:
    """Whether the call has successors."""
    return rest_json is not None and "then" in orjson.loads(rest_json)


def trace_parent_of(rest_json: str | None) -> str | None:
    """The caller's span, where it said one. Looked for first: most calls say nothing that is kept there."""
    if rest_json is None or '"trace_parent"' not in rest_json:
        return None
    said = orjson.loads(rest_json).get("trace_parent")
    return said if isinstance(said, str) else None


def _outcome_of(row: Mapping[str, Any]) -> Outcome | None:
    if row["ending"] is None:
        return None
    return Outcome(
        ending=row["ending"],
        result_json=row.get("result_json"),
        result_blob=row["result_blob"],
        error=error_of(row["error_json"]),
    )


def _rest_json(invocation: Invocation) -> str | None:
    call = invocation.call
    rest = {name: _encoded(value) for name, default in _REST if (value := getattr(call, name)) != default}
    by = invocation.principal
    if by.roles:
        rest["roles"] = sorted(by.roles)
    if by.groups:
        rest["groups"] = sorted(by.groups)
    if by.trust != TRUST_LEAST:
        rest["trust"] = by.trust
    return dumps(rest) if rest else None


def _call_of_row(row: Mapping[str, Any], rest: Mapping[str, Any]) -> Call:
    return Call(
        tool=row["tool"],
        arguments_json=row.get("arguments_json", "{}"),
        project=row["project"],
        requires=strings_of(row["requires_json"]),
        pool=row["pool"],
        priority=row["priority"],
        expires_at=row["expires_at"],
        timeout_s=row["timeout_s"],
        idempotency_key=row["idempotency_key"],
        trace_id=row["trace_id"],
        meta_json=row.get("meta_json"),
        **_decoded(rest),
    )


def _encoded(value: object) -> object:
    match value:
        case Call():
            own = {name: getattr(value, name) for name in _DEFAULTS}
            return {name: _encoded(given) for name, given in own.items() if given != _DEFAULTS[name]}
        case RetryPolicy():
            return {name: getattr(value, name) for name in _RETRY}
        case tuple():
            return [_encoded(item) for item in value]
        case frozenset():
            return sorted(value)
        case _:
            return value


def _decoded(form: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in form.items() if name in _DEFAULTS}
    return {name: _DECODERS[name](value) if name in _DECODERS else value for name, value in known.items()}


_DECODERS: dict[str, Callable[[Any], object]] = {
    "requires": frozenset,
    "lane": Lane,
    "retry": lambda form: RetryPolicy(**form),
    "then": lambda forms: tuple(Call(**_decoded(form)) for form in forms),
}
