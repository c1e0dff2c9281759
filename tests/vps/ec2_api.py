"""EC2's API by moto, in a process of its own, whose instances are machines that boot on this host.

moto keeps the books. What it says of an instance is made true here: looked at again and again, an instance that is
there is booted with its user data and its private address, and one that is terminated is ended.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from orchestrator.autoscaler.cloud.provider import Power
from tests.contract.ec2_front import Ec2Front, moto_client, moto_server
from tests.vps.api import Account
from tests.vps.centre import DataCentre

REGION, TYPE = "eu-central-1", "t3.micro"
"""A processor and a GiB."""
KEY, SECRET = "not-a-key", "not-a-secret"
KEY_VARIABLE, SECRET_VARIABLE = "DEMO_EC2_KEY", "DEMO_EC2_SECRET"
LOOK_EVERY_S = 0.3
THERE, ENDED = frozenset({"pending", "running"}), frozenset({"shutting-down", "terminated"})
Form = dict[str, Any]
log = structlog.get_logger("mcpfleet.demo")


class Ec2Api:
    """One account. An `Api`; made inside the loop of its data centre, and blocks until moto listens."""

    def __init__(self, centre: DataCentre, image: str, folder: Path) -> None:
        self.centre = centre
        with ExitStack() as closing:  # what fails in here leaves no server behind
            moto_url = closing.enter_context(moto_server(folder / "moto.log"))
            self._front = Ec2Front(moto_url)
            closing.callback(self._front.close)
            self._ec2 = moto_client(moto_url)
            self._image, self._ami = image, str(self._ec2.register_image(Name=image)["ImageId"])
            network = str(centre.wire.gateway.network)
            vpc = self._ec2.create_vpc(CidrBlock=network)["Vpc"]["VpcId"]
            self._subnet: str = self._ec2.create_subnet(VpcId=vpc, CidrBlock=network)["Subnet"]["SubnetId"]
            self._closing = closing.pop_all()
        self._rented: set[str] = set()
        self._making_true = asyncio.create_task(self._make_true())

    def account(self) -> Account:
        """Its subnet is the bridge's network, so that the private addresses of its books are the machines' own."""
        options: dict[str, object] = {"kind": "ec2", "regions": [REGION], "endpoint_url": self._front.http.url}
        options |= {"subnets": {REGION: self._subnet}, "address": "private", "prices": {TYPE: 0.01}}
        options |= {"eur_per_usd": 0.9, "access_key_env": KEY_VARIABLE, "secret_key_env": SECRET_VARIABLE}
        rung = {"type": TYPE, "region": REGION, "image": self._ami}
        return Account(options, rung, {KEY_VARIABLE: KEY, SECRET_VARIABLE: SECRET})

    async def takes(self, name: str) -> None:
        """The machine first, at once; then the books, as if EC2 had noticed."""
        instance = await self.centre.lose(name)
        await asyncio.to_thread(self._ec2.terminate_instances, InstanceIds=[instance])

    def asked(self) -> Mapping[str, int]:
        """Requests by operation."""
        return Counter(self._front.http.asked)

    async def left(self) -> list[str]:
        """As it would tell its customer."""
        instances = await asyncio.to_thread(self._instances)
        ended = [each for each in instances if each["State"]["Name"] != "terminated"]
        return [f"instance {each['InstanceId']} is {each['State']['Name']}" for each in ended]

    async def close(self) -> None:
        """In a thread: who is being answered may wait for this loop."""
        self._making_true.cancel()
        await asyncio.gather(self._making_true, return_exceptions=True)
        await asyncio.to_thread(self._closing.close)

    def _instances(self) -> list[Form]:
        """All: what no filter of the orchestrator's lets through would be left over too."""
        pages = self._ec2.get_paginator("describe_instances").paginate()
        return [each for page in pages for found in page["Reservations"] for each in found["Instances"]]

    async def _make_true(self) -> None:
        while True:
            try:
                for instance in await asyncio.to_thread(self._instances):
                    await self._make_this_true(instance)
            except Exception:  # the top of a loop: what one look could not do, the next one does
                log.exception("instances_not_made_true")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _make_this_true(self, instance: Form) -> None:
        key, state = instance["InstanceId"], instance["State"]["Name"]
        if state in ENDED:
            await self.centre.end(key)
            await self.centre.power(key)  # once nothing of it is left, it is forgotten
        elif state in THERE and key not in self._rented:
            await self._rent(key, instance)
        elif await self.centre.power(key) is Power.STOPPED:  # its InstanceInitiatedShutdownBehavior
            await asyncio.to_thread(self._ec2.terminate_instances, InstanceIds=[key])

    async def _rent(self, key: str, instance: Form) -> None:
        told = await asyncio.to_thread(self._ec2.describe_instance_attribute, InstanceId=key, Attribute="userData")
        named = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        user_data = base64.b64decode(told["UserData"].get("Value", "")).decode()
        assert instance["ImageId"] == self._ami
        await self.centre.rent(key, named.get("Name", key), self._image, user_data, instance["PrivateIpAddress"])
        self._rented.add(key)
