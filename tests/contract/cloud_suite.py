"""What every cloud provider must do: the promises of `orchestrator/autoscaler/cloud/provider.py`.

Each provider comes with a rig (`cloud_rigs.py`): how to open it, what is really there by the books of the
other side, and which troubles can be made. A test that needs a trouble runs where it can be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum, auto
from typing import ClassVar, Protocol, TypeVar

import pytest

from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, Power
from orchestrator.testing.waiting import until

CLUSTER = "under-test"
CLAIMS = ("aaaaaaaaa2", "bbbbbbbbb3", "ccccccccc4")
EXPIRES_AT = 4102444800.0
"""Far away, and whole: some clouds keep no fractions."""
TEST = TypeVar("TEST", bound=Callable[..., object])


class Trouble(StrEnum):
    """What a rig may be able to make happen."""

    LOST = auto()
    """The next order is carried out, its answer never arrives."""
    LATE_LISTS = auto()
    """Lists show what there was."""
    BUSY = auto()
    """The next request is one too many; asked to come back after 7 s."""
    BROKEN = auto()
    """The next request ends in an error of theirs."""
    SILENT = auto()
    """Requests are not answered at all."""
    EMPTY = auto()
    """None left of this type."""
    QUOTA = auto()
    REFUSED = auto()
    """Our credentials are no good."""
    NOTICE = auto()
    """The machine will be taken away."""


class CloudRig(Protocol):
    """One provider and its other side."""

    can: ClassVar[frozenset[Trouble]]
    secrets: tuple[str, ...]
    patience_s: float
    """For one answer of the provider, by its option."""

    def open(self) -> CloudProvider:
        """A new one, as another orchestrator process would have it."""

    def order(self, claim: str, cluster: str = CLUSTER) -> Order:
        """One that is carried out."""

    def wrong_order(self) -> Order:
        """One that never is."""

    def there(self, cluster: str = CLUSTER) -> int:
        """Machines, by the books of the other side."""

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """From now on."""

    def end(self, trouble: Trouble) -> None:
        """It is over."""


def needs(*troubles: Trouble) -> Callable[[TEST], TEST]:
    """The test runs for rigs that can make them."""

    def mark(test: TEST) -> TEST:
        test.needs = frozenset(troubles)  # type: ignore[attr-defined]
        return test

    return mark


async def create(cloud: CloudProvider, order: Order) -> Machine:
    """As the actuator does: asked again while nobody knows whether it was made."""

    async def attempt() -> Machine | None:
        try:
            return await cloud.create(order)
        except CloudDown:
            return None

    machine = await until(attempt)
    assert machine is not None
    return machine


class CloudSuite:
    """The promises. The fixtures `rig` and `cloud` come from the file that runs it."""

    async def test_a_machine_is_what_was_ordered(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Name, claim, type, region and the dead-man's date come back: reconciliation goes by them."""
        order = rig.order(CLAIMS[0])
        made = await cloud.create(order)
        assert (made.claim, made.name, made.expires_at) == (order.claim, order.name, order.expires_at)
        assert made.type == order.type
        assert order.region in {"", made.region}
        assert made.created_at > 0
        listed = await cloud.machines(CLUSTER)
        assert [(m.id, m.claim, m.name, m.expires_at) for m in listed] == [
            (made.id, order.claim, order.name, order.expires_at)
        ]
        one = await cloud.machine(made.id)
        assert one is not None
        assert (one.id, one.claim) == (made.id, order.claim)

    async def test_a_machine_comes_to_run_and_has_an_address(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Provisioning waits for both."""
        made = await cloud.create(rig.order(CLAIMS[0]))

        async def is_up() -> bool:
            found = await cloud.machine(made.id)
            return found is not None and found.power is Power.RUNNING and bool(found.address)

        await until(is_up)

    async def test_one_claim_is_one_machine(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """However often it is ordered, at once and later."""
        order = rig.order(CLAIMS[0])
        at_once = await asyncio.gather(*(create(cloud, order) for _ in range(4)))
        later = await cloud.create(order)
        assert {machine.id for machine in at_once} == {later.id}
        assert rig.there() == 1

    async def test_another_orchestrator_finds_the_same_machine(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Nothing that matters is in the memory of the process that ordered."""
        order = rig.order(CLAIMS[0])
        made = await cloud.create(order)
        await cloud.close()
        other = rig.open()
        try:
            assert (await other.create(order)).id == made.id
            assert [machine.id for machine in await other.machines(CLUSTER)] == [made.id]
            await other.terminate(made.id)
            await until(lambda: rig.there() == 0)
        finally:
            await other.close()

    async def test_two_orchestrators_at_once_make_one_machine(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """The old leader has not noticed yet that it leads no more."""
        order, other = rig.order(CLAIMS[0]), rig.open()
        try:
            made = await asyncio.gather(*(create(each, order) for each in (cloud, other) * 2))
            assert len({machine.id for machine in made}) == 1
            assert rig.there() == 1
        finally:
            await other.close()

    async def test_claims_ordered_at_once_are_machines_of_their_own(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """A step of the actuator orders several."""
        made = await asyncio.gather(*(cloud.create(rig.order(claim)) for claim in CLAIMS))
        assert len({machine.id for machine in made}) == len(CLAIMS)
        assert [machine.claim for machine in made] == list(CLAIMS)
        assert rig.there() == len(CLAIMS)

    async def test_an_order_given_up_half_way_makes_one_machine_at_most(
        self, rig: CloudRig, cloud: CloudProvider
    ) -> None:
        """The loop is stopped while it orders; the next one orders again."""
        order = rig.order(CLAIMS[0])
        ordering = asyncio.create_task(cloud.create(order))
        await asyncio.sleep(0)
        ordering.cancel()
        await asyncio.gather(ordering, return_exceptions=True)
        made = await create(cloud, order)
        assert [machine.id for machine in await cloud.machines(CLUSTER)] == [made.id]
        assert rig.there() == 1

    async def test_machines_are_those_of_one_cluster(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Two fleets in one account never see, and so never end, each other's machines."""
        ours = await cloud.create(rig.order(CLAIMS[0]))
        theirs = await cloud.create(rig.order(CLAIMS[1], cluster="neighbour"))
        assert [machine.id for machine in await cloud.machines(CLUSTER)] == [ours.id]
        assert [machine.id for machine in await cloud.machines("neighbour")] == [theirs.id]
        assert await cloud.machines("nobody") == []
        await cloud.terminate(theirs.id)

    async def test_terminate_ends_it_and_may_be_said_again(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Until it is gone, and after; other machines stay."""
        first, second = [await cloud.create(rig.order(claim)) for claim in CLAIMS[:2]]
        await asyncio.gather(cloud.terminate(first.id), cloud.terminate(first.id))
        await cloud.terminate(first.id)
        await until(lambda: _gone(cloud, first.id))
        await cloud.terminate(first.id)
        assert [machine.id for machine in await cloud.machines(CLUSTER)] == [second.id]
        assert rig.there() == 1

    async def test_an_unknown_machine_is_none(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Also one whose id is of no form that this cloud has; ending it is no error."""
        made = await cloud.create(rig.order(CLAIMS[0]))
        for unknown in ("never-was", "0", "", "../x", made.id[:-1] + ("1" if made.id[-1] != "1" else "2")):
            assert await cloud.machine(unknown) is None
            await cloud.terminate(unknown)
        assert rig.there() == 1

    async def test_catalog_has_what_can_be_ordered(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """With its billing step; prices are positive where they are known."""
        order = rig.order(CLAIMS[0])
        products = await cloud.catalog()
        assert any(
            product.type == order.type and order.region in {"", product.region} and not product.is_spot
            for product in products
        )
        assert all(product.billing_s >= 1 for product in products)
        assert all(product.price_eur_h is None or product.price_eur_h >= 0 for product in products)
        assert len({(p.type, p.region, p.is_spot) for p in products}) == len(products)

    async def test_nothing_is_taken_away_unasked(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """A notice drains a machine: there must be none without a reason."""
        await cloud.create(rig.order(CLAIMS[0]))
        assert await cloud.notices(CLUSTER) == []

    async def test_a_wrong_order_is_refused_for_good(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """The ladder has to be corrected: it is not tried again, and nothing was made."""
        with pytest.raises(OrderRefused, match="correct the pool's ladder"):
            await cloud.create(rig.wrong_order())
        assert rig.there() == 0

    async def test_closing_ends_no_machine(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """The orchestrator stops; what it ordered goes on."""
        await cloud.create(rig.order(CLAIMS[0]))
        await cloud.close()
        assert rig.there() == 1

    # ------------------------------------------------------------ troubles

    @needs(Trouble.LOST)
    async def test_a_lost_answer_leaves_no_second_machine(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """It was carried out, and nobody was told: the same order again gives that machine."""
        rig.make(Trouble.LOST)
        with pytest.raises(CloudDown):
            await cloud.create(rig.order(CLAIMS[0]))
        assert rig.there() == 1
        made = await cloud.create(rig.order(CLAIMS[0]))
        assert made.claim == CLAIMS[0]
        assert rig.there() == 1

    @needs(Trouble.LOST, Trouble.LATE_LISTS)
    async def test_a_lost_answer_and_late_lists_leave_no_second_machine(
        self, rig: CloudRig, cloud: CloudProvider
    ) -> None:
        """The worst case: it was made, nobody was told, and no list shows it yet."""
        rig.make(Trouble.LATE_LISTS)
        rig.make(Trouble.LOST)
        for _ in range(3):
            try:
                await cloud.create(rig.order(CLAIMS[0]))
            except CloudDown:
                continue
        assert rig.there() == 1
        rig.end(Trouble.LATE_LISTS)
        made = await create(cloud, rig.order(CLAIMS[0]))
        assert [machine.id for machine in await cloud.machines(CLUSTER)] == [made.id]
        assert rig.there() == 1

    @needs(Trouble.LATE_LISTS)
    async def test_late_lists_never_bring_a_claim_a_second_machine(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Ordered again before any list shows it."""
        rig.make(Trouble.LATE_LISTS)
        made = await cloud.create(rig.order(CLAIMS[0]))
        with contextlib.suppress(CloudDown):  # honest, too: it is asked again
            assert (await cloud.create(rig.order(CLAIMS[0]))).id == made.id
        assert rig.there() == 1

    @needs(Trouble.BUSY)
    async def test_a_busy_cloud_is_asked_again_when_it_says(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Too many requests: temporary, nothing was made, and no library tries behind our back."""
        rig.make(Trouble.BUSY)
        with pytest.raises(CloudDown) as raised:
            await cloud.create(rig.order(CLAIMS[0]))
        assert raised.value.retry_after_s == 7.0
        assert rig.there() == 0
        rig.end(Trouble.BUSY)
        await create(cloud, rig.order(CLAIMS[0]))

    @needs(Trouble.BROKEN)
    async def test_a_broken_cloud_is_down_for_every_question(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """An error of theirs is never taken for an empty list, nor for a machine that is gone."""
        made = await cloud.create(rig.order(CLAIMS[0]))
        for ask in (
            lambda: cloud.create(rig.order(CLAIMS[1])),
            lambda: cloud.machines(CLUSTER),
            lambda: cloud.machine(made.id),
            lambda: cloud.terminate(made.id),
            cloud.catalog,
        ):
            rig.make(Trouble.BROKEN)
            with pytest.raises(CloudDown):
                await ask()
            rig.end(Trouble.BROKEN)
        assert rig.there() == 1

    @needs(Trouble.SILENT)
    async def test_silence_is_bounded(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """A cloud that never answers is down, and the order given again makes one machine."""
        rig.patience_s = 2.0
        impatient = rig.open()
        rig.make(Trouble.SILENT)
        with pytest.raises(CloudDown):
            await impatient.create(rig.order(CLAIMS[0]))
        await impatient.close()
        rig.end(Trouble.SILENT)
        await create(cloud, rig.order(CLAIMS[0]))
        assert rig.there() == 1

    @needs(Trouble.EMPTY)
    async def test_none_left_sends_to_the_next_rung(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """Capacity is another word than quota: another type or region may do."""
        rig.make(Trouble.EMPTY)
        with pytest.raises(OutOfCapacity, match="next rung"):
            await cloud.create(rig.order(CLAIMS[0]))
        assert rig.there() == 0

    @needs(Trouble.QUOTA)
    async def test_the_accounts_limit_has_its_own_word(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """An operator has to ask the provider for more."""
        rig.make(Trouble.QUOTA)
        with pytest.raises(QuotaReached):
            await cloud.create(rig.order(CLAIMS[0]))
        assert rig.there() == 0

    @needs(Trouble.REFUSED)
    async def test_refused_credentials_are_said_and_never_shown(
        self, rig: CloudRig, cloud: CloudProvider, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """In no error, in no log, at no level, and in no cause that a traceback would show."""
        caplog.set_level(logging.DEBUG)
        rig.make(Trouble.REFUSED)
        shown = []
        for ask in (lambda: cloud.create(rig.order(CLAIMS[0])), lambda: cloud.machines(CLUSTER), cloud.catalog):
            with pytest.raises(CredentialsRefused) as raised:
                await ask()
            shown.append(f"{raised.value!r} {raised.value} {raised.value.__cause__!r}")
        heard = [*shown, caplog.text, *capfd.readouterr(), repr(cloud), repr(vars(cloud))]
        assert not [secret for secret in rig.secrets if any(secret in text for text in heard)]

    @needs(Trouble.NOTICE)
    async def test_a_machine_that_is_taken_away_is_named_beforehand(self, rig: CloudRig, cloud: CloudProvider) -> None:
        """It is drained at once; machines of other clusters are not our business."""
        order = replace(rig.order(CLAIMS[0]), is_spot=True)
        doomed, safe = [await cloud.create(each) for each in (order, replace(order, claim=CLAIMS[1], name="n-2"))]
        rig.make(Trouble.NOTICE, doomed)
        notices = await cloud.notices(CLUSTER)
        assert [notice.machine_id for notice in notices] == [doomed.id]
        assert all(notice.at > 0 for notice in notices)
        assert safe.is_spot
        assert doomed.is_spot
        assert await cloud.notices("neighbour") == []


async def _gone(cloud: CloudProvider, machine_id: str) -> bool:
    return await cloud.machine(machine_id) is None
