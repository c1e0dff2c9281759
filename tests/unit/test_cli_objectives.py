"""`mcpfleet objectives`: what it prints of what is measured, and of what is not."""

from __future__ import annotations

import io
import json

import httpx

from orchestrator.cli.exits import Exit
from orchestrator.cli.main import run
from orchestrator.testing.objectives import objectives_of
from tasks.testing.clock import FakeClock

ENVIRON = {"MCPFLEET_URL": "http://fleet.test", "MCPFLEET_TOKEN": "not-a-secret"}


def asked(*words: str) -> tuple[int, str, str]:
    """Status and both outputs; one call in two was failed by the fleet, and nothing else is known."""
    objectives = objectives_of(FakeClock())
    tally = objectives.tallies["availability"]
    for is_good in (True, False):
        tally.judged(is_good=is_good, now_s=1.0)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/objectives"
        return httpx.Response(200, content=objectives.show().model_dump_json())

    out, err = io.StringIO(), io.StringIO()
    transport = httpx.MockTransport(answer)
    words = ("objectives", *words)
    code = run(words, environ=ENVIRON, out=out, err=err, stdin=io.BytesIO(), transport=transport)
    return code, out.getvalue(), err.getvalue()


def test_a_row_for_each_and_no_number_where_none_is_known() -> None:
    """A budget that is overspent says so; without samples nothing looks like a good result."""
    status, out, err = asked()
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert status == Exit.OK
    assert "99.9 %" in rows["availability"]
    assert "50 %" in rows["availability"]
    assert "-49,900 % spent" in rows["availability"]
    assert "no samples" in rows["failover"]
    assert "measured by this orchestrator since" in err


def test_json_is_what_the_api_said() -> None:
    """For scripts, with nulls."""
    _, out, err = asked("--json")
    items = {one["name"]: one for one in json.loads(out)["items"]}
    assert items["availability"]["bad"] == 1
    assert items["short_calls_p50"]["budget_left"] is None
    assert not err
