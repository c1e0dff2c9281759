"""A CallRequest becomes a `Call`: relative times become absolute, arguments become text. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.api.problems import InvalidBody
from orchestrator.api.strict_json import write
from tasks.grant import META_KEY
from tasks.invocation import Call
from tasks.retry import RetryPolicy
from tasks.tool import RetryForm
from tasks.wire import CallRequest, NextCall


def to_call(
    request: CallRequest,
    *,
    now_s: float,
    trace_id: str,
    key: str | None = None,
    trace_parent: Callable[[str], str | None] = lambda _: None,
) -> Call:
    """What the caller asks for, as the fleet takes it.

    Args:
        request: the body.
        now_s: wall clock; durations in the request, those of `then` too, count from it.
        trace_id: used where the request names none.
        key: idempotency key from the header, used where the body has none.
        trace_parent: the caller's span in a trace.

    Raises:
        InvalidBody: members that contradict one another.
    """
    _refuse(request, key)
    trace_id = request.trace_id or trace_id
    then = tuple(_call(step, now_s, trace_id, step.idempotency_key, into=step.into) for step in request.then)
    call = _call(request, now_s, trace_id, request.idempotency_key or key, then=then)
    parent = trace_parent(trace_id)
    return call if parent is None else replace(call, trace_parent=parent)


def _call(
    request: CallRequest | NextCall,
    now_s: float,
    trace_id: str,
    key: str | None,
    *,
    then: tuple[Call, ...] = (),
    into: str | None = None,
) -> Call:
    return Call(
        tool=request.tool,
        arguments_json=write(request.arguments),
        project=request.project,
        requires=request.requires,
        pool=request.pool,
        lane=request.lane,
        priority=request.priority,
        not_before=_at(request.not_before, request.delay_s, now_s),
        expires_at=_at(request.expires_at, request.deadline_s, now_s),
        timeout_s=request.timeout_s,
        retry=None if request.retry is None else _policy(request.retry),
        idempotency_key=key,
        trace_id=trace_id,
        then=then,
        into=into,
        invocation_id=request.id,
        parent=request.parent if isinstance(request, CallRequest) else None,
        meta_json=None if request.grant is None else write({"_meta": {META_KEY: request.grant}}),
    )


def _at(absolute_s: float | None, relative_s: float | None, now_s: float) -> float | None:
    return now_s + relative_s if relative_s is not None else absolute_s


def _policy(form: RetryForm) -> RetryPolicy:
    return RetryPolicy(form.attempts, form.first_wait_s, form.factor, form.cap_s, form.retry_tool_errors)


def _refuse(request: CallRequest, key: str | None) -> None:
    places: list[tuple[str, str]] = []
    if key and request.idempotency_key and key != request.idempotency_key:
        places.append(("idempotency_key", "differs from the Idempotency-Key header; send one of them"))
    steps: list[tuple[str, CallRequest | NextCall]] = [(f"then.{n}.", step) for n, step in enumerate(request.then)]
    for path, call in (("", request), *steps):
        if call.delay_s is not None and call.not_before is not None:
            places.append((f"{path}delay_s", "give delay_s or not_before, not both"))
        if call.deadline_s is not None and call.expires_at is not None:
            places.append((f"{path}deadline_s", "give deadline_s or expires_at, not both"))
    if places:
        raise InvalidBody(places)
