"""One tenant tries every operation there is on what another one has: nothing is shown, nothing is touched.

Made from the table of operations: one that is added has no entry here, and the test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from orchestrator.testing.front import TASKS, modern
from orchestrator.testing.protocol import UNSAFE
from tasks.approval import digest
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from tests.security.two_tenants_rig import CANARY, OPERATOR, OURS, QUESTION, RIVAL, ROLES, TEXT, Field, opened

WITHIN_S = 60.0
HIDDEN, EMPTY, SHARED, CLOSED, OWN = "hidden", "empty", "shared", "closed", "own"
"""Not there for others; a list without it; what all may see, without a word of it; not for another tenant at all;
what happens in one's own tenant."""

CALL = {"tool": "files.read", "arguments": {}}
TABLE: dict[str, tuple[str, Any]] = {
    "call": (OWN, [CALL | {"idempotency_key": "done"}]),
    "list": (OWN, None),
    "show": (HIDDEN, None),
    "call_many": (OWN, [{"calls": [CALL | {"idempotency_key": "waits"}]}]),
    "watch": (HIDDEN, None),
    "arguments": (HIDDEN, None),
    "explain": (HIDDEN, None),
    "cancel": (HIDDEN, None),
    "replay": (HIDDEN, None),
    "wait_for_many": (OWN, lambda it: {"ids": list(it.calls.values())}),
    "renew": (CLOSED, [{"incarnation": "x"}]),
    "claim": (CLOSED, [{}]),
    "join": (CLOSED, [{}]),
    "renew_certificate": (CLOSED, [{}]),
    "leave": (CLOSED, [{}]),
    "issue_enrolment": (CLOSED, [{"name": "a1", "pool": "east"}]),
    "enrol": (CLOSED, [{}]),
    "revoke_enrolment": (CLOSED, None),
    "put_blob": (CLOSED, None),
    "get_blob": (CLOSED, None),
    "list_tools": (SHARED, None),
    "show_tool": (SHARED, None),
    "list_nodes": (SHARED, None),
    "set_node_state": (CLOSED, [{"state": "draining"}]),
    "list_pools": (SHARED, None),
    "list_queues": (CLOSED, None),  # 503: Redis is away here
    "backlog": (SHARED, None),
    "pulse": (SHARED, None),
    "pause": (CLOSED, [{"kind": "project", "name": f"{CANARY}-shop", "is_paused": True}]),
    "list_circuits": (SHARED, None),
    "list_dead": (EMPTY, None),
    "count_dead": (OWN, None),
    "show_dead": (HIDDEN, None),
    "replay_dead": (HIDDEN, lambda it: {"ids": [it.calls["dead"]]}),
    "discard_dead": (HIDDEN, lambda it: {"ids": [it.calls["dead"]]}),
    "approvals": (EMPTY, None),
    "approval": (HIDDEN, None),
    "answer_approval": (HIDDEN, [{"answer": "allow", "arguments_sha256": digest(TEXT)}]),
    "scale": (SHARED, None),
    "list_machines": (SHARED, None),
    "scale_log": (SHARED, None),
    "plan_scale": (SHARED, [{}]),
    "replay_scale": (SHARED, [{"pool": "east", "since": 0.0}]),
    "set_override": (CLOSED, [{"pool": "east", "target": 1, "for_s": 60.0}]),
    "clear_override": (CLOSED, None),
    "set_dry_run": (CLOSED, [{"is_dry": True}]),
    "wind_down": (CLOSED, None),
    "list_secrets": (EMPTY, None),
    "show_secret": (HIDDEN, None),
    "set_secret": (OWN, [{"value": "theirs", "nodes": ["*"]}]),  # under the same owner and name
    "delete_secret": (HIDDEN, None),
    "rewrap_secrets": (CLOSED, None),
    "show_rewrap": (CLOSED, None),
    "give_secrets": (CLOSED, [{}]),
    "erase_project": (OWN, None),
    "whoami": (OWN, None),
    "list_keys": (OWN, None),
    "create_key": (HIDDEN, [{"name": "x", "roles": ["agent"], "tenant": OURS}]),
    "show_key": (HIDDEN, None),
    "revoke_key": (HIDDEN, None),
    "rotate_key": (HIDDEN, None),
    "rotate_own_key": (OWN, None),
    "challenge": (OWN, lambda it: {"key": it.key}),
    "open_session": (OWN, lambda it: {"key": it.key, "nonce": "x" * 43, "signature": "x" * 86}),
    "policy": (SHARED, None),
    "explain_policy": (OWN, [{"principal": "x", "tenant": OURS, "tool": "files.read"}]),
    "costs": (EMPTY, None),
    "register_oauth_client": (HIDDEN, [{"name": "x", "roles": ["agent"], "tenant": OURS}]),
    "list_oauth_clients": (EMPTY, None),
    "revoke_oauth_client": (HIDDEN, None),
    "rotate_oauth_client": (HIDDEN, [{}]),
    "rotate_oauth_keys": (CLOSED, [{}]),
    "list_audit": (OWN, None),
    "audit_checkpoints": (CLOSED, None),
    "audit_checkpoint": (CLOSED, None),
    "verify_audit": (CLOSED, None),
    "audit_check": (CLOSED, None),
    "audit_key": (SHARED, None),
    "health": (SHARED, None),
    "metrics": (CLOSED, None),
    "objectives": (SHARED, None),
    "targets": (CLOSED, None),
    "openapi": (SHARED, None),
}
MAY_BE = {HIDDEN: {403, 404}, CLOSED: {403, 404, 503}, EMPTY: {200, 403}}


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Field]:
    """Two tenants, one of which has something of everything."""
    async with opened(tmp_path, FakeClock()) as field:
        yield field


def places(it: Field, operation: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Paths of what is ours there, and the words in them that the asker said himself."""
    path = operation.path
    named = {"{sha256}": it.blob, "{project}": f"{CANARY}-shop", "{owner}": "shop", "{name:path}": "files.read"}
    named["{name}"] = "stripe" if "{owner}" in path else "a1"
    if path.startswith("/v1/invocations/{id}"):
        ids = list(it.calls.values())
    elif path.startswith("/v1/dead-letters/"):
        ids = [it.calls["dead"]]
    else:
        ids = [QUESTION if "approvals" in path else it.client if "oauth" in path else it.key]
    for one in ids if "{id}" in path else [""]:
        words = {mark: word for mark, word in (named | {"{id}": one}).items() if mark in path}
        filled = path
        for mark, word in words.items():
            filled = filled.replace(mark, word)
        # an audit has what they themselves asked for
        yield filled, (*words.values(), *((f"{CANARY}-shop", OURS) if operation.name == "list_audit" else ()))


def without(text: str, said: tuple[str, ...]) -> str:
    """What the asker said himself, in a path or a body, is no news to him."""
    for word in sorted(said, key=len, reverse=True):
        text = text.replace(word, "")
    return text


async def state_of(it: Field) -> list[Any]:
    """All of ours, as our admin sees it; but the audit of it, which grows, and events, which do not end."""
    seen: list[Any] = []
    for operation in it.operations:
        if operation.method != "GET" or operation.name == "watch" or TABLE[operation.name][0] not in {HIDDEN, EMPTY}:
            continue
        for path, _ in places(it, operation):
            answer = await it.ask((OURS, "admin"), "GET", path)
            assert answer.status_code == 200, (path, answer.text)
            seen.append((path, answer.text))
    return seen


def test_every_operation_has_its_entry(it: Field) -> None:
    """Whoever adds one says here what another tenant gets of it."""
    assert {one.name for one in it.operations} == set(TABLE)


async def test_our_own_admin_sees_it_all(it: Field) -> None:
    """Else the rest of this file proves nothing: the words are there, and whose they are sees them."""
    seen = [(path, text) for path, text in await state_of(it) if "/why" not in path]
    assert len(seen) > 10
    silent = [one for one in seen if CANARY not in one[1]]
    assert not silent


@pytest.mark.parametrize("role", ROLES)
async def test_no_operation_shows_or_touches_what_is_another_tenants(it: Field, role: str) -> None:
    """Whatever their role: refused or not there, and no answer has a word of it."""
    before, wrong = await state_of(it), []
    for operation in it.operations:
        kind, form = TABLE[operation.name]
        body = form(it) if callable(form) else form[0] if form else None
        for path, said in places(it, operation):
            async with asyncio.timeout(WITHIN_S):
                answer = await it.ask((RIVAL, role), operation.method, path, **({} if body is None else {"json": body}))
            is_right = answer.status_code in MAY_BE.get(kind, range(200, 500))
            is_empty = kind != EMPTY or answer.status_code != 200 or not answer.json().get("items")
            is_silent = CANARY not in without(answer.text + str(answer.headers), (*said, OURS) if body else said)
            if not (is_right and is_empty and is_silent):
                wrong.append((operation.name, path, answer.status_code, answer.text))
    assert not wrong
    assert await state_of(it) == before


async def test_a_chosen_id_and_a_parent_of_another_tenant_are_of_no_use(it: Field) -> None:
    """A call cannot take another's place, nor be its child; the refusal has no word of it."""
    for more in ({"id": it.calls["done"]}, {"parent": it.calls["asks"]}, {"id": it.calls["waits"]}):
        answer = await it.ask((RIVAL, "developer"), "POST", "/v1/invocations", json=CALL | more)
        assert 400 <= answer.status_code < 500, answer.text
        assert CANARY not in answer.text


def asked(it: Field, which: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every MCP method and plain tool that names a call."""
    one = it.calls[which]
    yield "tasks/get", {"taskId": one}
    yield "tasks/cancel", {"taskId": one}
    yield "tasks/update", {"taskId": one, "inputResponses": {QUESTION: {"action": "accept", "content": {}}}}
    for tool in ("fleet.get", "fleet.cancel", "fleet.why"):
        yield "tools/call", {"name": tool, "arguments": {"id": one}}
    parent = {"tool": "files.read", "arguments": {}, "parent": one}
    yield "tools/call", {"name": "fleet.submit", "arguments": parent}


@pytest.mark.parametrize("role", ["admin", "developer", "agent"])
async def test_no_mcp_method_shows_or_touches_what_is_another_tenants(it: Field, role: str) -> None:
    """Tasks and plain tools: an error, without a word of it."""
    before = await state_of(it)
    for which in it.calls:
        for method, params in asked(it, which):
            answer = await spoken(it, (RIVAL, role), method, params)
            assert "error" in answer or answer["result"].get("isError"), (method, params, answer)
            assert CANARY not in orjson.dumps(answer).decode(), (method, params, answer)
    assert await state_of(it) == before


async def test_what_a_call_did_to_a_circuit_is_told_without_its_words(it: Field) -> None:
    """That a server is passed by is everybody's business; what it said of a tenant's call is not."""
    body = {"tool": UNSAFE, "arguments": {}, "pool": "west"}
    await it.story.join("b1", pool="west")
    call = (await it.do("POST", "/v1/invocations", json=body))["id"]
    delivery = next(one for one in await it.story.release() if one.invocation == call)
    broke = ErrorInfo("connection_lost", f"{CANARY} went down", Failure.MAYBE_STARTED)
    await it.story.finish("b1", delivery, Outcome("failed", error=broke))
    seen = await it.ask((RIVAL, "developer"), "GET", "/v1/circuits")
    (circuit,) = seen.json()["items"]
    assert (circuit["node"], circuit["failures"], CANARY in seen.text) == ("b1", 1, False)
    own = await it.http.get("/v1/circuits", headers={"Authorization": f"Bearer {OPERATOR}"})
    assert CANARY in own.text


async def test_another_tenants_idempotency_key_is_another_key(it: Field) -> None:
    """The same word in two tenants is two calls; our own gets our call back."""
    submit = {"name": "fleet.submit", "arguments": {"tool": "files.read", "arguments": {}, "idempotency_key": "done"}}
    theirs = await spoken(it, (RIVAL, "agent"), "tools/call", submit)
    again = await spoken(it, (RIVAL, "agent"), "tools/call", submit)
    assert theirs["result"]["structuredContent"]["id"] not in it.calls.values()
    assert again["result"]["structuredContent"] == theirs["result"]["structuredContent"]
    assert CANARY not in orjson.dumps(theirs).decode()


async def test_our_own_agent_is_answered(it: Field) -> None:
    """Else the refusals above are of something else."""
    got = await spoken(it, (OURS, "agent"), "tasks/get", {"taskId": it.calls["done"]})
    assert CANARY in orjson.dumps(got["result"]).decode()


async def spoken(it: Field, who: tuple[str, str], method: str, params: dict[str, Any]) -> dict[str, Any]:
    """One message at the MCP door."""
    body, headers = modern(method, params, capabilities={**TASKS, "elicitation": {}})
    headers["authorization"] = f"Bearer {it.keys[who]}"
    async with asyncio.timeout(WITHIN_S):
        answer = await it.http.post("/mcp", content=orjson.dumps(body), headers=headers)
    return dict(answer.json())
