"""What is Hetzner's own: unique names, pages, prices, and a client library that must not try on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Order, Power, ProviderConfig
from orchestrator.autoscaler.testing.faulty_http import Fault, json_answer
from orchestrator.autoscaler.testing.hetzner_books import Books
from orchestrator.autoscaler.testing.hetzner_double import CREATE, DELETE, LIST, TYPES, HetznerDouble, error, selects

ORDER = Order("aaaaaaaaa2", "pool-a", "ours", "pool", type="cx33", region="fsn1", user_data="#cloud-config\n")


@pytest.fixture
def double() -> Iterator[HetznerDouble]:
    """A project."""
    made = HetznerDouble("not-a-secret")
    yield made
    made.close()


@pytest.fixture
async def cloud(double: HetznerDouble, tmp_path: Path) -> AsyncIterator[CloudProvider]:
    """Over real hcloud."""
    options = {"base_url": double.base_url, "token_env": "T"}
    opened = open_provider(ProviderConfig("h", "hetzner", options, tmp_path, {"T": "not-a-secret"}))
    yield opened
    await opened.close()


async def test_all_pages_are_read(double: HetznerDouble, cloud: CloudProvider) -> None:
    """A fleet larger than a page: what is on the second must not look like gone."""
    for number in range(60):
        double.books.order({"name": f"n-{number}", "server_type": "cx23", "image": "debian-12"} | _LABELS)
    assert len(await cloud.machines("ours")) == 60
    assert double.http.asked.count(LIST) == 2


async def test_a_name_of_somebody_elses_is_an_order_refused(double: HetznerDouble, cloud: CloudProvider) -> None:
    """Their server is neither taken over nor ended."""
    double.books.order({"name": ORDER.name, "server_type": "cx23", "image": "debian-12"})
    with pytest.raises(OrderRefused, match="belongs to a server of somebody else"):
        await cloud.create(ORDER)


@pytest.mark.parametrize(
    "code", ["rate_limit_exceeded", "conflict", "locked", "maintenance", "server_error", "never_heard_of"]
)
async def test_one_question_is_one_request(double: HetznerDouble, cloud: CloudProvider, code: str) -> None:
    """The library's own retries (five, up to a minute apart) stay off; Retry-After reaches the actuator."""
    double.fail(CREATE, code, 503, retry_after_s=7)
    with pytest.raises(CloudDown) as raised:
        await cloud.create(ORDER)
    assert raised.value.retry_after_s == 7.0
    assert double.http.asked == [CREATE]


@pytest.mark.parametrize("operation", [CREATE, LIST, TYPES])
async def test_an_answer_of_another_shape_is_no_answer(
    double: HetznerDouble, cloud: CloudProvider, operation: str
) -> None:
    """The library would raise KeyError; a proxy's page and an API of tomorrow end in the same word."""
    for answer in (
        json_answer(200, {"surprise": 1}),
        json_answer(200, []),
        replace(error(502, "", ""), body=b"<html>"),
    ):
        double.http.meet(operation, Fault(answer))
        with pytest.raises(CloudDown):
            await (
                cloud.create(ORDER)
                if operation == CREATE
                else cloud.machines("a")
                if operation == LIST
                else cloud.catalog()
            )


async def test_a_lost_deletion_is_said_again(double: HetznerDouble, cloud: CloudProvider) -> None:
    """It was carried out: the second is no error."""
    made = await cloud.create(ORDER)
    double.lose_answer(DELETE)
    with pytest.raises(CloudDown):
        await cloud.terminate(made.id)
    await cloud.terminate(made.id)
    assert double.books.servers == {}


async def test_what_lists_show_too_long_is_gone_by_its_number(double: HetznerDouble, cloud: CloudProvider) -> None:
    """Lists lag behind a deletion; asked for itself, it is gone."""
    made = await cloud.create(ORDER)
    double.books.lag(True)
    await cloud.terminate(made.id)
    assert [machine.id for machine in await cloud.machines("ours")] == [made.id]
    assert await cloud.machine(made.id) is None
    await cloud.terminate(made.id)


async def test_prices_are_those_of_the_location_with_tax(double: HetznerDouble, cloud: CloudProvider) -> None:
    """What leaves the account; what has run out is not offered."""
    double.books.out_of_stock.add(("cx33", "nbg1"))
    products = {(product.type, product.region): product for product in await cloud.catalog()}
    assert products["cx33", "fsn1"].price_eur_h == pytest.approx(0.0088 * 1.19)
    assert (products["cx33", "fsn1"].cpus, products["cx33", "fsn1"].memory_bytes) == (4, 8 * 1024**3)
    assert products["cx33", "fsn1"].billing_s == 3600
    assert ("cx33", "nbg1") not in products


async def test_user_data_and_keys_arrive(double: HetznerDouble, cloud: CloudProvider) -> None:
    """As ordered, to the byte."""
    made = await cloud.create(ORDER)
    assert double.books.user_data[int(made.id)] == ORDER.user_data


class OneRoom:
    """A machine that takes a step each time it is asked for."""

    def __init__(self) -> None:
        self.built: list[tuple[str, str, str]] = []
        self._steps = ["initializing", "running", "running"]

    def build(self, number: int, name: str, image: str, user_data: str) -> str:
        """There is one."""
        self.built.append((name, image, user_data))
        return f"10.0.0.{number % 250}"

    def status(self, number: int) -> str | None:
        """The next step; the last is that nothing is left."""
        return self._steps.pop(0) if self._steps else None

    def end(self, number: int) -> None:
        """It takes a while."""
        self._steps = ["deleting"]


async def test_a_server_is_what_became_of_the_machine_behind_it(tmp_path: Path) -> None:
    """Its address, its state and its end are the machine's own, and it is told what was ordered, to the byte."""
    room = OneRoom()
    double = HetznerDouble("not-a-secret", Books(images=("golden",), metal=room))
    options = {"base_url": double.base_url, "token_env": "T"}
    cloud = open_provider(ProviderConfig("h", "hetzner", options, tmp_path, {"T": "not-a-secret"}))
    try:
        made = await cloud.create(replace(ORDER, image="1"))
        assert room.built == [(ORDER.name, "golden", ORDER.user_data)]
        assert made.address == f"10.0.0.{int(made.id) % 250}"
        seen = [machine.power for _ in range(2) for machine in await cloud.machines("ours")]
        assert seen == [Power.PENDING, Power.RUNNING]
        await cloud.terminate(made.id)
        assert [machine.power for machine in await cloud.machines("ours")] == [Power.ENDING]
        assert await cloud.machine(made.id) is None
    finally:
        await cloud.close()
        double.close()


def test_the_doubles_label_selectors() -> None:
    """The double must not be kinder than the API: it selects, and refuses what it does not know."""
    labels = {"a": "1", "b": "2"}
    assert selects("a=1,b==2,a!=2,!c,b", labels)
    assert not selects("a=1,b=3", labels)
    assert not selects("!a", labels)


_LABELS = {"labels": {"mcpfleet-cluster": "ours"}}
