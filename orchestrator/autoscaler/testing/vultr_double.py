"""Vultr's API on loopback, as far as a fleet asks it.

Source: https://www.vultr.com/api/. Labels need not be unique there; the field `tag` of old is not kept.
How the API says that a plan has run out is not documented: these words are of our choosing.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import uuid
from typing import ClassVar

from orchestrator.autoscaler.testing.faulty_http import Asked
from orchestrator.autoscaler.testing.vendor_double import BORN, Form, Refused, VendorDouble

REGIONS = ("fra", "ewr")
SYSTEMS = frozenset({2136, 2284})


def _plan(name: str, vcpus: int, memory: int, usd_month: float, **more: float) -> Form:
    return {
        "id": name,
        "vcpu_count": vcpus,
        "ram": memory,
        "disk": 25 * vcpus,
        "disk_count": 1,
        "bandwidth": 1024,
        "monthly_cost": usd_month,
        "type": "vc2",
        "locations": list(REGIONS),
        **more,
    }


PLANS = [_plan("vc2-1c-1gb", 1, 1024, 5), _plan("vc2-2c-4gb", 2, 4096, 20, hourly_cost=0.027)]


class VultrDouble(VendorDouble):
    """One account."""

    path = "/v2/instances"
    key = "instances"
    lists: ClassVar = {"/v2/plans": ("plans", PLANS)}
    created = 202
    boots = ("pending", "active")

    def __init__(self, token: str) -> None:
        self._ids = itertools.count(1)
        super().__init__(token)

    def refusal(self, refused: Refused) -> Form:
        """A message and the status again."""
        return {"error": refused.words, "status": refused.status}

    def made(self, wanted: Form) -> Form:
        """An instance."""
        plans = {plan["id"]: plan for plan in PLANS}
        if wanted.get("plan") not in plans:
            raise Refused(400, "Invalid plan.")
        if wanted.get("region") not in REGIONS:
            raise Refused(400, "Invalid region.")
        if wanted.get("os_id") not in SYSTEMS and not wanted.get("snapshot_id"):
            raise Refused(400, "Invalid operating system.")
        try:
            base64.b64decode(wanted.get("user_data", ""), validate=True)
        except binascii.Error:
            raise Refused(400, "Invalid user data.") from None
        if len(self.machines) >= self.limit:
            raise Refused(
                400,
                "Server add failed: You have reached the maximum number of active virtual machines for this account.",
            )
        if (wanted["plan"], wanted["region"]) in self.out_of_stock:
            raise Refused(400, "Server add failed: This plan is not available in the selected datacenter.")
        return self._instance(wanted, plans[wanted["plan"]])

    def one(self, machine: Form) -> Form:
        """With its address, once it is there."""
        return {"instance": _shown(machine)}

    def page(self, asked: Asked, key: str, forms: list[Form]) -> Form:
        """From the cursor on."""
        size = int(asked.query.get("per_page", ["100"])[0])
        start = int(asked.query.get("cursor", ["0"])[0])
        following = str(start + size) if start + size < len(forms) else ""
        links = {"next": following, "prev": ""}
        found = [_shown(each) for each in forms[start : start + size]]
        return {key: found, "meta": {"total": len(forms), "links": links}}

    def _instance(self, wanted: Form, plan: Form) -> Form:
        return {
            "id": str(uuid.UUID(int=next(self._ids) * 0x100 + 0xAB)),
            "os": "Debian 12 x64 (bookworm)",
            "ram": plan["ram"],
            "disk": plan["disk"],
            "main_ip": "0.0.0.0",  # noqa: S104 - what the API shows
            "vcpu_count": plan["vcpu_count"],
            "region": wanted["region"],
            "plan": plan["id"],
            "date_created": f"{BORN}+00:00",
            "status": "pending",
            "allowed_bandwidth": 1,
            "power_status": "running",
            "server_status": "none",
            "label": wanted["label"],
            "internal_ip": "",
            "hostname": wanted.get("hostname", ""),
            "tag": "",
            "tags": list(wanted.get("tags") or []),
            "os_id": wanted.get("os_id", 164),
            "features": [],
        }


def _shown(form: Form) -> Form:
    if form.get("status") != "active":
        return form
    host = int(form["id"][-4:-2], 16) + 1
    return form | {"main_ip": f"203.0.113.{host}", "internal_ip": f"10.1.96.{host}", "server_status": "ok"}
