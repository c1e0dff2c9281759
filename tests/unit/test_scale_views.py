"""What the autoscaler tells of itself, and the two words it takes: override and dry-run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.autoscaler.book.pool_book import FLEET, PoolBook
from orchestrator.autoscaler.decide.history import History
from orchestrator.autoscaler.show.money import DAY_S, midnight, spent_eur
from orchestrator.autoscaler.show.shown import HELD_MAX_S, replayed
from orchestrator.autoscaler.show.views import NO_LADDER
from orchestrator.autoscaler.values import Decision, Override
from orchestrator.ledger.values import ScaleLogRow, ScalePoolRow
from orchestrator.testing.doors import CLIENT_TOKEN, OPERATOR_TOKEN
from orchestrator.testing.http import door
from orchestrator.testing.scaling import POLICY, POOL, MemoryScaleBooks, claims_at, scale_views
from tasks.errors import InvalidCall, LedgerDown, NotFound
from tasks.testing.clock import FakeClock


async def book_of(books: MemoryScaleBooks, clock: FakeClock, *, is_dry: bool = False) -> PoolBook:
    """As a leader finds it."""
    book = PoolBook(books=books, clock=clock, is_dry=is_dry)
    await book.load()
    return book


async def test_an_override_holds_until_it_expires_over_restarts() -> None:
    """A person's word is not forgotten because another orchestrator leads."""
    clock, books = FakeClock(), MemoryScaleBooks()
    held = Override(3, clock.wall_s() + 60, "ann")
    await (await book_of(books, clock)).set_override(POOL, held)
    book = await book_of(books, clock)
    assert book.override(POOL) == held
    clock.advance(60.0)
    assert book.override(POOL) is None


async def test_an_override_without_an_end_in_sight_is_refused() -> None:
    """A year 33658 is no expiry: for_s and until have the same limit."""
    views = scale_views(FakeClock())
    with pytest.raises(InvalidCall, match="give an end within 30"):
        await views.set_override(POOL, 3, 1e12, "ann")


async def test_one_row_keeps_what_each_part_remembers() -> None:
    """Who saves the history does not undo the override, and the other way round."""
    clock, books = FakeClock(), MemoryScaleBooks()
    book, override = await book_of(books, clock), Override(2, clock.wall_s() + 60)
    history = History(needs=((1.0, 2),))
    book.set_history(POOL, history)
    await book.set_override(POOL, override)
    await book.save_histories()
    await book.set_shape(POOL, "{}")
    again = await book_of(books, clock)
    assert (again.history(POOL), again.shapes(), again.override(POOL)) == (history, {POOL: "{}"}, override)
    await again.set_override(POOL, None)
    assert (again.override(POOL), again.history(POOL)) == (None, history)


async def test_what_cannot_be_read_is_passed_by() -> None:
    """A row of another release stops no orchestrator."""
    books = MemoryScaleBooks()
    books.pools[POOL] = ScalePoolRow(POOL, season_json="{", override_json='{"target":"many"}')
    book = await book_of(books, FakeClock())
    assert (book.history(POOL), book.override(POOL)) == (History(), None)


@pytest.mark.parametrize("by_file", [True, False])
async def test_dry_run_is_as_it_was_said_last_over_restarts(by_file: bool) -> None:
    """A fleet that was told to hold still does not wake up spending money; no pool's override comes of it."""
    clock, books = FakeClock(), MemoryScaleBooks()
    book = await book_of(books, clock, is_dry=by_file)
    assert book.is_dry is by_file
    await book.set_dry(not by_file)
    assert (await book_of(books, clock, is_dry=by_file)).is_dry is not by_file
    assert set(books.pools) == {FLEET}


async def test_what_the_ledger_refused_does_not_hold() -> None:
    """Memory never runs ahead of the ledger."""

    class Down(MemoryScaleBooks):
        async def save_scale_pool(self, row: ScalePoolRow) -> None:
            raise LedgerDown("it is away")

    clock = FakeClock()
    book = await book_of(Down(), clock)
    with pytest.raises(LedgerDown):
        await book.set_override(POOL, Override(2, clock.wall_s() + 60))
    with pytest.raises(LedgerDown):
        await book.set_dry(True)
    assert (book.override(POOL), book.is_dry) == (None, False)


async def test_without_a_ladder_it_says_so() -> None:
    """No empty table that leaves people guessing."""
    views = scale_views(FakeClock(), is_quiet=True)
    assert (await views.scale()).note == NO_LADDER
    for ask in (views.plan(None, {}), views.plan(POOL, {}), views.replay(POOL, 0.0, {}), views.clear_override(POOL)):
        with pytest.raises(InvalidCall, match="no pool is sized"):
            await ask


async def test_plan_decides_of_what_was_seen_last() -> None:
    """With other fields another decision; the override and the dry run are in it; nothing is kept."""
    clock = FakeClock()
    views = scale_views(clock)
    [now] = await views.plan(POOL, {})
    [other] = await views.plan(POOL, {"min_machines": 5})
    assert (now.decision.target, other.decision.target, now.seen.machines) == (1, 5, {"ready": 1})
    await views.set_override(POOL, 3, clock.wall_s() + 60, "ann")
    await views.set_dry(True)
    [overridden] = await views.plan(None, {})
    assert (overridden.decision.target, overridden.decision.is_dry) == (3, True)
    clock.advance(61.0)
    assert (await views.plan(POOL, {}))[0].decision.target == 1


async def test_replay_with_the_same_policy_is_what_was_decided() -> None:
    """The recorded decisions are the pure function of what was recorded: replay proves it."""
    views = scale_views(FakeClock())
    same = await views.replay(POOL, 0.0, {})
    assert (same.differs, same.was, same.unreadable) == (0, same.would, 0)
    threshold = await views.replay(POOL, 0.0, {"strategy": "threshold"})
    assert threshold.differs > 0
    assert threshold.steps[-1].reasons


async def test_a_record_of_another_release_is_passed_by_and_counted() -> None:
    """One row that cannot be read does not take the rest with it."""
    views = scale_views(FakeClock())
    views._books.rows.insert(0, ScaleLogRow(POOL, 1.0, '{"colour": "blue"}', "{}"))  # type: ignore[attr-defined]
    assert (await views.replay(POOL, 0.0, {})).unreadable == 1
    assert len(await views.log(POOL, None, None, 1000)) == 90


async def test_the_log_ends_where_it_is_asked_to() -> None:
    """The newest up to a moment, oldest first; an unknown pool is named with its near ones."""
    clock = FakeClock()
    views = scale_views(clock)
    until = clock.wall_s() - 3600.0
    found = await views.log(POOL, None, until, 3)
    assert [view.seen.at for view in found] == [until - 120.0, until - 60.0, until]
    with pytest.raises(NotFound, match="did you mean 'builders'"):
        await views.log("bilders", None, None, 3)


def test_a_target_counts_until_the_next_moment_and_not_through_a_gap() -> None:
    """Machine-hours of hours in which no orchestrator ran would be invented."""
    was = [Decision(POOL, 0.0, 1, 2), Decision(POOL, 180.0, 2, 2), Decision(POOL, 90_000.0, 2, 1)]
    steps, total, _ = replayed(was, was)
    assert (len(steps), total.machine_h, total.most, total.changes) == (3, 2 * (180 + HELD_MAX_S) / 3600, 2, 1)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/scale/override", {"pool": POOL, "target": 2, "for_s": 60}),
        ("DELETE", f"/v1/scale/override?pool={POOL}", None),
        ("POST", "/v1/scale/dry-run", {"is_dry": True}),
        ("POST", "/v1/scale/wind-down", None),
        ("POST", "/v1/enrolments", {"name": "n", "pool": POOL}),
        ("DELETE", "/v1/enrolments/n", None),
    ],
)
async def test_only_admins_steer(method: str, path: str, body: object) -> None:
    """A client sees why, and changes nothing."""
    async with door(token=CLIENT_TOKEN) as client:
        assert (await client.request(method, path, json=body)).status_code == 403
        for seen in ("/v1/scale", "/v1/scale/claims", "/v1/scale/log"):
            assert (await client.get(seen)).status_code == 200
        assert (await client.post("/v1/scale/plan", json={})).status_code == 200


@pytest.mark.parametrize(
    "end", [{}, {"until": 9e9, "for_s": 60}, {"until": 1.0}, {"for_s": 0}, {"for_s": 60, "target": -1}]
)
async def test_an_override_has_one_end_that_is_to_come(end: dict[str, float]) -> None:
    """No size by hand that nobody remembers in a month."""
    async with door(token=OPERATOR_TOKEN) as client:
        answer = await client.put("/v1/scale/override", json={"pool": POOL, "target": 2, **end})
        assert answer.status_code == 422, answer.text


async def test_a_pool_is_shown_with_prices_that_are_known() -> None:
    """A sum that leaves something out says so."""
    views = scale_views(FakeClock(), policies={POOL: replace(POLICY, budget_eur_h=0.1)})
    [pool] = (await views.scale()).pools
    assert (pool.machines, round(pool.cost_eur_h, 4), pool.unpriced) == ({"booting": 1, "ready": 1}, 0.0226, 0)


@pytest.mark.parametrize("time", ["nan", "NaN", "inf", "-Infinity", "1e999"])
@pytest.mark.parametrize("query", ["/v1/scale/log?since", "/v1/scale/log?until", "/v1/invocations?since"])
async def test_a_time_that_is_no_moment_is_refused(query: str, time: str) -> None:
    """Not an empty page, which would say that nothing was decided; the answer names the parameter."""
    async with door(token=OPERATOR_TOKEN) as client:
        answer = await client.get(f"{query}={time}")
    name = query.partition("?")[2]
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_call"), answer.text
    assert answer.json()["detail"] == f"{name}: write a finite number"


async def test_money_is_counted_from_midnight_and_for_a_week_of_what_is_gone_too() -> None:
    """Price times time, cut where the day begins; what has no price or was never made adds nothing."""
    clock = FakeClock()
    now = clock.wall_s()
    shown = await scale_views(clock).scale()
    (pool,) = shown.pools
    hours = (5400 + 40 + 1000) / 3600
    assert shown.cost_week_eur == pool.cost_week_eur == pytest.approx(hours * 0.0113)
    since_s = now - midnight(now)
    today = (min(5400, since_s) + min(40, since_s) + max(0, min(1000, since_s - 900))) / 3600
    assert shown.cost_today_eur == pytest.approx(today * 0.0113)


def test_a_machine_that_began_yesterday_costs_today_only_since_midnight() -> None:
    """The sum of two days is the sum of their parts."""
    (claim, *_) = claims_at(10 * DAY_S + 1800)
    whole = spent_eur([claim], 9 * DAY_S, 10 * DAY_S + 1800)
    today = spent_eur([claim], midnight(10 * DAY_S + 1800), 10 * DAY_S + 1800)
    assert (today, whole) == pytest.approx((0.5 * 0.0113, 1.5 * 0.0113))
    assert spent_eur([replace(claim, machine_id=None)], 0, 10 * DAY_S) == 0
