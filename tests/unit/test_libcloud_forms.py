"""What the forms of Linode's and Vultr's APIs say of a machine's power."""

from __future__ import annotations

import pytest

from orchestrator.autoscaler.cloud.linode import FIRST_BOOT_S, Linode, LinodeOptions
from orchestrator.autoscaler.cloud.provider import Power
from orchestrator.autoscaler.cloud.vultr import Vultr, VultrOptions


def test_a_linode_before_its_first_boot_is_not_stopped() -> None:
    """It shows as offline between its disk and its boot; what is stopped would be replaced."""
    form = {"id": 1, "label": "x", "status": "offline", "ipv4": [], "type": "", "region": "", "tags": []}
    form["created"] = "2026-01-01T00:00:00"
    born = 1767225600.0
    powers = [Linode(LinodeOptions()).machine(form, born + age_s).power for age_s in (1.0, FIRST_BOOT_S + 1)]
    assert powers == [Power.PENDING, Power.STOPPED]


@pytest.mark.parametrize(
    ("status", "power", "server", "expected"),
    [
        ("pending", "running", "none", Power.PENDING),
        ("active", "stopped", "locked", Power.PENDING),
        ("active", "running", "installingbooting", Power.RUNNING),
        ("active", "stopped", "ok", Power.STOPPED),
        ("suspended", "running", "ok", Power.STOPPED),
        ("a word of tomorrow", "running", "ok", Power.RUNNING),
    ],
)
def test_three_fields_of_vultr_make_one_power(status: str, power: str, server: str, expected: Power) -> None:
    """One that is being installed is not stopped; an unknown word is not gone."""
    form = {"id": "x", "label": "x", "main_ip": "0.0.0.0", "plan": "", "region": "", "tags": []} | {
        "date_created": "2026-01-01T00:00:00+00:00",
        "status": status,
        "power_status": power,
        "server_status": server,
    }
    machine = Vultr(VultrOptions()).machine(form, 0.0)
    assert (machine.power, machine.address) == (expected, None)
