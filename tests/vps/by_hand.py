"""An operator in the autoscaler's place: orders machines, drains their nodes, ends them, one after the other.

For trying images and this host without the autoscaler. Refuses to decide anything: the act says how many.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.testing.waiting import until
from tests.vps.hall import Hall

LEAVES_WITHIN_S = 90.0
UNIT = "mcpfleet-node.service"


class ByHand:
    """One pool of golden machines."""

    def __init__(self, hall: Hall, cloud: LocalVps, cluster: str, pool: str, slots: int) -> None:
        self._hall, self._cloud, self._cluster, self._pool, self._slots = hall, cloud, cluster, pool, slots

    async def grow(self, machines: int) -> None:
        """Until there are so many."""
        there = len(await self._cloud.machines(self._cluster))
        for _ in range(machines - there):
            claim = secrets.token_hex(5)
            name = f"{self._pool}-{claim}"
            await self._cloud.create(Order(claim, name, self._cluster, self._pool, user_data=self._user_data(name)))

    async def empty(self) -> None:
        """Each is drained first, then ended."""
        machines = await self._cloud.machines(self._cluster)
        await asyncio.gather(*(self._drained(machine.name) for machine in machines))
        await asyncio.gather(*(self._cloud.terminate(machine.id) for machine in machines))

    async def _drained(self, name: str) -> None:
        states = await self._hall.node_states()
        if states.get(name) != "active":
            return
        (await self._hall.ask("POST", f"/v1/nodes/{name}/state", json={"state": "draining"})).raise_for_status()

        async def has_left() -> bool:
            return (await self._hall.node_states()).get(name) not in {"active", "cordoned", "draining"}

        await until(has_left, LEAVES_WITHIN_S)

    def _user_data(self, name: str) -> str:
        """The node's settings, with the fleet's join token, which nobody but this host sees; and its start."""
        settings = {
            "NAME": name,
            "POOL": self._pool,
            "ORCHESTRATOR_URL": self._hall.url,
            "JOIN_TOKEN": self._hall.join_token,
            "SLOTS_TOOLS": str(self._slots),
            "DRAIN_S": "30",
        }
        lines = "".join(f"MCPFLEET_NODE_{key}={value}\n" for key, value in settings.items())
        form: dict[str, Any] = {
            "write_files": [{"path": "/etc/mcpfleet/node.env", "permissions": "0600", "content": lines}],
            "runcmd": [["systemctl", "enable", "--now", "--no-block", UNIT]],
        }
        return "#cloud-config\n" + json.dumps(form)
