"""GET /v1/costs and what one Invocation says of its money."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger.values import Cost, CostsBy, SpendRow
from orchestrator.testing.doors import OPERATOR_TOKEN
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import door
from orchestrator.testing.money import MemoryMoney
from tasks.spend import Spend
from tasks.wire import InvocationView
from tasks.wire_costs import CostsView

SHOP = Cost("shop", 2, 3, 1000, 50, 10, 0, 0.5, 0, is_estimated=False)
BLOG = Cost("blog", 1, 4, 20, 5, 0, 0, None, 4, is_estimated=True)
TOTAL = Cost(None, 3, 7, 1020, 55, 10, 0, 0.5, 4, is_estimated=True)


async def test_a_report_says_what_is_unknown() -> None:
    """A cost without a price is null beside the number of its requests, in a row as in the sum."""
    async with door(token=OPERATOR_TOKEN, money=MemoryMoney([SHOP, BLOG], TOTAL)) as client:
        answer = await client.get("/v1/costs", params={"by": "project", "since": 5, "until": 9})
    view = CostsView.model_validate_json(answer.content)
    assert [(row.key, row.cost_usd, row.unpriced_requests) for row in view.rows] == [
        ("shop", 0.5, 0),
        ("blog", None, 4),
    ]
    assert (view.total.key, view.total.cost_usd, view.total.unpriced_requests) == (None, 0.5, 4)
    assert (view.by, view.since, view.until, view.is_cut) == ("project", 5.0, 9.0, False)


async def test_the_question_reaches_the_books_with_the_callers_tenant() -> None:
    """Grouping, time, project; a week where no time is said."""
    money = MemoryMoney()
    async with door(token=OPERATOR_TOKEN, money=money) as client:
        await client.get("/v1/costs?by=day&since=5&until=9&project=shop&limit=3")
        await client.get("/v1/costs")
    first, second = money.asked
    assert (first.by, first.tenant, first.since, first.until, first.project) == (CostsBy.DAY, "default", 5, 9, "shop")
    assert (second.by, second.project) == (CostsBy.PROJECT, None)
    assert second.since > 1e9


async def test_more_rows_than_were_asked_for_are_cut_and_said() -> None:
    """The sum is of all."""
    money = MemoryMoney([replace(SHOP, key=f"p-{number}") for number in range(5)], TOTAL)
    async with door(token=OPERATOR_TOKEN, money=money) as client:
        view = CostsView.model_validate_json((await client.get("/v1/costs?limit=4")).content)
    assert (len(view.rows), view.is_cut, view.total.calls) == (4, True, 3)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        pytest.param("by=colour", "by", id="no such grouping"),
        pytest.param("since=yesterday", "since", id="a word for a time"),
        pytest.param("since=nan", "since", id="no number"),
        pytest.param("until=inf", "until", id="no end"),
        pytest.param("since=10&until=10", "until", id="no time at all"),
        pytest.param("limit=0", "limit", id="no rows"),
        pytest.param("limit=1001", "limit", id="too many rows"),
        pytest.param("project=", "project", id="empty project"),
        pytest.param("project=%00", "project", id="NUL"),
        pytest.param("project=Shop", "project", id="no project's name"),
        pytest.param("by=day&by=node", "by", id="twice"),
        pytest.param("colour=red", "colour", id="unknown"),
    ],
)
async def test_a_wrong_question_is_named(query: str, named: str) -> None:
    """422 and which parameter; the books are not asked."""
    money = MemoryMoney()
    async with door(token=OPERATOR_TOKEN, money=money) as client:
        answer = await client.get(f"/v1/costs?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == named
    assert money.asked == []


async def test_one_invocation_shows_what_it_spent() -> None:
    """By attempt and model, where it alone is asked for; a listing asks no books."""
    fleet, money = FakeFleet(), MemoryMoney()
    async with door(fleet, token=OPERATOR_TOKEN, money=money) as client:
        made = InvocationView.model_validate_json(
            (await client.post("/v1/invocations", json={"tool": "probe.echo"})).content
        )
        money.spent[made.id] = [SpendRow(1, "n1", 5.0, Spend("glm-5", 2, 10, 5, 3, 1))]
        shown = InvocationView.model_validate_json((await client.get(f"/v1/invocations/{made.id}")).content)
        listed = (await client.get("/v1/invocations")).json()["items"]
    (spent,) = shown.spent
    assert (spent.fence, spent.node, spent.model, spent.requests) == (1, "n1", "glm-5", 2)
    assert (spent.input_tokens, spent.output_tokens, spent.cache_read_tokens, spent.cache_write_tokens) == (10, 5, 3, 1)
    assert spent.cost_usd is None
    assert [one["spent"] for one in listed] == [[]]
