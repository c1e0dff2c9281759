"""The pools file of an act: what an operator writes so that the orchestrator sizes one pool of rented machines.

Owns the demo's policy, which waits for seconds where an operator's waits for minutes. Refuses to decide
when a machine is ordered or ended: the orchestrator does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.vps.api import Account
from tests.vps.ground import ROOT

CLUSTER = "demo"
POOL = "vps"
PROVIDER = "cloud"
ADMIN = "mcpfleet-admin"
PLAYBOOK = ROOT / ".cache" / "ansible" / "bin" / "ansible-playbook"
WHEELHOUSE = ROOT / "dist" / "wheelhouse"
ROLES_WITH_APT = ("release", "firewall", "node_exporter", "unattended_upgrades", "node")
"""Each asks a mirror for news unless told not to; machines on a bridge reach none, and have what they need."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What differs between acts.

    Attributes:
        is_golden: the image has a node; else Ansible makes one.
        key: private half, for Ansible's way in; None with golden images.
    """

    is_golden: bool
    is_spot: bool
    max_machines: int
    slots: int
    key: Path | None = None


def pools_text(pool: Pool, account: Account) -> str:
    """TOML. Strings and booleans of JSON are TOML's."""
    options = "\n".join(f"{name} = {_word(value)}" for name, value in account.options.items())
    rung = {"provider": PROVIDER, **account.rung, "is_golden": pool.is_golden, "is_spot": pool.is_spot}
    return f"""
[scale]
cluster = {_word(CLUSTER)}

[providers.{PROVIDER}]
{options}

[pools.{POOL}.scale]
ladder = [{_word(rung)}]
may_use_spot = {_word(pool.is_spot)}
provision = {_word("none" if pool.is_golden else "ansible")}
min_machines = 0
max_machines = {pool.max_machines}
slots_tools = {pool.slots}
target_wait_s = 2.0
catch_up_s = 5.0
settle_s = 10.0
idle_to_zero_s = 10.0
down_step = 1.0
use_season = false
boot_s = 20.0
boot_limit_s = 1200.0
environ = {{ MCPFLEET_NODE_SLOTS_TOOLS = {_word(str(pool.slots))}, MCPFLEET_NODE_DRAIN_S = "30" }}
{_ansible(pool)}"""


def _ansible(pool: Pool) -> str:
    if pool.key is None:
        return ""
    variables = "\n".join(f"{role}_apt_update = false" for role in ROLES_WITH_APT)
    return f"""
[ansible]
folder = {_word(str(ROOT / "ansible"))}
user = {_word(ADMIN)}
private_key_file = {_word(str(pool.key))}
program = {_word(str(PLAYBOOK))}

[ansible.variables]
{variables}
"""


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_word(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)
