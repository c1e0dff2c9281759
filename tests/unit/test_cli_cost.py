"""`mcpfleet cost`, and the money in `mcpfleet show`: what they print, and their exit status."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import httpx
import pytest

from orchestrator.cli.cost import spent_lines, usd
from orchestrator.cli.exits import Exit
from orchestrator.cli.main import run
from tasks.wire import SpendView
from tasks.wire_costs import CostsView, CostView

SHOP = CostView(
    key="shop", calls=2, requests=1234, input_tokens=10_000, output_tokens=50, cache_read_tokens=9,
    cache_write_tokens=0, cost_usd=12.5, unpriced_requests=0, is_estimated=False,
)  # fmt: skip
BARE = SHOP.model_copy(update={"key": None, "cost_usd": None, "unpriced_requests": 1234})
TOTAL = SHOP.model_copy(update={"key": None, "unpriced_requests": 1234, "is_estimated": True})
Answered = tuple[int, str, str, list[httpx.URL]]


@pytest.fixture
def cost() -> Callable[..., Answered]:
    """The command against an orchestrator that answers with these rows: status, both outputs, what was asked."""

    def ran(*words: str, rows: tuple[CostView, ...] = (SHOP, BARE), status: int = 200) -> Answered:
        asked: list[httpx.URL] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.url)
            total = TOTAL if rows else TOTAL.model_copy(update={"unpriced_requests": 0})
            view = CostsView(by="project", since=1.0, until=None, rows=list(rows), total=total)
            return httpx.Response(status, content=view.model_dump_json())

        out, err = io.StringIO(), io.StringIO()
        environ = {"MCPFLEET_URL": "http://fleet.test", "MCPFLEET_TOKEN": "not-a-secret"}
        transport = httpx.MockTransport(answer)
        code = run(["cost", *words], environ=environ, out=out, err=err, stdin=io.BytesIO(), transport=transport)
        return code, out.getvalue(), err.getvalue(), asked

    return ran


def test_unknown_prices_are_unknown_and_never_nothing(cost: Callable[..., Answered]) -> None:
    """A row without a price, a sum that lacks some, and how many requests that is."""
    status, out, err, _ = cost()
    head, shop, bare, total = (line.split("  ") for line in out.splitlines())
    assert status == Exit.OK
    assert head[0] == "PROJECT"
    assert (shop[0], shop[-1].strip()) == ("shop", "$12.50")
    assert (bare[0], bare[-1].strip()) == ("(none)", "unknown")
    assert (total[0], total[-1].strip()) == ("in all", "~$12.50 + unknown")
    assert "$0" not in out
    assert "1,234 requests to models without a price" in err


def test_the_time_and_the_grouping_are_asked_for(cost: Callable[..., Answered]) -> None:
    """Seconds since the epoch on the wire; days are said to be UTC, other times local."""
    _, out, err, (url,) = cost("--by", "day", "--since", "7d", "--until", "1d", "--project", "shop")
    asked = url.params
    assert (asked["by"], asked["project"]) == ("day", "shop")
    assert float(asked["until"]) - float(asked["since"]) == pytest.approx(6 * 86_400)
    assert out.startswith("DAY (UTC)")
    assert "local time" in err


def test_json_is_what_the_api_said(cost: Callable[..., Answered]) -> None:
    """The whole view, for scripts, with null for what nobody knows."""
    _, out, err, _ = cost("--json")
    assert CostsView.model_validate_json(out).rows == [SHOP, BARE]
    assert json.loads(out)["rows"][1]["cost_usd"] is None
    assert err == ""


def test_nothing_spent_is_said_on_stderr(cost: Callable[..., Answered]) -> None:
    """A script reads an empty table."""
    status, out, err, _ = cost(rows=())
    assert (status, out) == (Exit.OK, "")
    assert "nothing was spent" in err


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--by", "colour"), id="no such grouping"),
        pytest.param(("--since", "yesterday"), id="a word"),
        pytest.param(("--since", "-7d"), id="the future"),
        pytest.param(("--since", ""), id="nothing"),
        pytest.param(("--since", "25:00"), id="no such hour"),
        pytest.param(("--since", "2026-13-01"), id="no such month"),
        pytest.param(("--since", "0001-01-01"), id="before all calendars"),
        pytest.param(("--since", "99999999999999999d"), id="before the epoch"),
        pytest.param(("--since", "9" * 400 + "d"), id="no number"),
        pytest.param(("--until", "8d"), id="an end before the beginning"),
        pytest.param(("today",), id="one word too many"),
    ],
)
def test_wrong_words_are_one_line_and_status_two(cost: Callable[..., Answered], words: tuple[str, ...]) -> None:
    """No traceback, and the fleet is not asked."""
    status, out, err, asked = cost(*words)
    assert (status, out, asked) == (Exit.USAGE, "", [])
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("cost_usd", "shown"),
    [(0.0, "$0.00"), (0.00001, "<$0.0001"), (0.0123, "$0.0123"), (1.0, "$1.00"), (1234.5, "$1,234.50")],
)
def test_money_is_shown_to_what_matters(cost_usd: float, shown: str) -> None:
    """A run costs cents; a small cost is not none."""
    assert usd(cost_usd) == shown


def test_a_calls_money_is_a_line_for_each_model() -> None:
    """All attempts of it together, what was read from a cache too."""
    sonnet = SpendView(
        fence=1, node="n1", model="claude", requests=1, input_tokens=1000, output_tokens=5, cache_read_tokens=7,
        cache_write_tokens=0, cost_usd=0.25, is_estimated=False,
    )  # fmt: skip
    other = sonnet.model_copy(update={"fence": 2, "node": "n2", "cost_usd": 0.5})
    glm = sonnet.model_copy(update={"model": "glm-5", "cost_usd": None, "cache_read_tokens": 0})
    assert spent_lines([sonnet, other, glm]) == [
        "$0.7500 claude: 2 requests, 2,000 in, 10 out, 14 from cache, 2 attempts",
        "unknown glm-5: 1 request, 1,000 in, 5 out",
    ]
    assert spent_lines([]) == []
