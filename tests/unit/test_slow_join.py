"""A join that an orchestrator which is starting answers late: one join, and nothing begins on what it says of time."""

from __future__ import annotations

import httpx
import pytest

from tasks.errors import OrchestratorDown
from tasks.invocation import Lane
from tasks.node import RENEW_EVERY_S, JoinReply, JoinRequest, Offer, RenewRequest
from tasks.testing.clock import FakeClock
from worker.door import JOIN_ANSWER_S, Door
from worker.fleet_clock import FleetClock
from worker.membership import join

REQUEST = JoinRequest(incarnation="i", offer=Offer(name="n1", pool="p", slots={Lane.TOOLS: 1}))
REPLY = JoinReply.model_construct(node="n1", term=1, lease_ttl_s=7.0, queues=(), now=5000.0)


class Slow:
    """An orchestrator that answers so late, and says that it is 5000."""

    def __init__(self, clock: FakeClock, after_s: float) -> None:
        self._clock, self._after_s = clock, after_s

    async def join(self, request: JoinRequest) -> JoinReply:
        """After a while."""
        del request
        self._clock.advance(self._after_s)
        return REPLY

    async def renew(self, request: RenewRequest) -> None:
        """Not asked here."""
        raise NotImplementedError


async def test_a_join_may_wait_for_its_answer_and_a_renewal_may_not() -> None:
    """Given up after 2 s, a join is taken all the same, and again, and again: each makes a term."""
    waits: dict[str, float] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        waits[request.url.path] = request.extensions["timeout"]["read"]
        return httpx.Response(500)

    door = Door("http://o", httpx.MockTransport(answer))
    for asking in (door.join(REQUEST), door.renew(RenewRequest(incarnation="i"))):
        with pytest.raises(OrchestratorDown):
            await asking
    await door.close()
    assert waits == {"/v1/nodes": JOIN_ANSWER_S, "/v1/nodes//renewals": RENEW_EVERY_S}


async def test_a_late_answer_teaches_no_time_and_starts_nothing() -> None:
    """Its round trip would put the clock off by seconds; the first renewal does both."""
    for after_s, is_prompt in ((0.5, True), (8.0, False)):
        clock = FakeClock()
        fleet = FleetClock(clock)
        before = fleet.off_s()
        _, lease = await join(Slow(clock, after_s), REQUEST, fleet, lambda: 0.5)  # type: ignore[arg-type]
        assert lease.is_good(clock.mono_s()) is is_prompt
        assert (fleet.off_s() != before) is is_prompt
