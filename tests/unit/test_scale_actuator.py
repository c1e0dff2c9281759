"""What becomes of claims, each failure on its own. Source: docs/adr/0012-autoscaler.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.testing.nodes import Node
from orchestrator.autoscaler.testing.world import FIRST, POOL, SECOND, World
from orchestrator.autoscaler.values import COMING, LIVE, ClaimState
from tasks.errors import LedgerDown, OrchestratorDown
from tasks.node import NodeState

POLICY = ScalePolicy(POOL, (FIRST, SECOND), max_machines=4, boot_limit_s=300.0)


async def ready(world: World, number: int) -> None:
    """So many machines serve."""
    await world.rounds(12, target=number)
    assert world.is_settled(number)


async def test_a_machine_goes_from_order_to_ready() -> None:
    """A decision for two machines gives two nodes, and nothing else happens."""
    world = World()
    await ready(world, 2)
    assert [claim.rung for claim in world.claims()] == [FIRST, FIRST]
    assert all(claim.ready_at and claim.expires_at > claim.ready_at for claim in world.claims())
    assert world.violations() == []


async def test_the_order_names_the_node_and_holds_its_token() -> None:
    """A machine learns who it is and where to join, with a one-time token and no other secret."""
    world = World(replace(POLICY, capabilities=("gpu",), environ={"MCPFLEET_NODE_SLOTS_TOOLS": "4"}))
    await world.round(target=1)
    order, claim = world.near.orders[0], world.claims()[0]
    assert dict(order.environ) == {
        "MCPFLEET_NODE_SLOTS_TOOLS": "4",
        "MCPFLEET_NODE_NAME": claim.node,
        "MCPFLEET_NODE_POOL": POOL,
        "MCPFLEET_NODE_ORCHESTRATOR_URL": "http://192.0.2.1:8700",
        "MCPFLEET_NODE_ENROL_TOKEN": f"not-a-secret-{claim.node}",
        "MCPFLEET_NODE_CAPABILITIES": "gpu,on-demand",
        "MCPFLEET_NODE_LOCATION": "eu-1",
    }
    assert order.expires_at == claim.expires_at == claim.created_at + 7200.0


async def test_a_cloud_that_says_when_to_ask_again_is_asked_then() -> None:
    """As often as that, the claim is not given up meanwhile, and its machine comes."""
    world = World()
    world.near.faults.refusals = [CloudDown("near", "a moment ago", retry_after_s=60.0) for _ in range(4)]
    left = []
    for _ in range(4):
        await world.rounds(10, target=1, seconds=5.0)
        left.append(len(world.near.faults.refusals))
        world.clock.advance(15.0)
    assert left == [3, 2, 1, 0]
    await world.rounds(20, target=1)
    assert world.is_settled(1)
    assert len(world.claims()) == 1


async def test_an_idle_machine_is_drained_and_ended() -> None:
    """One that is not needed is told to leave, and ended once its node has left; its enrolment is void."""
    world = World()
    await ready(world, 2)
    await world.rounds(40, target=1)
    assert world.is_settled(1)
    gone = world.claims(ClaimState.GONE)
    assert len(gone) == 1
    assert gone[0].node in world.nodes.left
    assert gone[0].node not in world.nodes.enrolled
    assert world.violations() == []


async def test_a_busy_machine_waits_for_its_calls() -> None:
    """Cordoned while it holds an attempt, ended only when it holds none."""
    world = World()
    await ready(world, 1)
    world.nodes.give_work(3)
    await world.rounds(100, target=0)
    node = next(iter(world.nodes.joined.values()))
    assert node.state is NodeState.CORDONED
    assert len(world.standing()) == 1
    world.nodes.end_work()
    await world.rounds(40, target=0)
    assert world.is_settled(0)
    assert world.violations() == []


async def test_a_draining_machine_is_taken_back() -> None:
    """Need that returns before the node was told to leave costs no new machine."""
    world = World()
    await ready(world, 1)
    world.nodes.give_work(1)
    await world.rounds(3, target=0)
    await world.rounds(2, target=1)
    assert world.is_settled(1)
    assert len(world.near.orders) == 1
    assert next(iter(world.nodes.joined.values())).state is NodeState.ACTIVE


async def test_one_that_was_told_to_leave_is_replaced() -> None:
    """There is no way back after that: a new machine is ordered."""
    world = World()
    await ready(world, 1)
    await world.rounds(3, target=0)
    assert [claim.told_to_leave for claim in world.claims()] == [True]
    await world.rounds(40, target=1)
    assert world.is_settled(1)
    assert len(world.claims()) == 2
    assert world.violations() == []


@pytest.mark.parametrize("refusal", [OutOfCapacity("near", "small", "none left"), QuotaReached("near", "5 of 5")])
async def test_what_is_not_to_be_had_is_ordered_elsewhere(refusal: OutOfCapacity | QuotaReached) -> None:
    """A rung without capacity or quota is passed by for a while, then tried again."""
    world = World()
    world.near.faults.refusals = [refusal]
    await world.rounds(12, target=1)
    assert [claim.rung for claim in world.claims(ClaimState.READY)] == [SECOND]
    world.clock.advance(3600.0)
    await world.rounds(12, target=2)
    assert [claim.rung for claim in world.claims(ClaimState.READY)] == [SECOND, FIRST]


@pytest.mark.parametrize("refusal", [CredentialsRefused("near", "401"), OrderRefused("near", "no such type")])
async def test_what_only_an_operator_can_mend_is_said(refusal: CredentialsRefused | OrderRefused) -> None:
    """The rung is passed by for long, and an alert says what to correct; a restart with a new file tries again."""
    world = World(replace(POLICY, ladder=(FIRST,)))
    world.near.faults.refusals = [refusal]
    await world.rounds(60, target=1)
    assert len(world.near.orders) == 1
    assert refusal.message in _alerts(world)
    await world.restart()
    await world.rounds(12, target=1)
    assert len(world.claims(ClaimState.READY)) == 1


async def test_an_order_without_an_answer_is_given_again() -> None:
    """A cloud that answers nothing is asked again with the same order, and there is one machine."""
    world = World(lag_s=60.0)
    world.near.faults.answers_lost = 2
    await world.rounds(24, target=1)
    assert world.is_settled(1)
    assert len(world.near.orders) == 3
    assert len(set(map(str, world.near.orders))) == 1
    assert len(world.near.made) == 1


async def test_a_machine_whose_answer_was_lost_is_found_in_the_list() -> None:
    """Its tag names the claim: where the list is quicker than the next try, nothing is asked for again."""
    world = World()
    world.near.faults.answers_lost = 1
    await world.rounds(1, target=1)
    await world.rounds(12, target=1)
    assert world.is_settled(1)
    assert len(world.near.made) == 1


async def test_a_cloud_that_stays_away_is_given_up() -> None:
    """After some tries the next rung is tried, and what may have been made there is looked for and ended."""
    world = World(lag_s=100.0)
    world.near.faults.answers_lost = 5
    await world.rounds(80, target=1)
    assert [claim.rung for claim in world.claims(ClaimState.READY)] == [SECOND]
    assert len(world.near.made) == 1
    assert world.is_settled(1)
    assert world.violations() == []


async def test_a_ledger_that_was_away_is_no_try_of_a_cloud() -> None:
    """The cloud was asked once and did not answer: it is asked again, however often our own books failed before."""
    world = World()
    world.nodes.token_errors = [LedgerDown("the test says so")] * 4
    world.near.faults.refusals = [CloudDown("near", "the test says so")]
    await world.rounds(40, target=1)
    assert world.is_settled(1)
    assert [claim.rung for claim in world.claims()] == [FIRST]


async def test_a_boot_that_takes_too_long_is_replaced() -> None:
    """No node within the limit: the machine is ended, another is ordered."""
    world = World()
    world.nodes.joins = False
    await world.rounds(64, target=1)
    world.nodes.joins = True
    await world.rounds(60, target=1)
    assert world.is_settled(1)
    assert [claim.failed_with for claim in world.claims(ClaimState.GONE)] == ["boot_timeout"]


async def test_a_machine_that_stops_before_it_serves_is_replaced() -> None:
    """It is not waited for until the boot's limit."""
    world = World()
    world.nodes.joins = False
    await world.rounds(6, target=1)
    next(iter(world.near.made.values())).is_stopped = True
    await world.rounds(3, target=1)
    world.nodes.joins = True
    await world.rounds(40, target=1)
    assert world.is_settled(1)
    assert [claim.failed_with for claim in world.claims(ClaimState.GONE)] == ["machine_stopped"]


async def test_a_broken_image_does_not_order_for_ever() -> None:
    """Pauses double while nothing comes up, one machine is tried at a time, and an alert says so."""
    world = World()
    world.nodes.joins = False
    await world.rounds(4 * 720, target=4)
    in_four_hours = len(world.near.orders)
    assert 4 < in_four_hours < 25
    assert max(len([c for c in world.claims() if c.state in LIVE]), 1) <= 1
    assert any("came to nothing" in alert for alert in _alerts(world))
    world.nodes.joins = True
    await world.rounds(1500, target=4)
    assert world.is_settled(4)
    assert not _alerts(world)


async def test_a_pause_outlives_the_orchestrator() -> None:
    """A new leader does not begin to order what the old one gave up."""
    world = World()
    world.nodes.joins = False
    await world.rounds(1000, target=4)
    orders = len(world.near.orders)
    for _ in range(20):
        await world.restart()
        await world.round(target=4)
    assert len(world.near.orders) <= orders + 1


async def test_a_notice_drains_at_once() -> None:
    """What is taken away is told to leave whatever it holds, and replaced at once."""
    spot = replace(FIRST, is_spot=True)
    world = World(replace(POLICY, ladder=(spot,), may_use_spot=True))
    await ready(world, 1)
    world.nodes.give_work(2)
    made = next(iter(world.near.made.values()))
    made.has_notice = True
    await world.rounds(2, target=1)
    assert world.nodes.joined[made.order.name].state is NodeState.DRAINING
    await world.rounds(1, target=1)
    assert len([claim for claim in world.claims() if claim.state in COMING]) == 1
    world.near.take_away(made.id)
    await world.rounds(60, target=1)
    assert world.is_settled(1)


async def test_spot_is_for_those_who_bear_it() -> None:
    """Without `may_use_spot` a spot rung is passed by, whatever it costs."""
    world = World(replace(POLICY, ladder=(replace(FIRST, is_spot=True), SECOND)))
    await ready(world, 1)
    assert [claim.rung for claim in world.claims()] == [SECOND]


async def test_a_machine_that_vanished_is_replaced() -> None:
    """One that its cloud does not know any more, and whose node is silent, is not waited for."""
    world = World()
    await ready(world, 1)
    world.clock.advance(600.0)
    world.near.take_away("near-1")
    await world.rounds(60, target=1)
    assert world.is_settled(1)
    assert len(world.claims()) == 2


async def test_a_node_that_works_is_believed_before_its_cloud() -> None:
    """A list that forgets a machine does not end it while its node is there; an operator is told."""
    world = World()
    await ready(world, 1)
    world.clock.advance(600.0)
    world.near.lag_s = 10_000.0  # as if it were unknown
    await world.rounds(40, target=1)
    assert [claim.state for claim in world.claims()] == [ClaimState.READY]
    assert any("does not know" in why for why in world.parts.sweep.unlisted.values())


async def test_a_node_lost_for_long_is_given_up() -> None:
    """A lease that lapsed a moment ago may come back; after ten minutes its machine is ended."""
    world = World()
    await ready(world, 1)
    node = next(iter(world.nodes.joined.values()))
    node.state = NodeState.LOST
    await world.rounds(60, target=1)
    assert [claim.state for claim in world.claims()] == [ClaimState.READY]
    await world.rounds(140, target=1)
    assert world.is_settled(1)
    assert len(world.claims()) == 2


async def test_a_stuck_end_is_asked_for_again() -> None:
    """Until the cloud says that the machine is gone the claim stays, and an alert says how long."""
    world = World()
    await ready(world, 1)
    world.near.faults.is_stuck = True
    await world.rounds(200, target=0)
    assert [claim.state for claim in world.claims()] == [ClaimState.TERMINATING]
    assert any("has been ending for" in alert for alert in _alerts(world))
    world.near.faults.is_stuck = False
    await world.rounds(20, target=0)
    assert world.is_settled(0)
    assert not _alerts(world)


async def test_a_machine_is_provisioned_until_its_node_joins() -> None:
    """Ansible is run where the image is not golden; a failed run is repeated, and a restart runs it again."""
    world = World(replace(POLICY, provision="ansible"))
    world.nodes.provisioned = set()
    world.provisioning.errors = [OrchestratorDown("http://192.0.2.1", "no route")]
    await world.rounds(10, target=1)
    assert len(world.provisioning.done) == 1
    await world.rounds(4, target=1)
    assert world.is_settled(1)


async def test_a_golden_image_is_not_provisioned() -> None:
    """It makes itself a node from its user data."""
    golden = replace(FIRST, is_golden=True)
    world = World(replace(POLICY, provision="ansible", ladder=(golden,)))
    await ready(world, 1)
    assert world.provisioning.done == []


async def test_provisioning_that_keeps_failing_is_given_up() -> None:
    """Three runs in vain, and the machine is replaced."""
    world = World(replace(POLICY, provision="ansible", boot_limit_s=3000.0))
    world.nodes.provisioned = set()
    world.provisioning.errors = [OrchestratorDown("http://192.0.2.1", "no route") for _ in range(3)]
    await world.rounds(80, target=1)
    assert world.is_settled(1)
    assert [claim.failed_with for claim in world.claims(ClaimState.GONE)] == ["provisioning_failed"]


async def test_a_node_that_joined_too_late_is_heard_out() -> None:
    """Given up, its node joins all the same and takes calls: they end before the machine does."""
    world = World()
    world.nodes.joins = False
    await world.rounds(59, target=1)
    world.near.faults.down = 10_000
    await world.rounds(4, target=1)
    claim = world.claims(ClaimState.TERMINATING)[0]
    world.nodes.joined[claim.node] = Node(held=2)
    world.nodes.enrolled.add(claim.node)
    await world.restart()
    world.near.faults.down = 0
    await world.rounds(30)
    assert claim.machine_id in {made.id for made in world.standing()}
    assert world.nodes.joined[claim.node].state is NodeState.DRAINING
    world.nodes.end_work()
    await world.rounds(30)
    assert claim.machine_id not in {made.id for made in world.standing()}
    assert world.violations() == []


async def test_a_machine_that_ends_is_not_ended_in_a_short_silence_of_its_busy_node() -> None:
    """A lease that lapsed for a moment is no proof that the calls are over; a silence that lasts is."""
    for is_back in (True, False):
        world = World()
        await ready(world, 1)
        (claim,) = world.claims(ClaimState.READY)
        node = world.nodes.joined[claim.node]
        node.held = 2
        await world.parts.book.move(claim.id, ClaimState.TERMINATING)
        await world.rounds(3)
        node.state = NodeState.LOST
        await world.rounds(10)
        assert claim.machine_id in {made.id for made in world.standing()}
        if is_back:
            node.state, node.held = NodeState.DRAINING, 0
        await world.rounds(10 if is_back else 140)
        assert world.standing() == []


def _alerts(world: World) -> list[str]:
    from orchestrator.autoscaler.act.alerts import claim_alerts, pool_alerts

    now, claims = world.clock.wall_s(), world.claims()
    pool = pool_alerts(world.policy, claims, claims, now, read_at=world.parts.read_at)
    return [*pool, *claim_alerts(claims, world.clouds, now)]
