"""What attempts spent on models: booked once, whatever became of the attempt, and summed up for reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, again, failure, new, release_of, released, success
from orchestrator.ledger.values import Booking, Cost, CostsBy, CostsQuery, Purge, Settlement
from tasks.invocation import State
from tasks.outcome import Outcome
from tasks.spend import Spend, Spent

SONNET = Spend("claude-sonnet-5", 2, 1000, 200, 50, 10, cost_usd=0.25)
GLM = Spend("glm-5", 1, 10, 5, cost_usd=None, is_estimated=True)
DAY_S = 86_400.0


async def run_of(
    ledger: Ledger, invocation: str, spent: Spent, *, node: str = "n1", at: float = AT, **call: object
) -> str:
    """One call that succeeded, with its bill."""
    (one,) = await accepted(ledger, new(invocation_id=invocation, **call))
    await released(ledger, [one], node=node)
    await ledger.settle([replace(success(one, node=node), spent=spent, at=at)])
    return one


def asked(by: CostsBy = CostsBy.PROJECT, *, tenant: str = "default", **more: object) -> CostsQuery:
    """A report of all time."""
    query = CostsQuery(by, tenant, 0.0, AT + 1e6)
    return replace(query, **more)  # type: ignore[arg-type]


async def test_every_ending_keeps_its_bill(ledger: Ledger) -> None:
    """Succeeded, failed, cancelled and waiting for another try: money is spent all the same."""
    ids = await accepted(ledger, *(new(invocation_id=f"call-{number}") for number in range(4)))
    await released(ledger, ids)
    cancelled = Settlement(ids[2], 1, "n1", State.CANCELLED, "cancelled", AT, outcome=Outcome("cancelled"))
    ends = [success(ids[0]), failure(ids[1]), cancelled, again(ids[3])]
    settled = await ledger.settle([replace(end, spent=(SONNET, GLM)) for end in ends])
    assert [one.booked for one in settled] == [(SONNET, GLM)] * 4
    for one in ids:
        assert [row.spend for row in await ledger.spend_of(one)] == [SONNET, GLM]
    _, total = await ledger.costs(asked())
    assert (total.calls, total.requests, total.cost_usd, total.unpriced_requests) == (4, 12, 1.0, 4)


async def test_an_outcome_that_is_told_twice_counts_once(ledger: Ledger) -> None:
    """The second settlement does not take, and its bill adds nothing."""
    one = await run_of(ledger, "call-once", (SONNET,))
    (second,) = await ledger.settle([replace(success(one), spent=(SONNET,))])
    assert (second.took, second.booked) == (False, ())
    assert (await ledger.costs(asked()))[1].cost_usd == 0.25


async def test_what_was_told_ahead_is_part_of_the_end(ledger: Ledger) -> None:
    """A total that grew replaces the one before; what is told late and is less changes nothing."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    early = replace(SONNET, requests=1, input=400, cost_usd=0.1)
    assert await ledger.book([Booking(one, 1, "n1", AT, (early,))]) == [(early,)]
    (settled,) = await ledger.settle([replace(success(one), spent=(SONNET,))])
    assert [(new.requests, new.input) for new in settled.booked] == [(1, 600)]
    assert settled.booked[0].cost_usd == pytest.approx(0.15)
    assert await ledger.book([Booking(one, 1, "n1", AT, (early,))]) == [()]
    assert [row.spend for row in await ledger.spend_of(one)] == [SONNET]


async def test_a_superseded_attempts_bill_is_kept_beside_the_new_ones(ledger: Ledger) -> None:
    """The attempt is refused, its money was spent: both attempts count, each for its own node."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    await ledger.settle([again(one)])
    await released(ledger, [one], fence=1, node="n2")
    (stale,) = await ledger.settle([replace(success(one), spent=(SONNET,))])
    (good,) = await ledger.settle([replace(success(one, fence=2, node="n2"), spent=(SONNET,))])
    assert (stale.took, good.took) == (False, True)
    rows, total = await ledger.costs(asked(CostsBy.NODE))
    assert [(row.key, row.calls, row.cost_usd) for row in rows] == [("n1", 1, 0.25), ("n2", 1, 0.25)]
    assert (total.calls, total.requests) == (1, 4)


@pytest.mark.parametrize(
    ("node", "fence"), [pytest.param("n2", 1, id="another node"), pytest.param("n1", 7, id="no such attempt")]
)
async def test_nobody_books_on_anothers_attempt(ledger: Ledger, node: str, fence: int) -> None:
    """A node speaks for attempts that it had."""
    (one,) = await accepted(ledger, new())
    await released(ledger, [one])
    assert await ledger.book([Booking(one, fence, node, AT, (SONNET,))]) == [()]
    assert await ledger.spend_of(one) == []


async def test_a_report_groups_and_never_shows_an_unknown_price_as_nothing(ledger: Ledger) -> None:
    """By each kind; the dearest first, the unpriced with their number of requests and no cost."""
    await run_of(ledger, "call-shop", (SONNET,), project="shop", tool="claude_code.run")
    await run_of(ledger, "call-blog", (GLM,), node="n2", project="blog", tool="glm.chat", at=AT + DAY_S)
    await run_of(ledger, "call-bare", (GLM, SONNET), tool="glm.run", at=AT + DAY_S)
    rows, total = await ledger.costs(asked(CostsBy.PROJECT))
    sonnet = Cost("shop", 1, 2, 1000, 200, 50, 10, 0.25, 0, is_estimated=False)
    glm = Cost("blog", 1, 1, 10, 5, 0, 0, None, 1, is_estimated=True)
    assert rows == [
        replace(sonnet, key=None, requests=3, input=1010, output=205, unpriced_requests=1, is_estimated=True),
        sonnet,
        glm,
    ]
    assert total == Cost(None, 3, 6, 2020, 410, 100, 20, 0.5, 2, is_estimated=True)
    keys = {by: [row.key for row in (await ledger.costs(asked(by)))[0]] for by in CostsBy}
    assert keys == {
        CostsBy.PROJECT: [None, "shop", "blog"],
        CostsBy.MODEL: ["claude-sonnet-5", "glm-5"],
        CostsBy.NODE: ["n1", "n2"],
        CostsBy.TOOL: ["glm.run", "claude_code.run", "glm.chat"],
        CostsBy.DAY: ["2027-01-15", "2027-01-16"],
    }


async def test_a_report_keeps_to_its_time_its_project_and_its_tenant(ledger: Ledger) -> None:
    """From `since` until before `until`; another tenant's money is nobody's business."""
    await run_of(ledger, "call-early", (SONNET,), project="shop")
    await run_of(ledger, "call-later", (SONNET,), project="blog", at=AT + 10)
    await run_of(ledger, "call-other", (SONNET,), project="shop", tenant="other")
    assert (await ledger.costs(asked(since=AT, until=AT + 10)))[1].calls == 1
    assert (await ledger.costs(asked(since=AT + 0.5)))[1].calls == 1
    assert [row.key for row in (await ledger.costs(asked(project="blog")))[0]] == ["blog"]
    assert (await ledger.costs(asked(tenant="other")))[1].calls == 1
    rows, total = await ledger.costs(asked(tenant="nobody"))
    assert (rows, total.calls, total.cost_usd, total.requests) == ([], 0, None, 0)
    assert len((await ledger.costs(asked(limit=1)))[0]) == 1


async def test_a_bill_outlives_its_call_and_an_id_that_is_used_again(ledger: Ledger) -> None:
    """Forgetting the call leaves the books as they are; the same id later is another line in them."""
    await run_of(ledger, "call-again", (SONNET,))
    await ledger.purge(Purge(0, 100, AT + 1000, AT + 1000))
    assert (await ledger.costs(asked()))[1].cost_usd == 0.25
    await accepted(ledger, new(invocation_id="call-again"))
    epoch = await ledger.take_epoch("orchestrator-1", 10.0)
    assert epoch is not None
    await ledger.release([release_of("call-again", at=AT + 500)], epoch)
    await ledger.settle([replace(success("call-again"), spent=(SONNET,))])
    assert (await ledger.costs(asked()))[1].cost_usd == 0.5
    assert [row.spend for row in await ledger.spend_of("call-again")] == [SONNET]


async def test_old_bills_go_a_slice_at_a_time(ledger: Ledger) -> None:
    """The oldest first, none that is younger than asked for; no slice that never ends."""
    for number in range(5):
        await run_of(ledger, f"call-no-{number}", (SONNET,), at=AT + number)
    assert [await ledger.forget_spend(AT + 3, 1) for _ in range(3)] == [2, 1, 0]
    assert (await ledger.costs(asked()))[1].calls == 2


async def test_a_wild_clock_makes_no_row_that_breaks_reports(ledger: Ledger) -> None:
    """A time that no calendar has is the end of the calendar."""
    await run_of(ledger, "call-wild", (SONNET,), at=1e300)
    rows, _ = await ledger.costs(CostsQuery(CostsBy.DAY, "default", 0.0, 1e301))
    assert [row.key for row in rows] == ["9999-12-31"]
