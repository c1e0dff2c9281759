"""Questions: pages that miss and repeat nothing, filters, and what a starting orchestrator loads."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, failure, new, release_of, released, success
from orchestrator.ledger.values import Filter, NewInvocation, Outstanding, Started
from tasks.errors import InvalidCall
from tasks.invocation import Call, Invocation, Lane, Principal, State


async def all_pages(ledger: Ledger, where: Filter, limit: int) -> list[Invocation]:
    """Every page after the other."""
    found, cursor = await ledger.listing(where, cursor=None, limit=limit)
    while cursor is not None:
        page, cursor = await ledger.listing(where, cursor=cursor, limit=limit)
        assert page, "a cursor led to an empty page"
        found += page
    return found


async def test_the_listing_is_newest_first_also_with_chosen_ids(ledger: Ledger) -> None:
    """The order is that of acceptance, which an id that a caller chose does not tell."""
    rows = [new(invocation_id=name) for name in ("mmmmmmmm", "zzzzzzzz", "aaaaaaaa", "kkkkkkkk")]
    for row in rows:
        await ledger.accept([row])
    found = await all_pages(ledger, Filter(), limit=3)
    assert [one.id for one in found] == [row.invocation.id for row in rows][::-1]


async def test_a_page_is_not_shifted_by_what_comes_meanwhile(ledger: Ledger) -> None:
    """Calls accepted while somebody turns pages neither repeat nor hide a row."""
    ids = await accepted(ledger, *(new() for _ in range(4)))
    first, cursor = await ledger.listing(Filter(), cursor=None, limit=2)
    await accepted(ledger, new(), new(), new())
    second, end = await ledger.listing(Filter(), cursor=cursor, limit=2)
    assert [one.id for one in first + second] == ids[::-1]
    assert end is None


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1; DROP TABLE", "9" * 40, "\u0661"])
async def test_a_made_up_cursor_is_refused(ledger: Ledger, cursor: str) -> None:
    """What no listing gave is an error that says so, not an empty page."""
    with pytest.raises(InvalidCall, match="cursor"):
        await ledger.listing(Filter(), cursor=cursor, limit=2)
    with pytest.raises(InvalidCall, match="cursor"):
        await ledger.dead_letters(tenant=None, cursor=cursor)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(), "edcba"),
        (Filter(tenant="acme"), "e"),
        (Filter(project="shop"), "cba"),
        (Filter(tool="time.now"), "ed"),
        (Filter(node="n1"), "cb"),
        (Filter(states=frozenset({State.WAITING})), "eda"),
        (Filter(states=frozenset({State.SUCCEEDED, State.FAILED})), "cb"),
        (Filter(states=frozenset({State.LOST})), ""),
        (Filter(since=AT + 3), "ed"),
        (Filter(project="shop", states=frozenset({State.FAILED}), tenant="default"), "c"),
    ],
)
async def test_filters_narrow_the_listing(ledger: Ledger, where: Filter, expected: str) -> None:
    """Each filter keeps what it names, and all of them together what all name."""
    given = [("a", "shop"), ("b", "shop"), ("c", "shop"), ("d", None), ("e", None)]
    rows = [
        new(
            invocation_id=name * 8,
            project=project,
            at=AT + number,
            tool="git.git_log" if project else "time.now",
            tenant="acme" if name == "e" else "default",
        )
        for number, (name, project) in enumerate(given)
    ]
    await ledger.accept(rows)
    await released(ledger, ["b" * 8, "c" * 8])
    await ledger.settle([success("b" * 8), failure("c" * 8)])
    assert "".join(one.id[0] for one in await all_pages(ledger, where, limit=2)) == expected


async def test_the_listing_is_light(ledger: Ledger) -> None:
    """No arguments, no result; the latest attempt only, the ending and the error."""
    (one,) = await accepted(ledger, new(arguments_json='{"secret":1}'))
    await released(ledger, [one])
    await ledger.settle([failure(one)])
    (listed,), _ = await ledger.listing(Filter(), cursor=None, limit=10)
    whole = await ledger.get(one)
    assert listed == replace(whole, call=replace(whole.call, arguments_json="{}"))


async def test_waiting_pages_cover_everything_once(ledger: Ledger) -> None:
    """A starting dispatcher sees each waiting call once, in the order of acceptance."""
    rows = [new(invocation_id=f"{(number * 7) % 10:08}") for number in range(10)]
    ids = await accepted(ledger, *rows)
    await released(ledger, ids[3:5])
    seen: list[str] = []
    while page := await ledger.waiting(after=seen[-1] if seen else None, limit=3):
        seen += [one.id for one in page]
    assert seen == ids[:3] + ids[5:]


async def test_waiting_has_what_the_dispatcher_keeps(ledger: Ledger) -> None:
    """Everything that placement looks at, and nothing of the arguments."""
    row = new(
        project="shop",
        requires=frozenset({"git"}),
        pool="big",
        lane=Lane.AGENTS,
        priority=7,
        not_before=AT + 1,
        expires_at=AT + 2,
        then=(Call(tool="a.b"),),
    )
    await ledger.accept([row, new()])
    first, second = await ledger.waiting()
    assert (first.id, first.tool, first.project, first.tenant) == (row.invocation.id, "git.git_log", "shop", "default")
    assert (first.lane, first.requires, first.pool, first.priority) == (Lane.AGENTS, frozenset({"git"}), "big", 7)
    assert (first.accepted_at, first.not_before, first.expires_at) == (AT, AT + 1, AT + 2)
    assert (first.fence, first.tries, first.is_chained, second.is_chained) == (0, 0, True, False)


async def test_outstanding_is_what_was_released_and_not_settled(ledger: Ledger) -> None:
    """Credit and inventories are derived from exactly these."""
    row = new(project="shop", expires_at=AT + 9, then=(Call(tool="a.b"),))
    one, _, ended = await accepted(ledger, row, new(), new())
    await released(ledger, [one, ended])
    await ledger.mark_started([Started(one, 1, "n1", AT + 1)])
    await ledger.settle([success(ended)])
    assert await ledger.outstanding() == [
        Outstanding(
            invocation_id=one,
            fence=1,
            node="n1",
            incarnation="inc-1",
            term=1,
            pool="default",
            lane=Lane.TOOLS,
            tool="git.git_log",
            project="shop",
            state=State.RUNNING,
            released_at=AT,
            started_at=AT + 1,
            expires_at=AT + 9,
            cancel_requested=False,
            tries=0,
            is_chained=True,
        )
    ]


async def test_readers_see_what_was_just_committed(ledger: Ledger) -> None:
    """Whoever was answered can read what he was told, from any of the readers."""

    async def walk(row: NewInvocation) -> State:
        (one,) = await accepted(ledger, row)
        await released(ledger, [one])
        await ledger.settle([success(one)])
        return (await ledger.get(one)).state

    states = await asyncio.gather(*(walk(new()) for _ in range(30)))
    assert set(states) == {State.SUCCEEDED}


async def test_a_read_beside_writes_is_of_one_piece(ledger: Ledger) -> None:
    """An Invocation never shows an attempt past its fence."""
    (one,) = await accepted(ledger, new())
    epoch = await ledger.take_epoch("orchestrator-1", 10.0)
    assert epoch is not None

    async def write() -> None:
        for fence in range(20):
            await ledger.release([release_of(one, fence=fence)], epoch)
            await ledger.settle(
                [replace(failure(one, fence=fence + 1), to=State.WAITING, outcome=None, dead_reason=None)]
            )

    writing = asyncio.create_task(write())
    while not writing.done():
        seen = await ledger.get(one)
        assert [attempt.fence for attempt in seen.attempts] == list(range(1, seen.fence + 1))
    await writing


def by(principal: str) -> NewInvocation:
    """A call of somebody's."""
    row = new()
    return replace(row, invocation=replace(row.invocation, principal=Principal(principal)))


async def test_filters_by_who_called_and_how_long_it_took(ledger: Ledger) -> None:
    """One that has not ended has lasted until now."""
    rows = [by(name) for name in ("ann", "bob", "ann")]
    ids = await accepted(ledger, *rows)
    found = await all_pages(ledger, Filter(principal="ann"), limit=1)
    assert [one.id for one in found] == [ids[2], ids[0]]
    at = (await ledger.get(ids[0])).accepted_at
    assert len(await all_pages(ledger, Filter(took_s=5.0, now=at + 6.0), limit=2)) == 3
    assert await all_pages(ledger, Filter(took_s=5.0, now=at + 4.0), limit=2) == []


async def test_several_states_are_listed_as_one(ledger: Ledger) -> None:
    """In the order of acceptance, a page at a time, none twice and none left out."""
    ids = await accepted(ledger, *(new() for _ in range(7)))
    for one in ids[::2]:
        await ledger.cancel(one, "default", AT)
    both = Filter(states=frozenset({State.WAITING, State.CANCELLED}))
    for limit in (1, 2, 3, 7, 9):
        assert [one.id for one in await all_pages(ledger, both, limit=limit)] == ids[::-1]


async def test_a_page_looks_only_so_far_back_and_its_cursor_leads_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no index finds is looked for in a window: none is left out by whoever follows the cursors."""
    monkeypatch.setattr("orchestrator.ledger.horizon.WINDOW_ROWS", 4)
    ids = await accepted(ledger, *(by("rare" if n in {0, 9} else "often") for n in range(20)))
    found, cursor, pages = [], None, 0
    while True:
        page, cursor = await ledger.listing(Filter(principal="rare"), cursor=cursor, limit=3)
        found += [one.id for one in page]
        pages += 1
        if cursor is None:
            break
    assert found == [ids[9], ids[0]]
    assert pages == 5


async def test_a_time_is_found_by_halves(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of rows, and with rows gone in between."""
    monkeypatch.setattr("orchestrator.ledger.horizon.SLACK_S", 0.0)
    ids = await accepted(ledger, *(new(at=AT + n) for n in range(9)))
    for since in range(-1, 11):
        found = await all_pages(ledger, Filter(since=AT + since), limit=2)
        assert [one.id for one in found] == ids[max(since, 0) :][::-1], since


async def test_what_goes_on_in_a_lane_is_found_however_old_it_is(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's run is older than a thousand short calls; of what ended, a page looks only so far back."""
    monkeypatch.setattr("orchestrator.ledger.horizon.WINDOW_ROWS", 4)
    run, ended = await accepted(ledger, new(lane=Lane.AGENTS), new(lane=Lane.AGENTS))
    await ledger.cancel(ended, "default", AT)
    await accepted(ledger, *(new() for _ in range(10)))
    going, following = await ledger.listing(Filter(lane=Lane.AGENTS, states=frozenset({State.WAITING, State.RUNNING})))
    assert ([one.id for one in going], following) == ([run], None)
    over = Filter(lane=Lane.AGENTS, states=frozenset({State.CANCELLED, State.FAILED}))
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page, cursor = await ledger.listing(over, cursor=cursor, limit=3)
        found += [one.id for one in page]
        pages += 1
    assert (found, pages) == ([ended], 3)
