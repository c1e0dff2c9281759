"""Linode's API on loopback, as far as a fleet asks it.

Source: https://techdocs.akamai.com/linode-api/reference/api. A label is unique in its account there. How the
API says that a region is full is not documented: these words are of our choosing.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from typing import ClassVar

from orchestrator.autoscaler.testing.faulty_http import Asked
from orchestrator.autoscaler.testing.vendor_double import BORN, Form, Refused, VendorDouble, numbered

IMAGES = frozenset({"linode/debian12", "linode/ubuntu24.04"})
PASSWORD_CHARS = 11
TAG_CHARS = (3, 50)
LABEL = re.compile(r"[a-zA-Z0-9]((?!--|__|\.\.)[a-zA-Z0-9._-]){1,62}[a-zA-Z0-9]")


def _type(name: str, vcpus: int, memory: int, usd_h: float, **more: object) -> Form:
    return {
        "id": name,
        "label": name,
        "class": "standard",
        "vcpus": vcpus,
        "memory": memory,
        "disk": 25600 * vcpus,
        "gpus": 0,
        "network_out": 1000,
        "transfer": 1000,
        "successor": None,
        "price": {"hourly": usd_h, "monthly": usd_h * 666},
        "region_prices": [],
        "addons": {},
        **more,
    }


def _region(name: str, *capabilities: str) -> Form:
    return {"id": name, "country": "de", "label": name, "status": "ok", "resolvers": {}} | {
        "capabilities": list(capabilities)
    }


REGIONS = [_region("eu-central", "Linodes", "Metadata"), _region("br-gru", "Linodes"), _region("xx-disk", "Volumes")]
DEARER = [{"id": "br-gru", "hourly": 0.021, "monthly": 14.0}]
TYPES = [_type("g6-nanode-1", 1, 1024, 0.0075), _type("g6-standard-1", 1, 2048, 0.018, region_prices=DEARER)]


class LinodeDouble(VendorDouble):
    """One account."""

    path = "/v4/linode/instances"
    key = "data"
    lists: ClassVar = {
        "/v4/regions/availability": ("data", []),
        "/v4/linode/types": ("data", TYPES),
        "/v4/regions": ("data", REGIONS),
    }
    created = 200
    deleted: ClassVar = {}
    boots = ("provisioning", "booting", "running")

    def __init__(self, token: str) -> None:
        self._ids = itertools.count(45501000)
        super().__init__(token)

    def refusal(self, refused: Refused) -> Form:
        """A list of reasons, some with the field they are about."""
        return {"errors": [{"reason": refused.words} | ({"field": refused.field} if refused.field else {})]}

    def made(self, wanted: Form) -> Form:
        """An instance."""
        types = {kind["id"]: kind for kind in TYPES}
        if wanted.get("type") not in types:
            raise Refused(400, "A valid plan type by that ID was not found", "type")
        if wanted.get("region") not in {region["id"] for region in REGIONS}:
            raise Refused(400, "region is not valid", "region")
        if wanted.get("image") not in IMAGES and not str(wanted.get("image")).startswith("private/"):
            raise Refused(400, "image is not valid", "image")
        if len(wanted.get("root_pass", "")) < PASSWORD_CHARS:
            raise Refused(400, "Password does not meet complexity requirements.", "root_pass")
        if not all(TAG_CHARS[0] <= len(tag) <= TAG_CHARS[1] for tag in wanted.get("tags") or []):
            raise Refused(400, "Tags must be between 3 and 50 characters.", "tags")
        self._check_more(wanted)
        return self._instance(wanted, types[wanted["type"]])

    def one(self, machine: Form) -> Form:
        """Without an envelope."""
        return machine

    def page(self, asked: Asked, key: str, forms: list[Form]) -> Form:
        """Numbered."""
        if asked.path.endswith("/availability"):
            forms = [{"plan": plan, "region": region, "available": False} for plan, region in self.out_of_stock]
        page, pages, found = numbered(asked, "page_size", 500, forms)
        return {key: found, "page": page, "pages": pages, "results": len(forms)}

    def _check_more(self, wanted: Form) -> None:
        if not LABEL.fullmatch(wanted.get("label", "")):
            raise Refused(400, "Label must be 3 to 64 of letters, digits, dashes, underscores and periods", "label")
        if any(each["label"] == wanted["label"] for each in self.machines.values()):
            raise Refused(400, "Label must be unique among your linodes", "label")
        try:
            base64.b64decode(wanted.get("metadata", {}).get("user_data", ""), validate=True)
        except binascii.Error:
            raise Refused(400, "user_data must be base64 encoded", "metadata.user_data") from None
        if len(self.machines) >= self.limit:
            raise Refused(400, "Account Limit reached. Please open a support ticket.")
        if (wanted["type"], wanted["region"]) in self.out_of_stock:
            raise Refused(400, "This plan is not available in this region", "region")

    def _instance(self, wanted: Form, kind: Form) -> Form:
        number = next(self._ids)
        ours = [f"192.168.206.{number % 250 + 1}"] if wanted.get("private_ip") else []
        return {
            "id": number,
            "label": wanted["label"],
            "status": "provisioning",
            "type": kind["id"],
            "region": wanted["region"],
            "image": wanted["image"],
            "tags": list(wanted.get("tags") or []),
            "ipv4": [*ours, f"203.0.113.{number % 250 + 1}"],
            "ipv6": f"2001:db8::{number:x}/128",
            "created": BORN,
            "updated": BORN,
            "hypervisor": "kvm",
            "specs": {"vcpus": kind["vcpus"], "memory": kind["memory"], "disk": kind["disk"]},
            "alerts": {},
            "backups": {"enabled": False},
            "watchdog_enabled": True,
        }
