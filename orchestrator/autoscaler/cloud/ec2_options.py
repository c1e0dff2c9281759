"""What an operator says of EC2, and the request that an order becomes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.autoscaler.cloud import tags
from orchestrator.autoscaler.cloud.options import Price, Span
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.cloud.threads import READ_S


@dataclass(frozen=True, slots=True)
class Ec2Options:
    """`[providers.<name>]` with `kind = "ec2"`.

    Attributes:
        regions: where machines may be; all are listed.
        access_key_env: the variable with the key's id; without any key boto3 looks where it always does.
        profile: of boto3's own files, instead of a key.
        endpoint_url: another API than Amazon's; for rehearsals.
        images: by region, where a rung names none; `resolve:ssm:…` too.
        types: of the catalogue, beside those that have a price.
        prices: €/h on demand, by type or by `region/type`; Amazon tells them through another service only.
        eur_per_usd: makes spot prices, which EC2 tells in dollars, comparable; None leaves them unknown.
        spot_max_usd_h: nothing dearer; None: up to the price on demand.
        key_name: of an SSH key pair, the same in all regions.
        subnets: by zone or region.
        security_groups: by region.
        instance_profile: its name; what the machines themselves may do.
        address: where a machine is reached from here; `public` falls back to the private one.
        answer_within_s: of one request; an order whose answer takes longer is asked for again.
    """

    regions: tuple[str, ...]
    access_key_env: str = ""
    access_key_file: str = ""
    secret_key_env: str = ""
    secret_key_file: str = ""
    session_token_env: str = ""
    session_token_file: str = ""
    profile: str = ""
    endpoint_url: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    types: tuple[str, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)
    eur_per_usd: Span | None = None
    spot_max_usd_h: Span | None = None
    key_name: str = ""
    subnets: Mapping[str, str] = field(default_factory=dict)
    security_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instance_profile: str = ""
    address: Literal["public", "private"] = "public"
    answer_within_s: Span = READ_S

    def all_types(self) -> list[str]:
        """Of the catalogue."""
        return sorted({*self.types, *(key.rpartition("/")[2] for key in self.prices)})

    def price_eur_h(self, region: str, kind: str) -> float | None:
        """On demand; None: nobody said."""
        return self.prices.get(f"{region}/{kind}", self.prices.get(kind))


def request_of(order: Order, options: Ec2Options, region: str, zone: str) -> dict[str, Any] | None:
    """The arguments of RunInstances; None: no image is named."""
    image = order.image or options.images.get(region)
    if not image:
        return None
    named = [{"Key": key, "Value": value} for key, value in {"Name": order.name, **tags.tags_of(order)}.items()]
    request: dict[str, Any] = {
        "ImageId": image,
        "InstanceType": order.type,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": order.user_data,
        # a machine that switches itself off, past its date, must not go on costing
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": [{"ResourceType": kind, "Tags": named} for kind in ("instance", "volume")],
    }
    if order.is_spot:
        spot: dict[str, Any] = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if options.spot_max_usd_h is not None:
            spot["MaxPrice"] = str(options.spot_max_usd_h)
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
    if zone:
        request["Placement"] = {"AvailabilityZone": zone}
    subnet = options.subnets.get(zone) or options.subnets.get(region)
    if subnet:
        request["SubnetId"] = subnet
    if groups := options.security_groups.get(region):
        request["SecurityGroupIds"] = list(groups)
    if options.key_name:
        request["KeyName"] = options.key_name
    if options.instance_profile:
        request["IamInstanceProfile"] = {"Name": options.instance_profile}
    return request
