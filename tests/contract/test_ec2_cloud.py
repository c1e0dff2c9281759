"""What is EC2's own: tokens, regions and zones, its many words for no, what an order becomes."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.ec2_options import Ec2Options, request_of
from orchestrator.autoscaler.cloud.errors import (
    CloudDown,
    CredentialsRefused,
    OrderRefused,
    OutOfCapacity,
    QuotaReached,
)
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Order, ProviderConfig
from orchestrator.autoscaler.testing.faulty_http import Answer, Fault
from tasks.errors import SettingsError
from tests.contract.ec2_front import LIST, RUN, Ec2Front, living, moto_client

ORDER = Order("aaaaaaaaa2", "pool-a", "ec2-tests", "pool", type="t3.medium", region="eu-central-1")
KEYS = {"access_key_env": "A", "secret_key_env": "B"}
OPTIONS = {"regions": ["eu-central-1"], "images": {"eu-central-1": "ami-12c6146b"}, "prices": {"t3.medium": 0.04}}


@pytest.fixture
def front(moto_url: str) -> Iterator[Ec2Front]:
    """In front of moto; the test's instances are ended."""
    made = Ec2Front(moto_url)
    yield made
    made.close()
    if ours := living(moto_url, ORDER.cluster):
        moto_client(moto_url).terminate_instances(InstanceIds=ours)


@pytest.fixture
async def cloud(front: Ec2Front, tmp_path: Path) -> AsyncIterator[CloudProvider]:
    """Over real boto3."""
    options = OPTIONS | KEYS | {"endpoint_url": front.http.url, "eur_per_usd": 0.9}
    environ = {"A": "not-a-key", "B": "not-a-secret"}
    opened = open_provider(ProviderConfig("aws", "ec2", options, tmp_path, environ))
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("code", "status", "ours"),
    [
        ("InsufficientInstanceCapacity", 500, OutOfCapacity),
        ("SpotMaxPriceTooLow", 400, OutOfCapacity),
        ("MaxSpotInstanceCountExceeded", 400, QuotaReached),
        ("VcpuLimitExceeded", 400, QuotaReached),
        ("InstanceLimitExceeded", 400, QuotaReached),
        ("UnauthorizedOperation", 403, CredentialsRefused),
        ("AuthFailure", 401, CredentialsRefused),
        ("RequestExpired", 400, CredentialsRefused),
        ("InvalidAMIID.NotFound", 400, OrderRefused),
        ("NeverHeardOf", 400, OrderRefused),
        ("RequestLimitExceeded", 503, CloudDown),
        ("NeverHeardOf", 500, CloudDown),
    ],
)
async def test_ec2s_words_become_ours(
    front: Ec2Front, cloud: CloudProvider, code: str, status: int, ours: type[Exception]
) -> None:
    """One request, one answer: the library does not try on its own."""
    front.fail(RUN, code, status)
    with pytest.raises(ours):
        await cloud.create(ORDER)
    assert front.http.asked.count(RUN) == 1


async def test_other_user_data_is_the_same_order(front: Ec2Front, cloud: CloudProvider, moto_url: str) -> None:
    """A token in it may be new: EC2 refuses the repeated ClientToken, and the instance is found by its tag."""
    front.http.meet(RUN, Fault(is_carried_out=True))
    with pytest.raises(CloudDown):
        await cloud.create(replace(ORDER, user_data="first"))
    front.lag(True)
    front._hidden_after = 0
    with pytest.raises(CloudDown, match="no list shows it yet"):
        await cloud.create(replace(ORDER, user_data="second"))
    front.lag(False)
    made = await cloud.create(replace(ORDER, user_data="second"))
    assert living(moto_url, ORDER.cluster) == [made.id.partition("/")[2]]


async def test_the_next_rung_is_another_request(front: Ec2Front, cloud: CloudProvider) -> None:
    """The same claim with another type after a refusal is no repeated token."""
    front.fail(RUN, "InsufficientInstanceCapacity", 500)
    with pytest.raises(OutOfCapacity):
        await cloud.create(ORDER)
    assert (await cloud.create(replace(ORDER, type="t3.large"))).type == "t3.large"


async def test_an_instance_of_the_claim_that_has_ended_is_not_made_again(front: Ec2Front, cloud: CloudProvider) -> None:
    """EC2 gives the old one for the old token: it must not be taken for a machine."""
    made = await cloud.create(ORDER)
    await cloud.terminate(made.id)
    front.fail(RUN, "IdempotentInstanceTerminated", 400)
    with pytest.raises(OutOfCapacity):
        await cloud.create(ORDER)


async def test_a_rung_may_name_a_zone(front: Ec2Front, cloud: CloudProvider) -> None:
    """Capacity is a zone's; the region is what machines are listed by."""
    made = await cloud.create(replace(ORDER, region="eu-central-1b"))
    assert made.id.startswith("eu-central-1/i-")
    with pytest.raises(OrderRefused, match=r"no 'eu-central-2', did you mean 'eu-central-1'\?"):
        await cloud.create(replace(ORDER, region="eu-central-2"))


async def test_a_page_that_is_no_answer_is_no_empty_list(front: Ec2Front, cloud: CloudProvider) -> None:
    """A proxy's page, or an answer of another shape, must not make machines look gone."""
    for body in (b"<html>", b"{}", b"<DescribeInstancesResponse/>"):
        front.http.meet(LIST, Fault(Answer(200, body, {"Content-Type": "text/xml"})))
        with pytest.raises(CloudDown):
            await cloud.machines(ORDER.cluster)


async def test_spot_has_a_price_of_its_own(cloud: CloudProvider) -> None:
    """EC2 tells it in dollars; the price on demand is the operator's."""
    prices = {product.is_spot: product.price_eur_h for product in await cloud.catalog()}
    assert prices == {False: 0.04, True: pytest.approx(0.00001 * 0.9)}


async def test_user_data_arrives(cloud: CloudProvider, moto_url: str) -> None:
    """To the byte, encoded once."""
    made = await cloud.create(replace(ORDER, user_data="#cloud-config\nä: 1\n"))
    answer = moto_client(moto_url).describe_instance_attribute(
        InstanceId=made.id.partition("/")[2], Attribute="userData"
    )
    assert base64.b64decode(answer["UserData"]["Value"]).decode() == "#cloud-config\nä: 1\n"


def test_an_order_becomes_a_request_with_what_the_operator_says() -> None:
    """A machine that switches itself off ends; spot is never kept; the metadata service asks for a token."""
    options = Ec2Options(
        regions=("eu-central-1",),
        images={"eu-central-1": "ami-1"},
        subnets={"eu-central-1b": "subnet-b", "eu-central-1": "subnet-any"},
        security_groups={"eu-central-1": ("sg-1",)},
        key_name="ops",
        instance_profile="node",
        spot_max_usd_h=0.01,
    )
    request = request_of(replace(ORDER, is_spot=True), options, "eu-central-1", "eu-central-1b") or {}
    assert request["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert request["MetadataOptions"] == {"HttpTokens": "required"}
    assert request["InstanceMarketOptions"]["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
        "MaxPrice": "0.01",
    }
    assert (request["SubnetId"], request["SecurityGroupIds"]) == ("subnet-b", ["sg-1"])
    assert (request["KeyName"], request["IamInstanceProfile"]) == ("ops", {"Name": "node"})
    assert request_of(ORDER, options, "eu-west-1", "") is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "regions is missing: write it"),
        ({"regions": []}, "regions is empty"),
        ({"regions": ["eu-central-1"], "access_key_env": "A"}, "only one of access_key and secret_key"),
        ({"regions": ["eu-central-1"], "secret_key": "x"}, "secret_key is a secret and does not belong into a file"),
    ],
)
def test_a_wrong_table_of_ec2_says_what_is_wrong(tmp_path: Path, options: dict[str, object], says: str) -> None:
    """Before anybody is asked."""
    with pytest.raises(SettingsError, match=says):
        open_provider(ProviderConfig("aws", "ec2", options, tmp_path, {"A": "not-a-key"}))
