"""The OpenAPI document, the routes and the wire models say the same."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from orchestrator.api import views
from orchestrator.api.fleet_views import DeadCountQuery, DeadLetters
from orchestrator.api.openapi import documented_path
from orchestrator.api.operation import Ask
from orchestrator.api.settings import ApiSettings
from orchestrator.ledger.dead_values import DeadCount, DeadFilter
from orchestrator.testing.doors import OPERATOR_TOKEN
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import door, fake_app
from tasks.invocation import Attempt, Call, Invocation, Lane, Principal, State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from tasks.wire import AttemptView, DiscardRequest, InvocationView

SPECIFIED = """
POST /v1/invocations · POST /v1/invocations:batch · POST /v1/invocations:wait · GET /v1/invocations
GET /v1/invocations/{id} · GET /v1/invocations/{id}/events · GET /v1/invocations/{id}/why
GET /v1/invocations/{id}/arguments
POST /v1/invocations/{id}/cancel · POST /v1/invocations/{id}/replay · GET /v1/tools · GET /v1/tools/{name}
GET /v1/nodes · POST /v1/nodes · POST /v1/nodes/{name}/state · POST /v1/nodes/{name}/renewals
POST /v1/nodes/{name}/claims · POST /v1/nodes/{name}/leave
POST /v1/nodes/{name}/certificates · GET /v1/pools · GET /v1/queues · GET /v1/backlog · GET /v1/circuits · GET /v1/pulse
POST /v1/pauses · GET /v1/dead-letters · GET /v1/dead-letters:count · GET /v1/dead-letters/{id}
POST /v1/dead-letters:replay · POST /v1/dead-letters:discard
PUT /v1/blobs/{sha256} · GET /v1/blobs/{sha256} · POST /v1/enrolments · POST /v1/enrolments/{name}
DELETE /v1/enrolments/{name} · GET /v1/scale · GET /v1/scale/claims · GET /v1/scale/log · POST /v1/scale/plan
POST /v1/scale/replay · PUT /v1/scale/override · DELETE /v1/scale/override · POST /v1/scale/dry-run
POST /v1/scale/wind-down · GET /v1/costs · GET /v1/approvals · GET /v1/approvals/{id} · POST /v1/approvals/{id}
GET /v1/secrets · GET /v1/secrets/{owner}/{name} · PUT /v1/secrets/{owner}/{name}
DELETE /v1/secrets/{owner}/{name} · GET /v1/secret-rewraps · POST /v1/secret-rewraps · POST /v1/nodes/{name}/secrets
DELETE /v1/projects/{project}
GET /v1/whoami · GET /v1/keys · POST /v1/keys · GET /v1/keys/{id} · DELETE /v1/keys/{id} · POST /v1/keys/{id}/rotate
POST /v1/keys:rotate · POST /v1/auth/challenges · POST /v1/auth/sessions · GET /v1/policy
POST /v1/policy/explain
GET /v1/oauth/clients · POST /v1/oauth/clients · DELETE /v1/oauth/clients/{id} · POST /v1/oauth/clients/{id}/rotate
POST /v1/oauth/keys/rotate
GET /v1/objectives · GET /v1/targets
GET /v1/audit · GET /v1/audit/checkpoints · POST /v1/audit/checkpoints · GET /v1/audit/key
POST /v1/audit:verify · GET /v1/audit:verify
GET /openapi.json · GET /health · GET /metrics
"""


async def document() -> dict[str, Any]:
    """As it is served."""
    async with door(token=OPERATOR_TOKEN) as client:
        answer = await client.get("/openapi.json")
        assert answer.status_code == 200
        return dict(answer.json())


async def test_every_path_we_promise_is_documented_and_no_other() -> None:
    """The list above is the contract with clients; adding to the API changes it on purpose."""
    paths = (await document())["paths"]
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert found == {line.strip() for line in re.split("[·\n]", SPECIFIED) if line.strip()}


async def test_every_route_is_documented_and_every_documented_route_answers() -> None:
    """Neither a route without a document nor a document without a route."""
    app = fake_app(FakeFleet())
    routed = {documented_path(route.path) for route in app.routes}  # type: ignore[attr-defined]
    paths = (await document())["paths"]
    assert routed == set(paths)
    async with door(token=OPERATOR_TOKEN) as client:
        for path, methods in paths.items():
            for method in methods:
                answer = await client.request(method, re.sub("{[^}]+}", "0" * 64, path))
                assert answer.status_code not in {405, 500}, (method, path)
                if "json" in answer.headers.get("content-type", ""):
                    assert '"code":"no_such_path"' not in answer.text, (method, path)


async def test_references_in_the_document_lead_somewhere() -> None:
    """Every `$ref` has a target, every operation a name of its own, every closed door its 401."""
    form = await document()
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', orjson.dumps(form).decode())):
        assert name in form["components"]["schemas"]
    operations = [one for methods in form["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all("401" in one["responses"] for one in operations if one["security"])


async def test_a_listing_is_documented_as_a_page() -> None:
    """What is answered is not one item: clients are made from this document."""
    form = await document()
    operations = [one for methods in form["paths"].values() for one in methods.values()]
    shapes = {
        one["operationId"]: one["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        for one in operations
        if one["operationId"].startswith("list_")
    }
    assert len(shapes) > 8
    assert not {name for name, ref in shapes.items() if "items" not in form["components"]["schemas"][ref]["properties"]}


def test_what_is_open_is_written_here() -> None:
    """Whatever is added needs a token unless this list says otherwise; a challenge is how one is got."""
    app = fake_app(FakeFleet(), ApiSettings())
    opened = {one.path for one in app.state.operations if one.scope is None}
    assert opened == {"/health", "/v1/auth/challenges", "/v1/auth/sessions"}


@pytest.mark.parametrize("state", [State.WAITING, State.SUCCEEDED, State.FAILED])
def test_an_invocation_is_written_as_its_model_says(state: State) -> None:
    """Written by hand for speed, and held to the model: the same members, of the same kinds."""
    error = ErrorInfo("tool_error", "said no", Failure.TOOL_ERROR) if state is State.FAILED else None
    outcome = None if state is State.WAITING else Outcome(state, '{"content":[],"isError":false}', error=error)
    attempt = Attempt("id", 1, "a", "i", "main", Lane.TOOLS, "q", 1.0, 2.0, 3.0, "failed", "code", "why", ("reason",))
    value = Invocation(
        "id", Call("a.b", project="p"), Principal("alice"), Lane.TOOLS, state, 1.0, outcome=outcome, attempts=(attempt,)
    )
    text = views.invocation(value, outcome.result_json if outcome else None)
    view = InvocationView.model_validate_json(text, strict=True)
    assert orjson.loads(text) == view.model_dump(mode="json")
    assert set(orjson.loads(text)) == set(InvocationView.model_fields)
    assert set(orjson.loads(text)["attempts"][0]) == set(AttemptView.model_fields)
    assert (view.error is not None) is (error is not None)
    assert view.node == "a"


async def test_operators_see_and_steer() -> None:
    """Listings are pages, a pause and a node's state take, an unknown name is a 404."""
    async with door(token=OPERATOR_TOKEN) as client:
        for path in ("/v1/tools", "/v1/nodes", "/v1/pools", "/v1/queues"):
            page = (await client.get(path)).json()
            assert (bool(page["items"]), page["next"]) == (True, None)
        assert (await client.get("/v1/tools/probe.echo")).json()["name"] == "probe.echo"
        missing = (await client.get("/v1/tools/probe.ecko")).json()
        assert (missing["code"], "probe.echo" in missing["detail"]) == ("not_found", True)
        pause = {"kind": "pool", "name": "main", "is_paused": True}
        assert (await client.post("/v1/pauses", json=pause)).status_code == 204
        assert (await client.get("/v1/pools")).json()["items"][0]["is_paused"] is True
        assert (await client.post("/v1/nodes/a/state", json={"state": "cordoned"})).json()["state"] == "cordoned"
        assert (await client.post("/v1/nodes/a/state", json={"state": "lost"})).status_code == 422
        assert (await client.get("/v1/backlog")).json()["waiting"] == 0


async def test_dead_letters_are_listed_replayed_and_discarded() -> None:
    """What ended badly is kept until somebody decides."""
    async with door() as client:
        body = {"tool": "probe.fail", "arguments": {}}
        failed = (await client.post("/v1/invocations?wait=10", json=body)).json()
        [letter] = (await client.get("/v1/dead-letters?reason=tool_error")).json()["items"]
        assert letter["id"] == failed["id"]
        [again] = (await client.post("/v1/dead-letters:replay", json={})).json()["items"]
        assert again["replay_of"] == failed["id"]
        await client.get(f"/v1/invocations/{again['id']}?wait=10")
        discarded = await client.post("/v1/dead-letters:discard", json={"ids": [failed["id"], again["id"], "nobody"]})
        assert discarded.json() == {"discarded": 2}


async def test_counts_of_many_dead_letters_are_reused_until_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting reads them all, and open pages ask every second; what somebody answered must be seen at once."""
    fleet, made = FakeFleet(), 0
    counted, clock = fleet.dead_counts, FakeClock()

    async def slow(principal: Principal, where: DeadFilter) -> list[DeadCount]:
        nonlocal made
        made += 1
        clock.advance(0.2)
        return await counted(principal, where)

    monkeypatch.setattr(fleet, "dead_counts", slow)
    letters = DeadLetters(fleet, clock)
    ask = Ask(Principal("ann"), "0" * 32, {}, {})
    ask._query = DeadCountQuery()
    ask._body = DiscardRequest(ids=("nobody",))
    for _ in range(5):
        await letters.count(ask)
    assert made == 1
    await letters.discard(ask)
    await letters.count(ask)
    assert made == 2
