"""What is the own of DigitalOcean, Linode and Vultr, and what apache-libcloud makes of them.

A test for all three takes each double in turn; the drivers are the real ones, over HTTP.
"""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator.autoscaler.cloud.digitalocean import DigitalOcean, DigitalOceanOptions
from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused
from orchestrator.autoscaler.cloud.intents import SETTLE_S, Intents
from orchestrator.autoscaler.cloud.libcloud_base import LibcloudOptions, LibcloudProvider, Vendor
from orchestrator.autoscaler.cloud.linode import Linode
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Order, ProviderConfig
from orchestrator.autoscaler.cloud.vultr import Vultr, VultrOptions
from orchestrator.autoscaler.testing.digitalocean_double import DigitalOceanDouble
from orchestrator.autoscaler.testing.faulty_http import Answer, Asked, Fault, json_answer
from orchestrator.autoscaler.testing.linode_double import LinodeDouble
from orchestrator.autoscaler.testing.vendor_double import Form, VendorDouble
from orchestrator.autoscaler.testing.vultr_double import VultrDouble

TOKEN = "not-a-secret"
USER_DATA = '#cloud-config\n{"users": ["ü"]}\n'


@dataclass(frozen=True)
class Case:
    """One vendor."""

    kind: str
    double: type[VendorDouble]
    vendor: type[Vendor]
    type: str
    region: str

    def order(self) -> Order:
        """Of its cheaper size."""
        return Order("aaaaaaaaa2", "pool-a", "ours", "pool", type=self.type, region=self.region, user_data=USER_DATA)


CASES = (
    Case("digitalocean", DigitalOceanDouble, DigitalOcean, "s-1vcpu-1gb", "fra1"),
    Case("linode", LinodeDouble, Linode, "g6-nanode-1", "eu-central"),
    Case("vultr", VultrDouble, Vultr, "vc2-1c-1gb", "ewr"),
)
BY_KIND = {case.kind: case for case in CASES}
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
NAMELESS = pytest.mark.parametrize("case", [BY_KIND["digitalocean"], BY_KIND["vultr"]], ids=lambda case: case.kind)


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def mono_s(self) -> float:
        """The same."""
        return self.now


@pytest.fixture
def double(case: Case) -> Iterator[VendorDouble]:
    """An account."""
    made = case.double(TOKEN)
    yield made
    made.close()


@asynccontextmanager
async def opened(case: Case, double: VendorDouble, folder: Path, **options: object) -> AsyncIterator[CloudProvider]:
    """As a pools file says."""
    table = {"base_url": double.http.url, "token_env": "T", **options}
    cloud = open_provider(ProviderConfig("mine", case.kind, table, folder, {"T": TOKEN}))
    yield cloud
    await cloud.close()


@EVERY
async def test_all_pages_are_read(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """A fleet larger than a page: what is on the last must not look like gone."""
    async with opened(case, double, tmp_path) as cloud:
        made = await cloud.create(case.order())
        form = double.machines[made.id]
        for number in range(1, 501):
            other = f"{made.id[:-6]}{number:06d}"
            double.machines[other] = form | {"id": int(other) if other.isdecimal() else other}
        asked = len(double.http.asked)
        assert len(await cloud.machines("ours")) == len(double.machines)
        assert double.http.asked[asked:].count(double.listing) == (3 if case.kind == "digitalocean" else 2)


@EVERY
@pytest.mark.parametrize("page", [0, 1])
async def test_a_page_of_another_shape_makes_no_short_list(
    case: Case, page: int, double: VendorDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver takes the list for over there; a machine that is missing in a list would look like gone."""
    async with opened(case, double, tmp_path) as cloud:
        form = double.machines[(await cloud.create(case.order())).id]
        for number in range(1, 501):
            other = f"{str(form['id'])[:-6]}{number:06d}"
            double.machines[other] = form | {"id": int(other) if other.isdecimal() else other}
        answered, pages = double.page, count()

        def spoiled(asked: Asked, key: str, forms: list[Form]) -> Form:
            body = answered(asked, key, forms)
            return {name: body[name] for name in body if name != key} if next(pages) == page else body

        monkeypatch.setattr(double, "page", spoiled)
        with pytest.raises(CloudDown):
            await cloud.machines("ours")


@EVERY
async def test_a_foreign_machine_of_unknown_form_hides_none_of_ours(
    case: Case, double: VendorDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another fleet's or nobody's, in an account that is shared; not even where the name is looked up."""
    async with opened(case, double, tmp_path) as cloud:
        made = await cloud.create(case.order())
        listed = double._listed
        monkeypatch.setattr(double, "_listed", lambda: [{"id": 1, "tags": []}, *listed()])
        assert [machine.id for machine in await cloud.machines("ours")] == [made.id]
        assert (await cloud.create(case.order())).id == made.id


@EVERY
async def test_user_data_and_tags_arrive_with_the_order(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """To the byte, encoded once, and in the order itself: a machine is never there without its tags."""
    async with opened(case, double, tmp_path) as cloud:
        wanted = double.wanted[(await cloud.create(case.order())).id]
    said = wanted.get("metadata", wanted)["user_data"]
    assert (said if case.kind == "digitalocean" else base64.b64decode(said).decode()) == USER_DATA
    assert {"mcpfleet-cluster:ours", "mcpfleet-claim:aaaaaaaaa2"} <= set(wanted["tags"])


@EVERY
async def test_an_answer_of_another_shape_is_no_answer(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """A proxy's page and an API of tomorrow: never an empty list, which would look like machines that are gone."""
    strange = (json_answer(200, {"surprise": 1}), json_answer(200, []), Answer(200, b"<html>"), Answer(502, b"<html>"))
    async with opened(case, double, tmp_path) as cloud:
        for answer in strange:
            for operation, ask in (
                (double.listing, lambda: cloud.machines("ours")),
                (double.operations[-1], cloud.catalog),
            ):
                double.http.meet(operation, Fault(answer))
                with pytest.raises(CloudDown):
                    await ask()


@EVERY
async def test_libclouds_switches_of_the_environment_do_nothing(
    case: Case, double: VendorDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question is one request, whatever the orchestrator was started with."""
    monkeypatch.setenv("LIBCLOUD_RETRY_FAILED_HTTP_REQUESTS", "1")
    async with opened(case, double, tmp_path) as cloud:
        double.fail(double.listing, 429, "Too many requests", times=3, retry_after_s=7)
        with pytest.raises(CloudDown) as raised:
            await cloud.machines("ours")
    assert raised.value.retry_after_s == 7.0
    assert double.http.asked == [double.listing]


@EVERY
async def test_libclouds_own_log_of_requests_never_has_the_token(
    case: Case, double: VendorDouble, tmp_path: Path
) -> None:
    """LIBCLOUD_DEBUG writes every request with its headers into a file; ours do not go that way."""
    import libcloud

    log = io.StringIO()
    libcloud.enable_debug(log)
    try:
        async with opened(case, double, tmp_path) as cloud:
            await cloud.create(case.order())
        assert TOKEN not in log.getvalue()
    finally:
        libcloud.reset_debug()


@EVERY
async def test_prices_are_in_euros_where_the_rate_is_known(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """All three tell dollars; without a rate a price is not known, which no budget takes for nothing."""
    async with opened(case, double, tmp_path) as cloud:
        assert {product.price_eur_h for product in await cloud.catalog()} == {None}
    async with opened(case, double, tmp_path, eur_per_usd=0.5) as cloud:
        products = {(product.type, product.region): product for product in await cloud.catalog()}
    wanted = {"digitalocean": 0.00893, "linode": 0.0075, "vultr": 5 / 730}[case.kind]
    found = products[case.type, case.region]
    assert found.price_eur_h == pytest.approx(wanted * 0.5)
    assert (found.cpus, found.memory_bytes) == (1, 1024**3)


@EVERY
async def test_a_lost_deletion_is_said_again(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """It was carried out: the second is no error."""
    async with opened(case, double, tmp_path) as cloud:
        made = await cloud.create(case.order())
        double.lose_answer(double.delete)
        with pytest.raises(CloudDown):
            await cloud.terminate(made.id)
        await cloud.terminate(made.id)
    assert double.machines == {}


@EVERY
async def test_only_the_apis_own_words_say_that_a_machine_is_gone(
    case: Case, double: VendorDouble, tmp_path: Path
) -> None:
    """A proxy's page with the same status: else a machine that is paid for would be taken for ended."""
    async with opened(case, double, tmp_path) as cloud:
        made = await cloud.create(case.order())
        for answer in (Answer(404, b"<html>Not Found</html>"), Answer(404)):
            for operation, ask in ((f"GET {double.path}/*", cloud.machine), (double.delete, cloud.terminate)):
                double.http.meet(operation, Fault(answer))
                with pytest.raises(CloudDown):
                    await ask(made.id)


@EVERY
async def test_a_private_address_is_taken_where_asked_for(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """Machines that are reached through a network."""
    async with opened(case, double, tmp_path, address="private") as cloud:
        made = await cloud.create(case.order())
        for _ in range(3):
            found = await cloud.machine(made.id)
    assert found is not None
    assert (found.address or "").startswith(("10.", "192.168."))


@EVERY
async def test_a_region_is_asked_for(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """Before anything is sent: the vendors would choose one, or fail."""
    async with opened(case, double, tmp_path) as cloud:
        with pytest.raises(OrderRefused, match="a rung names a type and a region"):
            await cloud.create(replace(case.order(), region=""))
    assert double.http.asked == []


@NAMELESS
async def test_an_order_of_unknown_outcome_is_sent_again_when_lists_had_their_time(
    case: Case, double: VendorDouble, tmp_path: Path
) -> None:
    """Not before, by any orchestrator of this host; and not never, because it may have failed."""
    clock = Hands()
    double.fail(double.create, 500, "Unexpected server-side error")
    made: list[Machine] = []
    for passed_s, is_sent in ((0.0, True), (SETTLE_S - 1, False), (2.0, True)):
        clock.now += passed_s
        before = double.http.asked.count(double.create)
        cloud = _with_clock(case, double, tmp_path, clock)
        try:
            made.append(await cloud.create(case.order()))
        except CloudDown:
            assert not double.machines
        await cloud.close()
        assert (double.http.asked.count(double.create) > before) is is_sent
    assert len(made) == len(double.machines) == 1


@NAMELESS
async def test_a_machine_that_shows_nowhere_yet_is_not_ordered_again(
    case: Case, double: VendorDouble, tmp_path: Path
) -> None:
    """Its id is known, lists lag, and even the question for that id is answered by a replica that lags."""
    double.lag(True)
    async with opened(case, double, tmp_path) as cloud:
        await cloud.create(case.order())
        double.fail(f"GET {double.path}/*", 404, "Not found")
        with pytest.raises(CloudDown, match="no machine of it shows yet"):
            await cloud.create(case.order())
    assert len(double.machines) == 1


@EVERY
async def test_a_size_that_is_unknown_is_named(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """With the region and the vendor's words; some say no more than that a plan is invalid."""
    async with opened(case, double, tmp_path) as cloud:
        with pytest.raises(OrderRefused, match=rf"no-such in {case.region}: .*; correct the pool's ladder"):
            await cloud.create(replace(case.order(), type="no-such"))


@NAMELESS
async def test_a_refused_order_may_be_sent_again_at_once(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """The cloud said that it did nothing: there is nothing to wait for."""
    double.fail(double.create, 422, "no")
    async with opened(case, double, tmp_path) as cloud:
        with pytest.raises(OrderRefused):
            await cloud.create(case.order())
        await cloud.create(case.order())
    assert len(double.machines) == 1


@NAMELESS
async def test_of_two_machines_of_a_claim_all_take_the_oldest(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """Two hosts ordered while neither was listed; reconciliation ends the other."""
    async with opened(case, double, tmp_path / "a") as cloud:
        first = await cloud.create(case.order())
        double.lag(True)
        double._seen = {}
        async with opened(case, double, tmp_path / "b") as other:
            second = await other.create(case.order())
            double.lag(False)
            assert first.id != second.id
            (tmp_path / "b" / "aaaaaaaaa2.json").unlink()
            assert (await other.create(case.order())).id == first.id


@pytest.mark.parametrize("case", [BY_KIND["linode"]])
async def test_what_a_region_has_run_out_of_is_not_offered(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """Nor is a region without machines; where a region has a price of its own, that is it."""
    double.out_of_stock.add(("g6-nanode-1", "br-gru"))
    async with opened(case, double, tmp_path, eur_per_usd=1.0) as cloud:
        prices = {(product.type, product.region): product.price_eur_h for product in await cloud.catalog()}
    assert prices == {
        ("g6-nanode-1", "eu-central"): 0.0075,
        ("g6-standard-1", "eu-central"): 0.018,
        ("g6-standard-1", "br-gru"): 0.021,
    }


@pytest.mark.parametrize("case", [BY_KIND["linode"]])
async def test_a_label_of_somebody_elses_is_an_order_refused(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """Their machine is neither taken over nor ended."""
    async with opened(case, double, tmp_path) as cloud:
        made = await cloud.create(case.order())
        double.machines[made.id]["tags"] = []
        with pytest.raises(OrderRefused, match="belongs to a machine of somebody else"):
            await cloud.create(case.order())


@pytest.mark.parametrize("case", [BY_KIND["linode"]])
async def test_a_label_that_libcloud_refuses_is_an_order_refused(
    case: Case, double: VendorDouble, tmp_path: Path
) -> None:
    """Linode's labels begin with a letter and have no two dashes in a row; a pool's name may."""
    async with opened(case, double, tmp_path) as cloud:
        with pytest.raises(OrderRefused, match=r"libcloud does not send it: Invalid name"):
            await cloud.create(replace(case.order(), name="two--dashes"))


@pytest.mark.parametrize("case", [BY_KIND["linode"]])
async def test_a_tag_that_is_too_long_is_refused_beforehand(case: Case, double: VendorDouble, tmp_path: Path) -> None:
    """Linode takes 50 characters, a cluster's name may have 41."""
    async with opened(case, double, tmp_path) as cloud:
        with pytest.raises(OrderRefused, match=r"has 58 characters and 50 are taken"):
            await cloud.create(replace(case.order(), cluster="c" * 41))
    assert double.machines == {}


@pytest.mark.parametrize(
    ("kind", "image", "sent"),
    [
        ("digitalocean", "", {"image": "debian-12-x64"}),
        ("digitalocean", "157239144", {"image": 157239144}),
        ("linode", "private/12345", {"image": "private/12345"}),
        ("vultr", "2284", {"os_id": 2284}),
        ("vultr", "a3bf0ec8-0000-4000-8000-000000000001", {"snapshot_id": "a3bf0ec8-0000-4000-8000-000000000001"}),
    ],
)
async def test_images_go_out_as_the_api_has_them(
    kind: str, image: str, sent: dict[str, object], tmp_path: Path
) -> None:
    """Numbers as numbers: libcloud makes a text of each. Snapshots are what a golden rung boots."""
    case = BY_KIND[kind]
    double = case.double(TOKEN)
    try:
        async with opened(case, double, tmp_path) as cloud:
            made = await cloud.create(replace(case.order(), image=image))
        assert sent.items() <= double.wanted[made.id].items()
    finally:
        double.close()


def _with_clock(case: Case, double: VendorDouble, folder: Path, clock: Hands) -> LibcloudProvider:
    options = LibcloudOptions(base_url=double.http.url)
    own = VultrOptions() if case.kind == "vultr" else DigitalOceanOptions()
    vendor = case.vendor(own)  # type: ignore[call-arg]
    return LibcloudProvider(
        "mine", vendor, options, SecretStr(TOKEN), intents=Intents("mine", folder, clock), clock=clock
    )
