"""EC2 through boto3, on demand and spot. Idempotency is twofold: a look by tag, and EC2's own ClientToken.

The look finds what was made long ago, or with other parameters; the token what no list shows yet. One
provider spans the regions that are named: an id is `region/i-…`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.autoscaler.cloud import tags
from orchestrator.autoscaler.cloud.ec2_options import Ec2Options, request_of
from orchestrator.autoscaler.cloud.ec2_wire import GONE, OTHER_PARAMETERS, Ec2Wire, Keys, code_of
from orchestrator.autoscaler.cloud.errors import CloudDown, OrderRefused, OutOfCapacity
from orchestrator.autoscaler.cloud.options import read_options, secret, vendor
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, Notice, Order, Power, Product, ProviderConfig
from orchestrator.autoscaler.cloud.threads import VendorThreads
from tasks.clock import Clock, SystemClock
from tasks.errors import SettingsError, near

POWER = {
    "pending": Power.PENDING,
    "running": Power.RUNNING,
    "shutting-down": Power.ENDING,
    "stopping": Power.STOPPED,
    "stopped": Power.STOPPED,
}
"""What is in no other state is terminated: still listed for an hour, and gone for us."""
BILLING_S = 60.0
"""By the second, a minute at least. Source: https://aws.amazon.com/ec2/pricing/."""
MIB_BYTES = 1024**2
SPOT_NOTICE_S = 120.0
"""Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html."""
MARKED = ("marked-for-termination", "marked-for-stop")
ID = re.compile(r"([a-z]{2}(?:-[a-z]+)+-\d+)/(i-[0-9a-f]{8,17})")
ZONE = re.compile(r"([a-z]{2}(?:-[a-z]+)+-\d+)[a-z]")
Form = dict[str, Any]


class Ec2Provider:
    """Satisfies `CloudProvider`."""

    def __init__(self, name: str, options: Ec2Options, keys: Keys, clock: Clock) -> None:
        self._name = name
        self._options = options
        self._clock = clock
        self._threads = VendorThreads(name)
        self._wire = Ec2Wire(name, keys, options.endpoint_url, options.answer_within_s)

    async def create(self, order: Order) -> Machine:
        """The instance of this claim, made now or earlier."""
        region, zone = self._place(order.region)
        async with self._threads.bounded():
            return await self._threads.run(lambda: self._create(order, region, zone))

    async def machines(self, cluster: str) -> list[Machine]:
        """Of all regions, or an error: a region left out would look like machines that are gone."""
        filters = [{"Name": f"tag:{tags.CLUSTER}", "Values": [cluster]}]
        async with self._threads.bounded():
            found = await asyncio.gather(
                *(
                    self._threads.run(lambda region=region: self._listed(region, filters))  # type: ignore[misc]
                    for region in self._options.regions
                )
            )
        return [machine for each in found for machine in each]

    async def machine(self, machine_id: str) -> Machine | None:
        """Also in a region that the options name no more."""
        async with self._threads.bounded():
            return await self._threads.run(lambda: self._one(machine_id))

    async def terminate(self, machine_id: str) -> None:
        """Its disk goes with it, where the image says so as usual."""
        async with self._threads.bounded():
            await self._threads.run(lambda: self._end(machine_id))

    async def catalog(self) -> list[Product]:
        """Types that the options name, where a region has them."""
        async with self._threads.bounded():
            found = await asyncio.gather(
                *(
                    self._threads.run(lambda region=region: self._products(region))  # type: ignore[misc]
                    for region in self._options.regions
                )
            )
        return [product for each in found for product in each]

    async def notices(self, cluster: str) -> list[Notice]:
        """Spot instances that EC2 takes back."""
        async with self._threads.bounded():
            found = await asyncio.gather(
                *(
                    self._threads.run(lambda region=region: self._marked(region, cluster))  # type: ignore[misc]
                    for region in self._options.regions
                )
            )
        return [notice for each in found for notice in each]

    async def close(self) -> None:
        """Instances stay."""
        self._threads.close()
        self._wire.close()

    def _place(self, wanted: str) -> tuple[str, str]:
        """Region and availability zone; a rung may name either, or nothing where there is one region."""
        known = self._options.regions
        if not wanted and len(known) == 1:
            return known[0], ""
        zone = ZONE.fullmatch(wanted)
        region, zone_name = (zone[1], wanted) if zone else (wanted, "")
        if region not in known:
            raise OrderRefused(self._name, f"its regions have no {wanted!r}{near(region, known)}")
        return region, zone_name

    def _create(self, order: Order, region: str, zone: str) -> Machine:
        with self._wire.translated(order):
            client = self._wire.client(region)
            made = self._of_claim(region, order)
            if made is not None:
                return made
            request = request_of(order, self._options, region, zone)
            if request is None:
                raise OrderRefused(self._name, f"neither the rung nor images.{region} names an image")
            from botocore.exceptions import ClientError

            try:
                answer = client.run_instances(ClientToken=_token(order, zone or region), **request)
            except ClientError as error:
                if code_of(error) != OTHER_PARAMETERS:
                    raise
                return self._made_otherwise(region, order)
        instance = answer["Instances"][0]
        if instance["State"]["Name"] not in POWER:
            raise OutOfCapacity(self._name, order.type, "the instance of this claim was made and has ended")
        return self._machine(instance, region)

    def _made_otherwise(self, region: str, order: Order) -> Machine:
        """With other user data, for example: whoever ordered first wrote another token into it."""
        made = self._of_claim(region, order)
        if made is None:
            raise CloudDown(self._name, "an instance of this claim was ordered, and no list shows it yet")
        return made

    def _of_claim(self, region: str, order: Order) -> Machine | None:
        wanted = {tags.CLUSTER: order.cluster, tags.CLAIM: order.claim}
        found = self._listed(region, [{"Name": f"tag:{name}", "Values": [value]} for name, value in wanted.items()])
        return found[0] if found else None

    def _listed(self, region: str, filters: list[Form]) -> list[Machine]:
        there = [{"Name": "instance-state-name", "Values": list(POWER)}]
        with self._wire.translated():
            pages = self._wire.client(region).get_paginator("describe_instances")
            answers = pages.paginate(Filters=[*filters, *there], PaginationConfig={"PageSize": 200})
            return [self._machine(instance, region) for answer in answers for instance in _instances(answer)]

    def _one(self, machine_id: str) -> Machine | None:
        region, instance_id = _parted(machine_id)
        if not instance_id:
            return None
        from botocore.exceptions import ClientError

        with self._wire.translated():
            try:
                answer = self._wire.client(region).describe_instances(InstanceIds=[instance_id])
            except ClientError as error:
                if code_of(error) in GONE:
                    return None
                raise
        there = [instance for instance in _instances(answer) if instance["State"]["Name"] in POWER]
        return self._machine(there[0], region) if there else None

    def _end(self, machine_id: str) -> None:
        region, instance_id = _parted(machine_id)
        if not instance_id:
            return
        from botocore.exceptions import ClientError

        with self._wire.translated():
            try:
                self._wire.client(region).terminate_instances(InstanceIds=[instance_id])
            except ClientError as error:
                if code_of(error) not in GONE:
                    raise

    def _products(self, region: str) -> list[Product]:
        types = self._options.all_types()
        if not types:
            return []
        with self._wire.translated():
            client = self._wire.client(region)
            pages = client.get_paginator("describe_instance_types").paginate(
                Filters=[{"Name": "instance-type", "Values": types}]
            )
            kinds = [kind for answer in pages for kind in answer["InstanceTypes"]]
            spot = self._spot_prices(client, [kind["InstanceType"] for kind in kinds])
        return [product for kind in kinds for product in self._of_type(kind, region, spot)]

    def _of_type(self, kind: Form, region: str, spot: dict[str, float]) -> Iterator[Product]:
        name = kind["InstanceType"]
        for use in kind.get("SupportedUsageClasses", ["on-demand"]):
            if use in {"on-demand", "spot"}:
                yield Product(
                    type=name,
                    region=region,
                    is_spot=use == "spot",
                    price_eur_h=spot.get(name) if use == "spot" else self._options.price_eur_h(region, name),
                    billing_s=BILLING_S,
                    cpus=int(kind["VCpuInfo"]["DefaultVCpus"]),
                    memory_bytes=int(kind["MemoryInfo"]["SizeInMiB"]) * MIB_BYTES,
                )

    def _spot_prices(self, client: Any, types: list[str]) -> dict[str, float]:  # noqa: ANN401 - see Ec2Wire.client
        """€/h of the dearest zone, because EC2 may choose it."""
        if self._options.eur_per_usd is None or not types:
            return {}
        pages = client.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=types,
            ProductDescriptions=["Linux/UNIX", "Linux/UNIX (Amazon VPC)"],
            StartTime=self._clock.wall_s(),
        )
        prices: dict[str, float] = {}
        for answer in pages:
            for seen in answer["SpotPriceHistory"]:
                price = float(seen["SpotPrice"]) * self._options.eur_per_usd
                prices[seen["InstanceType"]] = max(price, prices.get(seen["InstanceType"], 0.0))
        return prices

    def _marked(self, region: str, cluster: str) -> list[Notice]:
        """Those of the whole account, which are few, then which of them are ours."""
        with self._wire.translated():
            pages = (
                self._wire.client(region)
                .get_paginator("describe_spot_instance_requests")
                .paginate(Filters=[{"Name": "status-code", "Values": list(MARKED)}])
            )
            marked = {
                request["InstanceId"]: request["Status"]["UpdateTime"].timestamp() + SPOT_NOTICE_S
                for answer in pages
                for request in answer["SpotInstanceRequests"]
                if request.get("InstanceId") and request["Status"]["Code"] in MARKED
            }
        if not marked:
            return []
        ours = self._listed(region, [{"Name": f"tag:{tags.CLUSTER}", "Values": [cluster]}])
        return [Notice(each.id, marked[known]) for each in ours if (known := _parted(each.id)[1]) in marked]

    def _machine(self, instance: Form, region: str) -> Machine:
        named = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        public, private = instance.get("PublicIpAddress"), instance.get("PrivateIpAddress")
        return Machine(
            id=f"{region}/{instance['InstanceId']}",
            name=named.get("Name", ""),
            claim=named.get(tags.CLAIM, ""),
            power=POWER[instance["State"]["Name"]],
            address=private if self._options.address == "private" else public or private,
            type=instance["InstanceType"],
            region=region,
            is_spot=instance.get("InstanceLifecycle") == "spot",
            created_at=instance["LaunchTime"].timestamp(),
            expires_at=tags.expiry(named),
        )


def open_ec2(config: ProviderConfig) -> CloudProvider:
    """Kind `ec2`."""
    options = read_options(Ec2Options, config)
    if not options.regions:
        raise SettingsError(f"{config.place} regions is empty; name at least one")
    keys = Keys(
        secret(config, "access_key", variable=options.access_key_env, file=options.access_key_file),
        secret(config, "secret_key", variable=options.secret_key_env, file=options.secret_key_file),
        secret(config, "session_token", variable=options.session_token_env, file=options.session_token_file),
        options.profile,
    )
    if (keys.access_key is None) != (keys.secret_key is None):
        raise SettingsError(f"{config.place} names only one of access_key and secret_key; it needs both")
    vendor(config, "boto3", extra="ec2")
    return Ec2Provider(config.name, options, keys, SystemClock())


def _token(order: Order, place: str) -> str:
    """One for each way of getting the claim's machine: another rung is another request."""
    way = "\0".join((order.cluster, order.type, place, order.image, str(order.is_spot)))
    return f"{order.claim}-{hashlib.sha256(way.encode()).hexdigest()[:16]}"


def _parted(machine_id: str) -> tuple[str, str]:
    """Region and instance; empty where that is no id of ours."""
    found = ID.fullmatch(machine_id)
    return (found[1], found[2]) if found else ("", "")


def _instances(answer: Form) -> list[Form]:
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
