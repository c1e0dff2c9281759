"""Every operation of the client, once. `fleet.py` makes a sync and an async method of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import quote

from tasks.client.calls import CallOptions, call_form, write
from tasks.client.exchange import Core, Flow, Pause, Request, send
from tasks.client.results import ToolResult, failure_of, result_of
from tasks.errors import FleetError
from tasks.invocation import TERMINAL, State
from tasks.wire import ExplainView, InvocationView, NodeView, Page, ToolView, Until, WaitView

POLL_S = 20.0
"""One long poll; below what proxies cut off, repeated."""
BATCH_MAX = 1000
"""Calls in one post: the server's limit."""
WAIT_MAX = 1000
"""Ids in one wait: the server's limit."""
UNKNOWN_PAUSE_S = 0.2
_JSON = {"Content-Type": "application/json"}


def submit(
    core: Core, tool: str, arguments: Mapping[str, Any] | None = None, /, **options: Unpack[CallOptions]
) -> Flow[InvocationView]:
    """Accept one call; durable when this returns.

    A key is made where none is given, so that a connection that breaks is no second call.
    """
    view = yield from _post_call(core, tool, arguments, options, wait_s=None)
    return view


def submit_form(core: Core, form: Mapping[str, Any]) -> Flow[InvocationView]:
    """Accept one call, written as a CallRequest with its own idempotency key."""
    answer = yield from send(core, Request("POST", "/v1/invocations", write(form), _headers(core)))
    return InvocationView.model_validate_json(answer.body)


def submit_forms(core: Core, forms: Sequence[Mapping[str, Any]]) -> Flow[list[InvocationView]]:
    """Accept calls, written as CallRequests with their own idempotency keys; the same order.

    Up to 1,000 are accepted in one commit, all or none; more are several commits.
    """
    views: list[InvocationView] = []
    for start in range(0, len(forms), BATCH_MAX):
        body = write({"calls": forms[start : start + BATCH_MAX]})
        answer = yield from send(core, Request("POST", "/v1/invocations:batch", body, _headers(core)))
        views += Page[InvocationView].model_validate_json(answer.body).items
    return views


def call(
    core: Core,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    /,
    *,
    wait_s: float | None = None,
    check: bool = True,
    **options: Unpack[CallOptions],
) -> Flow[ToolResult]:
    """Call a tool and wait for its answer.

    Args:
        core: filled in.
        tool: `server.tool`.
        arguments: of the tool.
        wait_s: seconds to wait; None waits until it ends. The call itself goes on.
        check: False gives also the result of a tool that said `isError`.
        options: `CallOptions`.

    Raises:
        InvocationFailed: it ended badly.
        TimeoutError: it did not end in `wait_s`.
        InvalidCall: the fleet does not take it.
        OrchestratorDown: nothing answers.
    """
    until_s = None if wait_s is None else core.clock.mono_s() + wait_s
    view = yield from _post_call(core, tool, arguments, options, wait_s=_poll_s(core, until_s))
    if view.state not in TERMINAL:
        view = yield from _wait_one(core, view.id, until_s, wait_s)
    return result_of(view, check=check)


def submit_many(
    core: Core, tool: str, arguments: Iterable[Mapping[str, Any]], /, **options: Unpack[CallOptions]
) -> Flow[list[InvocationView]]:
    """Accept a call per item of `arguments`, 1,000 to a commit; the same order."""
    key = options.get("idempotency_key") or core.new_key()
    bare: CallOptions = {**options, "idempotency_key": None}
    forms = [
        {**call_form(tool, one, bare), "idempotency_key": f"{key}#{number}"} for number, one in enumerate(arguments)
    ]
    views = yield from submit_forms(core, forms)
    return views


def map_tool(
    core: Core,
    tool: str,
    arguments: Iterable[Mapping[str, Any]],
    /,
    *,
    wait_s: float | None = None,
    **options: Unpack[CallOptions],
) -> Flow[list[ToolResult]]:
    """Call a tool once per item of `arguments`; results in the same order.

    Raises:
        InvocationFailed: the first that ended badly; the others go on.
        TimeoutError: not all ended in `wait_s`.
    """
    views = yield from submit_many(core, tool, arguments, **options)
    ended = yield from wait_many(core, [view.id for view in views], wait_s, Until.FIRST_FAILURE)
    return [result_of(ended[view.id], check=True) for view in views]


def gather(
    core: Core, ids: Sequence[str], *, return_exceptions: bool = False, timeout_s: float | None = None
) -> Flow[list[ToolResult | FleetError]]:
    """The results of several Invocations, in this order, over one connection."""
    until = Until.ALL if return_exceptions else Until.FIRST_FAILURE
    ended = yield from wait_many(core, ids, timeout_s, until)
    found: list[ToolResult | FleetError] = []
    for invocation_id in ids:
        view = ended[invocation_id]
        is_bad = view.state is not State.SUCCEEDED
        found.append(failure_of(view) if return_exceptions and is_bad else result_of(view, check=True))
    return found


def wait_many(
    core: Core, ids: Sequence[str], timeout_s: float | None, until: Until = Until.ALL
) -> Flow[dict[str, InvocationView]]:
    """Wait for several; ended views by id.

    Raises:
        InvocationFailed: with FIRST_FAILURE, the first found that ended badly.
        TimeoutError: not all ended in time.
    """
    until_s = None if timeout_s is None else core.clock.mono_s() + timeout_s
    ended: dict[str, InvocationView] = {}
    todo = list(dict.fromkeys(ids))
    while todo:
        found = yield from poll_many(core, todo[:WAIT_MAX], _poll_s(core, until_s), until)
        ended |= {view.id: view for view in found.ended}
        bad = next((view for view in found.ended if view.state is not State.SUCCEEDED), None)
        if bad is not None and until is Until.FIRST_FAILURE:
            raise failure_of(bad)
        todo = [one for one in todo if one not in ended]
        if until is Until.ANY and ended:
            break
        if todo and _is_over(core, until_s):
            raise TimeoutError(f"{len(todo)} of {len(ids)} calls have not ended after {timeout_s} s; they go on")
        if len(found.unknown) == len(todo[:WAIT_MAX]) and todo:
            yield Pause(UNKNOWN_PAUSE_S)  # not accepted yet (a chain's later calls): nothing to wait on
    return ended


def poll_many(core: Core, ids: Sequence[str], wait_s: float, until: Until) -> Flow[WaitView]:
    """One request for up to 1,000 Invocations."""
    body = write({"ids": list(ids), "timeout_s": wait_s, "until": until})
    answer = yield from send(core, Request("POST", "/v1/invocations:wait", body, _JSON, wait_s))
    return WaitView.model_validate_json(answer.body)


def tools(core: Core) -> Flow[list[ToolView]]:
    """The fleet's tools."""
    answer = yield from send(core, Request("GET", "/v1/tools"))
    return Page[ToolView].model_validate_json(answer.body).items


def nodes(core: Core) -> Flow[list[NodeView]]:
    """The fleet's nodes."""
    answer = yield from send(core, Request("GET", "/v1/nodes"))
    return Page[NodeView].model_validate_json(answer.body).items


def result(core: Core, invocation_id: str, timeout_s: float | None = None, *, check: bool = True) -> Flow[ToolResult]:
    """Its result, once it ended.

    Raises:
        InvocationFailed: it ended badly.
        TimeoutError: it did not end in `timeout_s`; it goes on.
    """
    until_s = None if timeout_s is None else core.clock.mono_s() + timeout_s
    view = yield from _wait_one(core, invocation_id, until_s, timeout_s)
    return result_of(view, check=check)


def show(core: Core, invocation_id: str) -> Flow[InvocationView]:
    """As it stands."""
    answer = yield from send(core, Request("GET", path_of(invocation_id)))
    return InvocationView.model_validate_json(answer.body)


def state(core: Core, invocation_id: str) -> Flow[State]:
    """Where it stands."""
    view = yield from show(core, invocation_id)
    return view.state


def cancel(core: Core, invocation_id: str) -> Flow[InvocationView]:
    """End it, wherever it is; a running tool is asked to stop. Ended ones stay as they are."""
    answer = yield from send(core, Request("POST", f"{path_of(invocation_id)}/cancel"))
    return InvocationView.model_validate_json(answer.body)


def explain(core: Core, invocation_id: str) -> Flow[ExplainView]:
    """Why it waits, or why it is where it is."""
    answer = yield from send(core, Request("GET", f"{path_of(invocation_id)}/why"))
    return ExplainView.model_validate_json(answer.body)


def path_of(invocation_id: str) -> str:
    """Its path."""
    return f"/v1/invocations/{quote(invocation_id, safe='')}"


def _post_call(
    core: Core, tool: str, arguments: Mapping[str, Any] | None, options: CallOptions, *, wait_s: float | None
) -> Flow[InvocationView]:
    keyed: CallOptions = {**options, "idempotency_key": options.get("idempotency_key") or core.new_key()}
    body = write(call_form(tool, arguments, keyed))
    path = "/v1/invocations" if wait_s is None else f"/v1/invocations?wait={wait_s:.3f}"
    answer = yield from send(core, Request("POST", path, body, _headers(core), wait_s or 0.0))
    return InvocationView.model_validate_json(answer.body)


def _headers(core: Core) -> Mapping[str, str]:
    here = core.traceparent()
    return _JSON if here is None else {**_JSON, "traceparent": here}


def _wait_one(core: Core, invocation_id: str, until_s: float | None, timeout_s: float | None) -> Flow[InvocationView]:
    while True:
        wait_s = _poll_s(core, until_s)
        answer = yield from send(core, Request("GET", f"{path_of(invocation_id)}?wait={wait_s:.3f}", wait_s=wait_s))
        view = InvocationView.model_validate_json(answer.body)
        if view.state in TERMINAL:
            return view
        if _is_over(core, until_s):
            raise TimeoutError(f"invocation {invocation_id} is {view.state} after {timeout_s} s; it goes on")


def _poll_s(core: Core, until_s: float | None) -> float:
    return POLL_S if until_s is None else max(0.0, min(POLL_S, until_s - core.clock.mono_s()))


def _is_over(core: Core, until_s: float | None) -> bool:
    return until_s is not None and core.clock.mono_s() >= until_s
