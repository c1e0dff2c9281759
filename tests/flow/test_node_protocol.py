"""What a node promises the orchestrator, kept by a real process over a real Redis and real Celery messages."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.ledger_events import Finished, Progress, Started
from tasks.node import Phase, Ref
from tasks.outcome import Failure
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.node_process import node_process
from worker.testing.upstreams_kit import noted, scripted
from worker.testing.valkey import KillableValkey

LONG = '{"seconds": 600, "steps": 1}'


@pytest.fixture
async def fake(redis_url: str) -> AsyncIterator[FakeOrchestrator]:
    """An orchestrator that grants and settles until told otherwise."""
    async with FakeOrchestrator(redis_url).serving() as fake:
        yield fake


async def _started(fake: FakeOrchestrator, *invocations: str) -> None:
    def all_started() -> bool:
        return set(invocations) <= {event.invocation for event in fake.events if isinstance(event, Started)}

    await fake.until(all_started)


async def _holds(fake: FakeOrchestrator, *wanted: tuple[str, Phase]) -> None:
    """Until an inventory that is exactly this."""
    await fake.renewals_more(1)
    await fake.until(lambda: {(h.invocation, h.phase) for h in fake.renewals[-1].inventory} == set(wanted))


async def test_call_runs_and_is_settled(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A delivery becomes a tool call, its answer comes back as it was, and the journal then forgets it."""
    async with node_process(fake, tmp_path, os.environ) as node:
        ended = await fake.ended(await fake.call("probe.echo", '{"word": "hello"}'))
        assert ended.outcome.ending == "succeeded"
        assert '"word":"hello"' in (ended.outcome.result_json or "")
        await _holds(fake)
        health = await node.health()
        assert (health["ok"], health["unsettled"]) == (True, 0)


async def test_foreign_old_and_repeated_deliveries_are_refused(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """Nothing starts that is not authenticated, not addressed to this incarnation, of an old term, or not new."""
    fake.term = 3
    async with node_process(fake, tmp_path, os.environ) as node:
        first = fake.delivery("probe.echo", fence=2)
        await fake.send(first)
        await fake.ended(first.invocation)
        refused = {
            "mac": [(fake.delivery("probe.echo"), b"wrong key"), (fake.delivery("probe.echo"), fake.pool_key)],
            "node": [(fake.delivery("probe.echo", node="b2"), None)],
            "incarnation": [(fake.delivery("probe.echo", incarnation="earlier"), None)],
            "term": [(fake.delivery("probe.echo", term=2), None)],
            "fence": [(first, None), (replace(first, fence=1), None)],
        }
        for deliveries in refused.values():
            for delivery, key in deliveries:
                await fake.send(delivery, key=key)
        await fake.ended(await fake.call("probe.echo"))  # one queue, so the others were looked at before
        counted = {why: await node.metric(f'mcpfleet_deliveries_refused_total{{why="{why}"}}') for why in refused}
        assert counted == {why: len(deliveries) for why, deliveries in refused.items()}
        assert await node.metric('mcp_requests_total{outcome="succeeded",tool="probe.echo"}') == 2


async def test_outcome_is_sent_again_until_settled(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """An outcome nobody acknowledged is said again, stays in the inventory, and ends with the acknowledgement."""
    fake.is_settling = False
    async with node_process(fake, tmp_path, os.environ) as node:
        invocation = await fake.call("probe.echo")
        await fake.until(lambda: len(fake.finished(invocation)) >= 2)
        await _holds(fake, (invocation, Phase.FINISHED))
        await fake.control("settled", Ref(invocation=invocation, fence=1))
        await _holds(fake)
        assert await node.metric('mcp_requests_total{outcome="succeeded",tool="probe.echo"}') == 1


async def test_killed_node_says_what_it_had_started(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """After kill -9 the next process names the calls that may have started, and reports those that had ended."""
    fake.is_settling = False
    async with node_process(fake, tmp_path, os.environ) as node:
        running = await fake.call("probe.sleep", LONG)
        done = await fake.call("probe.echo", '{"word": "kept"}')
        await _started(fake, running)
        await fake.ended(done)
        await node.kill()
    fake.events.clear()
    fake.is_settling = True
    async with node_process(fake, tmp_path, os.environ):
        join = fake.joins[-1]
        assert join.resumes == fake.joins[0].incarnation != join.incarnation
        assert [ref.invocation for ref in join.interrupted] == [running]
        assert [ref.invocation for ref in join.finished] == [done]
        assert '"word":"kept"' in ((await fake.ended(done)).outcome.result_json or "")
        await _holds(fake)
        assert not fake.finished(running)


async def test_without_a_lease_nothing_new_starts(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A node that cannot renew lets what runs run on, starts nothing, and goes on when it is heard again."""
    fake.lease_ttl_s = 1.0
    async with node_process(fake, tmp_path, os.environ) as node:
        running = await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        fake.is_away = True
        await node.health_until(lambda health: not health["ok"])
        waiting = await fake.call("probe.echo")
        health = await node.health_until(lambda health: health["waiting"] != {"tools": 0, "agents": 0})
        assert health["running"] == {"tools": 1, "agents": 0}
        assert not fake.finished(waiting)
        fake.is_away = False
        assert (await fake.ended(waiting)).outcome.ending == "succeeded"
        assert not fake.finished(running)


async def test_a_raised_term_voids_what_waits(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """What was released under an older term never starts; what already runs goes on."""
    async with node_process(fake, tmp_path, os.environ, "--slots-tools", "1"):
        running, waiting = await fake.call("probe.sleep", LONG), await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        await _holds(fake, (running, Phase.RUNNING), (waiting, Phase.WAITING))
        fake.term = 2
        await _holds(fake, (running, Phase.RUNNING))
        assert not fake.finished(waiting)


async def test_voided_attempts_stop_and_are_not_reported(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """What is superseded is stopped, frees its slot, and leaves no outcome behind."""
    async with node_process(fake, tmp_path, os.environ, "--slots-tools", "1"):
        running, waiting = await fake.call("probe.sleep", LONG), await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        await _holds(fake, (running, Phase.RUNNING), (waiting, Phase.WAITING))
        fake.void = [Ref(invocation=running, fence=1), Ref(invocation=waiting, fence=1)]
        await _holds(fake)
        await fake.ended(await fake.call("probe.echo"))
        assert not fake.finished(running)
        assert not fake.finished(waiting)


@pytest.mark.parametrize("way", ["stream", "renewal"])
async def test_cancelled_call_stops(fake: FakeOrchestrator, tmp_path: Path, way: str) -> None:
    """A cancel reaches a running call by either way, and one that still waits."""
    async with node_process(fake, tmp_path, os.environ, "--slots-tools", "1"):
        running, waiting = await fake.call("probe.sleep", LONG), await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        await _holds(fake, (running, Phase.RUNNING), (waiting, Phase.WAITING))
        refs = [Ref(invocation=waiting, fence=1), Ref(invocation=running, fence=1)]
        if way == "stream":
            await fake.control("cancel", *refs)
        else:
            fake.cancel = refs
        assert (await fake.ended(running)).outcome.ending == "cancelled"
        unstarted = await fake.ended(waiting)
        assert (unstarted.outcome.ending, unstarted.started_at) == ("cancelled", None)


async def test_long_call_is_announced_and_its_last_progress_told(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A call that lasts is reported as started, before any progress, and the last progress before the end."""
    async with node_process(fake, tmp_path, os.environ):
        invocation = await fake.call("probe.sleep", '{"seconds": 1, "steps": 50}')
        await fake.ended(invocation)
        told = [event for event in fake.events if event.invocation == invocation]
        progress = [event for event in told if isinstance(event, Progress)]
        assert isinstance(told[0], Started)
        assert isinstance(told[-1], Finished)
        assert progress[-1].progress == progress[-1].total
        assert len(progress) < 25, "coalesced to ten a second"


async def test_sigterm_finishes_what_runs_and_hands_back_the_rest(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A drained node tells at once, ends its running calls, returns what waits, and leaves with an empty journal."""
    async with node_process(fake, tmp_path, os.environ, "--slots-tools", "1") as node:
        running = await fake.call("probe.sleep", '{"seconds": 3, "steps": 1}')
        waiting = await fake.call("probe.echo")
        await _started(fake, running)
        await _holds(fake, (running, Phase.RUNNING), (waiting, Phase.WAITING))
        node.signal()
        await fake.until(lambda: fake.renewals[-1].is_draining)
        await fake.until(lambda: [ref.invocation for one in fake.renewals for ref in one.returned][:1] == [waiting])
        assert not fake.finished(running), "both are told before the running call ends"
        assert await node.exit_code() == 0
    assert fake.finished(running)[0].outcome.ending == "succeeded"
    assert not fake.leaves[-1].returned, "it was heard already"
    assert not fake.finished(waiting)


async def test_second_signal_stops_at_once_and_keeps_the_journal(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """Ctrl-C twice ends the node now; its next start reports what was cut short."""
    async with node_process(fake, tmp_path, os.environ) as node:
        running = await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        node.signal(signal.SIGINT)
        await fake.until(lambda: fake.renewals[-1].is_draining)
        node.signal(signal.SIGINT)
        assert await node.exit_code() == 3
        assert not fake.leaves
    async with node_process(fake, tmp_path, os.environ):
        told = [ref.invocation for ref in (*fake.joins[-1].interrupted, *fake.joins[-1].finished)]
        assert told == [running]


async def test_what_outlasts_the_drain_is_stopped_and_told(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """The deadline passes: the call ends as a failure that its node reports, and the node leaves in order."""
    async with node_process(fake, tmp_path, os.environ, drain_s=0.1) as node:
        running = await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        node.signal()
        assert await node.exit_code() == 0
        (ended,) = fake.finished(running)
        assert ended.outcome.error is not None
        assert ended.outcome.error.failure is Failure.MAYBE_STARTED
        assert len(fake.leaves) == 1


async def test_superseded_node_stops(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """An incarnation the orchestrator no longer knows runs nothing on: it ends, and next asks for its name."""
    async with node_process(fake, tmp_path, os.environ) as node:
        running = await fake.call("probe.sleep", LONG)
        await _started(fake, running)
        fake.is_known = False
        assert await node.exit_code() == 4
    fake.is_known = True
    for yields in (True, False):  # superseded once, and a member again
        async with node_process(fake, tmp_path, os.environ) as node:
            assert fake.joins[-1].yields is yields
            node.signal()
            assert await node.exit_code() == 0


async def test_two_processes_cannot_share_a_journal(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """A second process with the same name on one machine is refused before it joins."""
    async with node_process(fake, tmp_path, os.environ):
        async with node_process(fake, tmp_path, os.environ, is_joining=False) as second:
            assert await second.exit_code() == 2
        assert len(fake.joins) == 1


async def test_late_bound_delivery_runs_only_when_claimed(redis_url: str, tmp_path: Path) -> None:
    """From the pool's queue a node runs what the orchestrator grants it, and takes no more than it has slots."""
    refused: set[str] = set()
    fake = FakeOrchestrator(redis_url, is_late=True, grant=lambda ref: ref.invocation not in refused)
    async with fake.serving(), node_process(fake, tmp_path, os.environ, "--slots-tools", "1") as node:
        late = {"node": None, "incarnation": None, "term": 0}
        other = fake.delivery("probe.echo", **late)
        refused.add(other.invocation)
        await fake.send(other)
        granted = await fake.call("probe.sleep", '{"seconds": 1, "steps": 1}', **late)
        await _started(fake, granted)
        after = [await fake.call("probe.echo", **late) for _ in range(3)]
        for invocation in (granted, *after):
            assert (await fake.ended(invocation)).outcome.ending == "succeeded"
        assert not fake.finished(other.invocation)
        assert await node.metric('mcpfleet_deliveries_refused_total{why="claim"}') == 1


async def test_large_arguments_and_results_pass_through_the_store(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """Over the inline limit both travel by reference; over the result limit the call fails and says so."""
    big, huge = ('{"text":"%s"}' % ("x" * size) for size in (20_000, 200_000))
    async with node_process(fake, tmp_path, os.environ):
        names = {}
        for text in (big, huge):
            names[text] = hashlib.sha256(text.encode()).hexdigest()
            fake.blobs[names[text]] = text.encode()
        ended = await fake.ended(await fake.call("probe.echo", None, arguments_blob=names[big]))
        assert ended.outcome.result_blob is not None
        assert b"x" * 20_000 in fake.blobs[ended.outcome.result_blob]
        error = (await fake.ended(await fake.call("probe.echo", None, arguments_blob=names[huge]))).outcome.error
        assert error is not None
        assert (error.code, error.failure) == ("result_too_large", Failure.PERMANENT)
        error = (await fake.ended(await fake.call("probe.echo", None, arguments_blob="0" * 64))).outcome.error
        assert error is not None
        assert error.code == "blob_missing"
        await _holds(fake)
        assert not list((tmp_path / "a1.results").iterdir()), "a settled result needs no file"


async def test_a_drain_without_redis_still_hands_back_what_never_started(tmp_path: Path) -> None:
    """What waits needs no Redis to be handed back; what was interrupted is in the journal, and the node says so."""
    valkey = KillableValkey(tmp_path)
    await valkey.start()
    try:
        fake = FakeOrchestrator(valkey.url)
        async with (
            fake.serving(),
            node_process(fake, tmp_path, os.environ, "--slots-tools", "1", drain_s=0.1) as node,
        ):
            running, waiting = await fake.call("probe.sleep", LONG), await fake.call("probe.echo")
            await _started(fake, running)
            await _holds(fake, (running, Phase.RUNNING), (waiting, Phase.WAITING))
            await valkey.kill()
            node.signal()
            await fake.until(lambda: [ref.invocation for one in fake.renewals for ref in one.returned][:1] == [waiting])
            assert await node.exit_code() == 3
            assert not fake.leaves
    finally:
        await valkey.kill()


async def test_outcomes_survive_the_loss_of_redis(tmp_path: Path) -> None:
    """Redis may vanish with all it held: the outcome comes when it is back, and new calls run."""
    valkey = KillableValkey(tmp_path)
    await valkey.start()
    try:
        fake = FakeOrchestrator(valkey.url)
        async with fake.serving(), node_process(fake, tmp_path / "state", os.environ) as node:
            invocation = await fake.call("probe.sleep", '{"seconds": 1, "steps": 1}')
            await _started(fake, invocation)
            await valkey.kill()
            await _holds(fake, (invocation, Phase.FINISHED))
            assert (await node.health())["ok"]
            await valkey.start()
            assert (await fake.ended(invocation)).outcome.ending == "succeeded"
            assert (await fake.ended(await fake.call("probe.echo"))).outcome.ending == "succeeded"
            await _holds(fake)
    finally:
        await valkey.kill()


async def test_a_consumer_that_does_not_move_is_told_of(tmp_path: Path) -> None:
    """The node renews all the while, and says itself that it takes nothing; and when it does again."""
    valkey = KillableValkey(tmp_path)
    await valkey.start()
    try:
        fake = FakeOrchestrator(valkey.url)
        async with fake.serving(), node_process(fake, tmp_path / "state", os.environ) as node:
            assert (await node.health())["consumer"] == "ok"
            await valkey.kill()
            await fake.until(lambda: [r for r in fake.renewals if r.offer and "" in r.offer.unhealthy])
            said = await node.health()
            assert "does not move" in str(said["consumer"])
            assert said["ok"], "nobody should restart a node because Redis is away"
            await valkey.start()
            seen = len(fake.renewals)
            await fake.until(lambda: [r for r in fake.renewals[seen:] if r.offer and not r.offer.unhealthy])
            assert (await node.health())["consumer"] == "ok"
    finally:
        await valkey.kill()


async def test_a_server_that_is_away_is_told_of_at_once(redis_url: str, tmp_path: Path) -> None:
    """Long before the next renewal is due, the node says what should be passed by; and when it is back."""
    path, program = tmp_path / "servers.json", tmp_path / "python"
    program.symlink_to(sys.executable)
    entry = scripted(tmp_path / "notes") | {"command": str(program), "env": {}}
    path.write_text(json.dumps({"mcpServers": {"s": entry}}))
    fake = FakeOrchestrator(redis_url, lease_ttl_s=600.0, renew_every_s=200.0)
    async with fake.serving(), node_process(fake, tmp_path, os.environ, "--servers", str(path)):
        await fake.until(lambda: fake.renewals)
        program.unlink()  # it stays away: one that is back before a renewal under way has its answer is told of by none
        os.kill(int(noted(tmp_path / "notes", "pid")[0]), signal.SIGKILL)
        await fake.until(lambda: [r for r in fake.renewals if r.offer and "s" in r.offer.unhealthy])
        at, told = next((n, r.offer) for n, r in enumerate(fake.renewals) if r.offer and "s" in r.offer.unhealthy)
        assert "s" in {tool.server for tool in told.tools}, "its calls wait for it"
        program.symlink_to(sys.executable)
        # Any later one that says so: the last may be another, which follows at once and has nothing new to offer.
        await fake.until(lambda: [r for r in fake.renewals[at:] if r.offer and not r.offer.unhealthy])


async def test_node_waits_for_orchestrator_and_broker(tmp_path: Path) -> None:
    """Started first of all, a node joins when the orchestrator is there, and consumes when the broker is."""
    valkey = KillableValkey(tmp_path)
    fake = FakeOrchestrator(valkey.url, is_away=True)
    async with fake.serving(), node_process(fake, tmp_path / "state", os.environ, is_joining=False):
        await fake.until(lambda: fake.turned_away >= 2)
        fake.is_away = False
        await fake.renewals_more(2)
        await valkey.start()
        try:
            assert (await fake.ended(await fake.call("probe.echo"))).outcome.ending == "succeeded"
        finally:
            await valkey.kill()
