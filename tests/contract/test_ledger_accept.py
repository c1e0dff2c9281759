"""Accepting: durable, whole or not at all, and once per idempotency key."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator.ledger.errors import Unstorable
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, accepted, new, released
from orchestrator.ledger.values import Accepted, Filter, NewInvocation
from tasks.errors import IdempotencyConflict, NotFound, WrongState
from tasks.invocation import Call, Lane, Principal, State
from tasks.retry import RetryPolicy
from tasks.testing.clock import FakeClock

FULL = Call(
    tool="git.git_log",
    arguments_json='{"path":"/srv/ä","n":3}',
    project="shop",
    requires=frozenset({"git", "gpu"}),
    pool="big",
    lane=Lane.AGENTS,
    priority=9,
    not_before=AT + 0.1,
    expires_at=AT + 60.123456,
    timeout_s=12.5,
    retry=RetryPolicy(attempts=5, first_wait_s=0.5, retry_tool_errors=True),
    idempotency_key="k-1",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    then=(Call(tool="a.b", requires=frozenset({"x"}), then=(Call(tool="c.d", lane=Lane.TOOLS, into="text"),)),),
    into="previous",
    invocation_id="chosen-by-the-caller",
    meta_json='{"_meta":{"progressToken":1}}',
)


def with_call(call: Call, **changes: object) -> NewInvocation:
    """A row to accept for exactly this call."""
    row = new(invocation_id=call.invocation_id, tenant="acme")
    principal = Principal("ann", "acme", frozenset({"admin", "caller"}))
    return replace(row, invocation=replace(row.invocation, call=call, principal=principal), **changes)


async def total(ledger: Ledger) -> int:
    """How many Invocations there are."""
    return len((await ledger.listing(Filter(), limit=1000))[0])


@pytest.mark.parametrize("call", [FULL, Call(tool="a.b")], ids=["every field", "none"])
async def test_what_was_accepted_reads_back_equal(ledger: Ledger, call: Call) -> None:
    """Every field of a call, its chain and its principal come back as they went in."""
    row = with_call(call)
    await ledger.accept([row])
    assert await ledger.get(row.invocation.id) == row.invocation


async def test_accepted_survives_a_restart(ledger: Ledger, ledger_url: str, clock: FakeClock) -> None:
    """What accept answered is there after the process ended."""
    row = new()
    await ledger.accept([row])
    await ledger.close()
    reopened = await Ledger.open(ledger_url, clock=clock)
    assert await reopened.get(row.invocation.id) == row.invocation
    await reopened.close()


async def test_a_repeated_key_gives_the_old_row(ledger: Ledger) -> None:
    """The same key with the same call is the same Invocation, however often."""
    first = new(idempotency_key="k")
    assert await ledger.accept([first]) == [Accepted(first.invocation.id, is_new=True)]
    assert await ledger.accept([new(idempotency_key="k")]) == [Accepted(first.invocation.id, is_new=False)]
    assert await total(ledger) == 1


async def test_a_repeated_key_within_one_set_is_one_row(ledger: Ledger) -> None:
    """A batch that carries a key twice makes one Invocation of it."""
    first = new(idempotency_key="k")
    again = new(idempotency_key="k")
    assert await ledger.accept([first, again]) == [
        Accepted(first.invocation.id, is_new=True),
        Accepted(first.invocation.id, is_new=False),
    ]


async def test_racing_callers_with_one_key_share_one_row(ledger: Ledger) -> None:
    """Twenty callers at once with one key: one is new, all get its id."""
    answers = await asyncio.gather(*(ledger.accept([new(idempotency_key="k")]) for _ in range(20)))
    assert sum(one.is_new for (one,) in answers) == 1
    assert len({one.invocation_id for (one,) in answers}) == 1


async def test_a_key_belongs_to_its_tenant(ledger: Ledger) -> None:
    """Two tenants may choose the same key."""
    answers = await ledger.accept([new(idempotency_key="k"), new(idempotency_key="k", tenant="acme")])
    assert [one.is_new for one in answers] == [True, True]


async def test_a_key_for_another_call_is_refused_whole(ledger: Ledger) -> None:
    """A conflict keeps nothing of its set, and names the Invocation that has the key."""
    first, other = new(idempotency_key="k"), new()
    await ledger.accept([first])
    with pytest.raises(IdempotencyConflict, match=first.invocation.id):
        await ledger.accept([other, new(idempotency_key="k", digest="another call")])
    with pytest.raises(NotFound):
        await ledger.get(other.invocation.id)


async def test_a_conflict_leaves_its_neighbours_alone(ledger: Ledger) -> None:
    """In one commit, a refused set takes nothing from those before and after it."""
    await ledger.accept([new(idempotency_key="k")])
    shared, last = new(idempotency_key="shared"), new()
    answers = await asyncio.gather(
        ledger.accept([new(idempotency_key="shared"), new(idempotency_key="k", digest="another call")]),
        ledger.accept([shared]),
        ledger.accept([last]),
        return_exceptions=True,
    )
    assert isinstance(answers[0], IdempotencyConflict)
    assert answers[1:] == [
        [Accepted(shared.invocation.id, is_new=True)],
        [Accepted(last.invocation.id, is_new=True)],
    ]
    assert await total(ledger) == 3


async def test_a_known_id_is_a_repetition(ledger: Ledger) -> None:
    """An id that the caller chose works like a key: the same call again is the same Invocation."""
    row = new(invocation_id="celery-task-id")
    await ledger.accept([row])
    assert await ledger.accept([row]) == [Accepted("celery-task-id", is_new=False)]


@pytest.mark.parametrize("changes", [{"digest": "another call"}, {"tenant": "acme"}])
async def test_a_known_id_for_another_call_is_refused(ledger: Ledger, changes: dict[str, str]) -> None:
    """An id stands for one call of one tenant."""
    await ledger.accept([new(invocation_id="celery-task-id")])
    with pytest.raises(IdempotencyConflict):
        await ledger.accept([new(invocation_id="celery-task-id", **changes)])


async def test_a_key_and_an_id_of_different_rows_are_refused(ledger: Ledger) -> None:
    """A call cannot be two Invocations at once."""
    await ledger.accept([new(invocation_id="the-first-id"), new(idempotency_key="k", digest="another call")])
    with pytest.raises(IdempotencyConflict):
        await ledger.accept([new(invocation_id="the-first-id", idempotency_key="k")])


async def test_big_arguments_are_kept_by_reference(ledger: Ledger) -> None:
    """Arguments over the inline limit come back as their blob, to readers and to deliveries."""
    ids = await accepted(ledger, new(arguments_json="", blob="sha256-1"), new(arguments_json='{"a":1}'))
    assert [await ledger.arguments_of(one) for one in ids] == [(None, "sha256-1"), ('{"a":1}', None)]
    found = await released(ledger, ids)
    assert [(one.arguments_json, one.arguments_blob) for one in found] == [(None, "sha256-1"), ('{"a":1}', None)]


async def test_only_what_waits_can_be_accepted(ledger: Ledger) -> None:
    """An Invocation enters the ledger at its first state."""
    row = new()
    with pytest.raises(WrongState):
        await ledger.accept([replace(row, invocation=replace(row.invocation, state=State.SUCCEEDED))])


async def test_a_value_the_database_refuses_fails_alone(ledger: Ledger) -> None:
    """Text that cannot be stored is refused clearly, and its neighbours are accepted."""
    good = new()
    answers = await asyncio.gather(
        ledger.accept([new(project="\ud800")]), ledger.accept([good]), return_exceptions=True
    )
    assert isinstance(answers[0], Unstorable)
    assert answers[1] == [Accepted(good.invocation.id, is_new=True)]


async def test_another_tenants_row_is_not_found(ledger: Ledger) -> None:
    """A tenant learns nothing of another's Invocations."""
    (one,) = await accepted(ledger, new(tenant="acme"))
    with pytest.raises(NotFound):
        await ledger.get(one, "default")
    assert (await ledger.get(one, "acme")).id == one
