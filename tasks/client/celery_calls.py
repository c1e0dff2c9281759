"""What a Celery caller wrote becomes a CallRequest. Pure; refuses what cannot work, saying what can.

`invoke.s(tool, arguments, project=…)` is a call; Celery's own options (`priority`, `expires`,
`countdown`, `eta`, `task_id`, `time_limit`) go into `apply_async` or `.set(…)`. In a chain a later
call either names the argument that receives the result before it, `invoke.s(tool, {…}, into="text")`,
or takes none, `invoke.si(tool, {…})`. There is no third way: guessing an argument is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

from celery.utils.time import maybe_iso8601

from tasks.errors import InvalidCall, NotSupported
from tasks.queues import TASK_NAME

CALL_WORDS = frozenset(
    {
        "project",
        "requires",
        "pool",
        "lane",
        "timeout_s",
        "retry",
        "deadline_s",
        "delay_s",
        "trace_id",
        "idempotency_key",
    }
)
"""Keywords of `invoke` that are a CallRequest's own members."""
WITHOUT_EFFECT = frozenset(
    {
        "add_to_parent", "compression", "connection", "delivery_mode", "group_id", "group_index", "ignore_result",
        "parent_id", "producer", "publisher", "reply_to", "retry", "retry_policy", "root_id", "route_name",
        "serializer", "shadow", "stamped_headers", "mandatory", "immediate",
    }
)  # fmt: skip
"""Options about messages. There is none: the call is posted, always as JSON, always with retries."""
CHOSEN_ROUTE = ("queue", "exchange", "routing_key", "exchange_type")


def form_of(args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """The CallRequest of one `apply_async`, its chain included.

    Args:
        args: positional arguments of the task; before `tool` stands what a task before it returned.
        kwargs: keyword arguments of the task.
        options: Celery's options; `chain` is the rest of a chain, last first.
        zone: of times that name none.

    Raises:
        NotSupported: a Celery feature that cannot work here.
        InvalidCall: a call that makes no sense.
    """
    then = [_step(step, zone) for step in _rest_of(options)]
    tool, arguments, words = _said(args, kwargs)
    form = {"tool": tool, "arguments": arguments, **words, **_timed(options, zone)}
    return {**form, "then": then} if then else form


def _said(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Tool, arguments and words of a call that starts now. `into` takes the value in front."""
    into = kwargs.get("into")
    before: tuple[Any, ...] = ()
    if into is not None:
        if not args or ("tool" not in kwargs and len(args) < 2):  # noqa: PLR2004 - a value and the tool
            raise InvalidCall(f"into={into!r} names where a result goes, but nothing stands before this call")
        before, args = (args[0],), args[1:]
    tool, arguments, words = _call(args, kwargs)
    if before:
        arguments[str(into)] = _plain(before[0])
    words.pop("into", None)
    return tool, arguments, words


def _step(step: Any, zone: tzinfo) -> dict[str, Any]:  # noqa: ANN401 - a Signature, or a dict of one
    """A later call of a chain."""
    if step.get("subtask_type") in {"group", "chord"}:
        raise NotSupported(
            f"a {step['subtask_type']} inside a chain", "get() the group's results, then start the next call"
        )
    if step.get("task") != TASK_NAME:
        raise NotSupported(
            f"{step.get('task')!r} after a tool call in a chain",
            "chains run on the fleet: put other Celery tasks first, or get() the result and pass it on",
        )
    options = step.get("options", {})
    _refuse_links(options)
    for word in ("countdown", "expires"):
        if isinstance(options.get(word), int | float):
            raise NotSupported(
                f"{word} on a later call of a chain", "its start is not known yet: give a time (eta, expires=datetime)"
            )
    tool, arguments, words = _call(step.get("args", ()), step.get("kwargs", {}))
    is_alone = bool(step.get("immutable"))
    if is_alone and "into" in words:
        raise InvalidCall(f"invoke.si({tool!r}, into=…): si() receives no result; use s(), or leave into out")
    if not is_alone and "into" not in words:
        raise NotSupported(
            f"invoke.s({tool!r}) after another call without into=",
            "name the argument that receives the result, invoke.s(tool, {…}, into='text'), or use invoke.si(tool, {…})",
        )
    return {"tool": tool, "arguments": arguments, **words, **_timed(options, zone)}


def _call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    given = dict(zip(("tool", "arguments"), args, strict=False))
    twice = given.keys() & kwargs.keys()
    if len(args) > len(given) or twice:
        raise InvalidCall(f"invoke takes a tool and its arguments, not {len(args)} values{' and ' if twice else ''}"
                          f"{', '.join(sorted(twice))}; in a chain, into='…' names where a result goes")  # fmt: skip
    given |= {name: value for name, value in kwargs.items() if value is not None}
    tool, arguments = given.pop("tool", None), _plain(given.pop("arguments", None) or {})
    if not isinstance(tool, str):
        raise InvalidCall(f"the tool's name must be text like 'git.git_log', not {str(tool)[:80]!r}")
    if not isinstance(arguments, Mapping):
        raise InvalidCall(f"{tool}: arguments must be a dictionary, not {type(arguments).__name__}")
    unknown = given.keys() - CALL_WORDS - {"into"}
    if unknown:
        raise InvalidCall(f"invoke has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(CALL_WORDS))}, into")
    return tool, dict(arguments), given


def _timed(options: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """Celery's options about one call."""
    _refuse(options)
    found: dict[str, Any] = {"id": options.get("task_id"), "priority": options.get("priority")}
    if options.get("countdown") is not None:
        found["delay_s"] = _seconds(options["countdown"])
    elif options.get("eta") is not None:
        found["not_before"] = _epoch_s(options["eta"], zone)
    expires = options.get("expires")
    if isinstance(expires, int | float | timedelta):
        found["deadline_s"] = _seconds(expires)
    elif expires is not None:
        found["expires_at"] = _epoch_s(expires, zone)
    limits = [options[name] for name in ("time_limit", "soft_time_limit") if options.get(name)]
    if limits:
        found["timeout_s"] = min(limits)
    if found["id"] is not None:
        found["idempotency_key"] = f"celery:{found['id']}"
    return {name: value for name, value in found.items() if value is not None}


def _refuse(options: Mapping[str, Any]) -> None:
    for word in CHOSEN_ROUTE:
        if options.get(word):
            raise NotSupported(
                f"{word}=", "the fleet places calls itself; say pool=, requires= or project= in the call"
            )
    if options.get("chord"):
        raise NotSupported("chord", "get() the group's results, then start the next call with them")
    if options.get("headers"):
        raise NotSupported("headers=", "no message is sent; use project= or trace_id= to find calls again")
    known = WITHOUT_EFFECT | {
        "task_id", "priority", "countdown", "eta", "expires", "time_limit", "soft_time_limit", "chain", "link",
        "link_error", "chord", "headers", *CHOSEN_ROUTE, *(options.get("stamped_headers") or ()),
    }  # fmt: skip
    unknown = {name for name, value in options.items() if value is not None} - known
    if unknown:
        raise NotSupported(f"the option {', '.join(sorted(unknown))}", "docs/api.md lists the options invoke takes")
    _refuse_links(options)


def _refuse_links(options: Mapping[str, Any]) -> None:
    if options.get("link_error"):
        raise NotSupported("link_error", "get() raises what went wrong; `mcpfleet dead list` keeps what ended badly")
    if options.get("link"):
        raise NotSupported("link", "write a chain: invoke.s(…) | invoke.s(…, into='…'), or get() and go on")


def _rest_of(options: Mapping[str, Any]) -> list[Any]:
    return list(reversed(options.get("chain") or ()))


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _epoch_s(value: datetime | str, zone: tzinfo) -> float:
    """A time as Celery takes it: aware, or in the app's zone, or ISO 8601 text."""
    at = maybe_iso8601(value)
    if not isinstance(at, datetime):
        raise InvalidCall(f"{value!r} is no time; pass a datetime or ISO 8601 text")
    return (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp()


def _plain(value: Any) -> Any:  # noqa: ANN401 - arguments are any JSON, or a pydantic model
    dump = getattr(value, "model_dump", None)
    return value if dump is None else dump(mode="json")
