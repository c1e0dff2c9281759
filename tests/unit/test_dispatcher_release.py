"""The dispatcher's pass when the ledger fails: what was chosen goes back, and is chosen again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.dispatch import dispatcher as dispatcher_module
from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.dispatcher import Dispatcher
from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.dispatch.records import Address
from orchestrator.dispatch.testing import fleet_of, seat, waiting
from orchestrator.ledger.values import Outstanding, Release, Released
from tasks.envelope import Number
from tasks.errors import LedgerDown
from tasks.pool import PoolPolicy
from tasks.testing.clock import FakeClock


class FailingOnce:
    """A ledger that does not answer the first release."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def release(self, wanted: Sequence[Release], epoch: int) -> list[Released | None]:
        """Fails, then grants everything."""
        self.asked.append([one.invocation_id for one in wanted])
        if len(self.asked) == 1:
            raise LedgerDown("gone for a moment")
        return [_released(one) for one in wanted]

    async def expire(self, ids: Sequence[str], at: float) -> list[str]:
        """All of them."""
        return list(ids)


class Sent:
    """An outbox that remembers."""

    down_because = None

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.numbers: list[Number] = []

    def address(self, node: str) -> Address | None:
        """Every node is there."""
        return Address("inc", 1)

    def post(self, attempt: Outstanding, released: Released, queue: str, number: Number) -> None:
        """Remember it."""
        self.posted.append(attempt.invocation_id)
        self.numbers.append(number)


def _released(one: Release) -> Released:
    fields = {"tool": "t", "arguments_json": None, "arguments_blob": None, "project": None, "tenant": "default"}
    rest = {"expires_at": None, "timeout_s": None, "trace_id": None, "meta_json": None, "tries": 0}
    return Released(invocation_id=one.invocation_id, fence=one.expected_fence + 1, **fields, **rest)  # type: ignore[arg-type]


def dispatcher_on(books: FailingOnce, outbox: Sent, clock: FakeClock) -> Dispatcher:
    """Of one node with two slots, that leads."""
    view = fleet_of([seat("a1", slots=2)], PoolPolicy("east", prefetch=0))
    dispatcher = Dispatcher(
        books=books,  # type: ignore[arg-type]
        outbox=outbox,
        attempts=OpenAttempts(),
        affinity=Affinity(),
        build_view=lambda _paused: view,
        declared=lambda _tool: None,
        clock=clock,
        tell=lambda _happening: None,
        placed=lambda _node, _tool: None,
        doubt=lambda _id: None,
    )
    dispatcher.epoch = 1
    return dispatcher


@pytest.mark.parametrize("calls", [1, 5], ids=["with room left", "with the node filled"])
async def test_release_the_ledger_did_not_answer_is_tried_again(calls: int) -> None:
    """The failed pass took the node's last credit and parked the rest; giving it back wakes them."""
    books, outbox, clock = FailingOnce(), Sent(), FakeClock()
    dispatcher = dispatcher_on(books, outbox, clock)
    for number in range(calls):
        dispatcher.offer(waiting(f"c{number}", accepted_at=clock.wall_s()))
    with pytest.raises(LedgerDown):
        await dispatcher.turn()
    await dispatcher.turn()
    assert books.asked[1:] == books.asked[:1]
    assert outbox.posted == books.asked[0]
    assert outbox.numbers == [(1, count + 1) for count in range(len(outbox.posted))]
    assert dispatcher.newest() == (1, len(outbox.posted))


async def test_a_long_backlog_is_not_counted_anew_for_everybody_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open pages ask every second, and counting holds the loop; how many wait is always said as it is."""
    monkeypatch.setattr(dispatcher_module, "COUNTED_EACH_TIME", 3)
    monkeypatch.setattr(dispatcher_module, "REUSED_S_PER_CALL", 1.0)
    clock = FakeClock()
    dispatcher = dispatcher_on(FailingOnce(), Sent(), clock)
    for number in range(2):
        dispatcher.offer(waiting(f"c{number}", "shop", accepted_at=clock.wall_s()))
        assert dispatcher.backlog().by_project == {"shop": number + 1}
    for number in range(2, 5):
        dispatcher.offer(waiting(f"c{number}", "shop", accepted_at=clock.wall_s()))
    assert (dispatcher.backlog().waiting, dispatcher.backlog().by_project) == (5, {"shop": 2})
    clock.advance(5.0)
    assert dispatcher.backlog().by_project == {"shop": 5}
    assert dispatcher.backlog().oldest_wait_s == pytest.approx(5.0)
    for number in range(5):
        dispatcher.withdraw(f"c{number}")
    assert (dispatcher.backlog().waiting, dispatcher.backlog().by_project) == (0, {})
