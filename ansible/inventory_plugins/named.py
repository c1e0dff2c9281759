"""Refuses `-l NODE` where no such node is in the fleet: Ansible would do nothing, and end well if the fleet is empty.

An inventory plugin, because only inventories are asked before Ansible looks at the limit. Owns no host and no group.
"""

from __future__ import annotations

import re
from typing import Any

from ansible.inventory.manager import split_host_pattern
from ansible.plugins.inventory import BaseInventoryPlugin

from ansible import context

DOCUMENTATION = """
name: named
short_description: Refuses limits that name nobody
description:
  - Comes after the other sources of an inventory, and compares the names in C(--limit) with what those have told.
options: {}
"""
SOURCE = "zz-named.yml"
"""The file that stands for it. Sources of a folder are read in the order of their names."""
_PLAIN = re.compile(r"[&!]?(?P<name>[\w.-]+)")
"""Neither a wildcard, nor a range, nor a file of names."""


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]  # Ansible has no types
    """What Ansible calls."""

    NAME = "named"

    def verify_file(self, path: str) -> bool:
        """Only the file that stands for it."""
        return path.rpartition("/")[2] == SOURCE

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:  # noqa: ANN401 - Ansible's own
        """Raises SystemExit: a name in the limit is nobody's. At other errors Ansible tries its other plugins."""
        super().parse(inventory, loader, path, cache)
        known = {"all", "localhost", *inventory.hosts, *inventory.groups}
        patterns = split_host_pattern(context.CLIARGS.get("subset") or [])
        names = [found["name"] for pattern in patterns if (found := _PLAIN.fullmatch(pattern))]
        for name in names:
            if name not in known:
                raise SystemExit(
                    f"[ERROR]: no node {name!r} in the fleet: it has left, or never joined (`mcpfleet nodes` says who "
                    "is there). Start it on its machine (systemctl start mcpfleet-node), or, if its machine "
                    f"still is to be changed, name it: -i '{name},' -e target=all -e ansible_host=ADDRESS"
                )
