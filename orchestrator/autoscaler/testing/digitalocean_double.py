"""DigitalOcean's API on loopback, as far as a fleet asks it.

Source: https://docs.digitalocean.com/reference/api/. Names of droplets need not be unique there.
"""

from __future__ import annotations

import itertools
import re
from typing import ClassVar

from orchestrator.autoscaler.testing.faulty_http import Asked
from orchestrator.autoscaler.testing.vendor_double import BORN, Form, Refused, VendorDouble, numbered

REGIONS = ("fra1", "nyc3")
IMAGES = frozenset({"debian-12-x64", "ubuntu-24-04-x64"})
USER_DATA_BYTES = 64 * 1024


def _size(slug: str, vcpus: int, memory: int, usd_h: float, regions: tuple[str, ...] = REGIONS) -> Form:
    return {
        "slug": slug,
        "memory": memory,
        "vcpus": vcpus,
        "disk": 25 * vcpus,
        "transfer": 1.0,
        "price_monthly": round(usd_h * 672, 2),
        "price_hourly": usd_h,
        "regions": list(regions),
        "available": True,
        "description": "Basic",
    }


SIZES = [_size("s-1vcpu-1gb", 1, 1024, 0.00893), _size("s-2vcpu-4gb", 2, 4096, 0.03571)]
KINDS = {401: "unauthorized", 404: "not_found", 422: "unprocessable_entity", 429: "too_many_requests"}


class DigitalOceanDouble(VendorDouble):
    """One account."""

    path = "/v2/droplets"
    key = "droplets"
    lists: ClassVar = {"/v2/sizes": ("sizes", SIZES)}
    created = 202
    boots = ("new", "active")

    def __init__(self, token: str) -> None:
        self._ids = itertools.count(3164000)
        super().__init__(token)

    def refusal(self, refused: Refused) -> Form:
        """A kind and a message."""
        return {"id": KINDS.get(refused.status, "server_error"), "message": refused.words, "request_id": "0"}

    def made(self, wanted: Form) -> Form:
        """A droplet; what its size and its region hold besides is left out."""
        sizes = {size["slug"]: size for size in SIZES}
        wrong = {
            "size": wanted.get("size") not in sizes,
            "region": wanted.get("region") not in REGIONS,
            "image": wanted.get("image") not in IMAGES and not isinstance(wanted.get("image"), int),
        }
        for what in (name for name, is_wrong in wrong.items() if is_wrong):
            raise Refused(422, f"You specified an invalid {what} for Droplet creation.")
        if not re.fullmatch(r"[a-zA-Z0-9.-]{1,255}", wanted["name"]):
            raise Refused(422, "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        if not all(re.fullmatch(r"[a-zA-Z0-9:_-]{1,255}", tag) for tag in wanted.get("tags") or []):
            raise Refused(422, "tags are of letters, numbers, colons, dashes, and underscores")
        if len((wanted.get("user_data") or "").encode()) > USER_DATA_BYTES:
            raise Refused(422, "user data is too long")
        if len(self.machines) >= self.limit:
            raise Refused(422, "creating this/these droplet(s) will exceed your droplet limit")
        if (wanted["size"], wanted["region"]) in self.out_of_stock:
            raise Refused(422, "Size is not available in this region.")
        return self._droplet(wanted, sizes[wanted["size"]])

    def one(self, machine: Form) -> Form:
        """With addresses, once it is there."""
        return {"droplet": _shown(machine)}

    def page(self, asked: Asked, key: str, forms: list[Form]) -> Form:
        """With links to others, where there are any."""
        page, pages, found = numbered(asked, "per_page", 200, forms)
        links = {"pages": {"last": f"{self.http.url}{asked.path}?page={pages}"}} if page < pages else {}
        return {key: [_shown(each) for each in found], "links": links, "meta": {"total": len(forms)}}

    def _droplet(self, wanted: Form, size: Form) -> Form:
        return {
            "id": next(self._ids),
            "name": wanted["name"],
            "memory": size["memory"],
            "vcpus": size["vcpus"],
            "disk": size["disk"],
            "locked": False,
            "status": "new",
            "kernel": None,
            "created_at": f"{BORN}Z",
            "features": [],
            "backup_ids": [],
            "snapshot_ids": [],
            "image": {},
            "size": size,
            "size_slug": size["slug"],
            "networks": {"v4": [], "v6": []},
            "region": {"name": wanted["region"].upper(), "slug": wanted["region"], "features": [], "available": True},
            "tags": list(wanted.get("tags") or []),
        }


def _shown(form: Form) -> Form:
    if form.get("status") != "active":
        return form
    host = form["id"] % 250 + 1
    kinds = {"private": f"10.114.0.{host}", "public": f"203.0.113.{host}"}
    v4 = [{"ip_address": ip, "netmask": "", "gateway": "", "type": kind} for kind, ip in kinds.items()]
    return form | {"networks": {"v4": v4, "v6": []}}
