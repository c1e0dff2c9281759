"""A node's life by playbooks: enrolled, rotated, upgraded, drained, removed; and one from a golden image.

Each step asserts what an operator relies on. Machines are those of `local-vps`; the orchestrator is one of this
tree, on the bridge that they are plugged into.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.autoscaler.act.userdata import golden, plain
from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.provider import Machine, Order, Power
from orchestrator.testing.waiting import until
from tests.playbooks.operator import ROOT, USER, Operator
from tests.vps.calls import TERMINAL
from tests.vps.shell import Shell

CLUSTER, POOL = "playbooks", "builders"
BY_HAND, BUILDER, FROM_IMAGE = "builders-1", "image-builder", "builders-2"
WITHIN_S = 120.0
CALL_S = 6.0
CREDENTIAL = f"/var/lib/mcpfleet-node/{BY_HAND}.credential"
MERGE = """
mount -t overlay overlay -o "ro,lowerdir=$1:$2" "$3"
cp -a "$3/." "$4"
"""
NO_MIRROR = {
    f"{role}_apt_update": False
    for role in ("node", "release", "firewall", "node_exporter", "unattended_upgrades")
}  # fmt: skip
"""The machines have no way out, and find in their image what the roles install."""


@dataclass(frozen=True, slots=True)
class Life:
    """One run.

    Attributes:
        disks: where the provider keeps its machines.
        plain: their image.
    """

    operator: Operator
    cloud: LocalVps
    disks: Path
    plain: Path

    async def lived(self) -> None:
        """All of it, one step after the other."""
        address = await self._booted(BY_HAND)
        await self._enrols(address)
        await self._rotates(address)
        await self._upgrades(address)
        await self._drains(address)
        await self._is_removed(address)
        await self._is_an_image()

    # ------------------------------------------------------------------------------ by hand

    async def _enrols(self, address: str) -> None:
        labels = {"node_labels": {"address": address}}  # where the inventory finds it afterwards
        given = self._given(BY_HAND, node_enrol_token=self.operator.enrol(BY_HAND, POOL), **labels)
        words = ("-i", f"{BY_HAND},", "-e", f"ansible_host={address}")
        assert await self._play("provision.yml", *words, given=given) > 0
        await self._is(BY_HAND, "active")
        await self._answers(BY_HAND)
        shell = self.operator.shell(address)
        before = _secret(shell), _process(shell)
        # The same token again, and none at all: it has a credential, and trades nothing.
        assert await self._play("provision.yml", *words, given=given) == 0
        assert await self._play("provision.yml", *words, given=self._given(BY_HAND, **labels)) == 0
        assert (_secret(shell), _process(shell)) == before
        assert "none" in _said(shell, "sudo test -e /etc/mcpfleet/enrol.env || echo none")
        self.operator.say("a second run changed nothing, enrolled nobody and restarted nothing")

    async def _rotates(self, address: str) -> None:
        shell = self.operator.shell(address)
        before = _secret(shell)
        await self._play("rotate_credentials.yml", "-l", BY_HAND)
        await self._is(BY_HAND, "active")
        assert _secret(shell) != before
        assert "none" in _said(shell, "sudo test -e /etc/mcpfleet/enrol.env || echo none")
        await self._answers(BY_HAND)

    async def _upgrades(self, address: str) -> None:
        shell = self.operator.shell(address)
        _said(
            shell,
            "cd /opt/mcpfleet/releases && sudo cp -a $(basename $(readlink ../current)) 0.0.0-older"
            " && sudo ln -sfn /opt/mcpfleet/releases/0.0.0-older ../current",
        )
        assert await self._play("upgrade.yml", "-l", f"pool_{POOL}") > 0
        await self._is(BY_HAND, "active")
        release = (ROOT / "dist/wheelhouse/RELEASE").read_text().strip()
        assert _said(shell, "basename $(readlink /opt/mcpfleet/current)").strip() == release
        assert await self._play("upgrade.yml", "-l", f"pool_{POOL}") == 0
        await self._answers(BY_HAND)

    async def _drains(self, address: str) -> None:
        """While it works: what runs ends well, and only then does it leave."""
        running = await self._called("probe.sleep", {"seconds": CALL_S, "steps": 1})
        await until(lambda: self._runs(running), WITHIN_S)
        await self._play("drain.yml", "-l", BY_HAND)
        assert (await self._view(running))["state"] == "succeeded"
        assert (await self._view(running))["attempts"][-1]["node"] == BY_HAND
        await self._is(BY_HAND, None)
        shell = self.operator.shell(address)
        assert "inactive" in _said(shell, "systemctl is-active mcpfleet-node || true")
        _said(shell, "sudo systemctl start mcpfleet-node")
        await self._is(BY_HAND, "active")
        self.operator.say("the call that ran when it was drained succeeded; systemctl start brought it back")

    async def _is_removed(self, address: str) -> None:
        await self._play("remove.yml", "-l", BY_HAND)
        await self._is(BY_HAND, None)
        left = "ls -d /etc/systemd/system/mcpfleet-* /var/lib/mcpfleet-node /etc/mcpfleet/* /usr/local/lib/mcpfleet"
        look = f"sudo sh -c '{left}; getent passwd mcpfleet-node' 2>/dev/null || true"
        assert not _said(self.operator.shell(address), look).strip()

    # ------------------------------------------------------------------------------ from an image

    async def _is_an_image(self) -> None:
        address = await self._booted(BUILDER)
        words = ("-i", f"{BUILDER},", "-e", f"ansible_host={address}")
        assert await self._play("golden_image.yml", *words, given=dict(NO_MIRROR)) > 0
        image = await self._taken(address)
        token = self.operator.enrol(FROM_IMAGE, POOL)
        settings = {"NAME": FROM_IMAGE, "POOL": POOL, "ORCHESTRATOR_URL": self.operator.hall.url, "ENROL_TOKEN": token}
        user_data = golden({f"MCPFLEET_NODE_{name}": value for name, value in settings.items()})
        await self.cloud.create(Order("c-2", FROM_IMAGE, CLUSTER, POOL, image=str(image), user_data=user_data))
        await self._is(FROM_IMAGE, "active")
        await self._answers(FROM_IMAGE)
        self.operator.say(f"{FROM_IMAGE} booted from the image, enrolled by its user data, and answers calls")

    async def _taken(self, address: str) -> Path:
        """The builder's disk, after it was powered off, as the root file system of others."""
        self.operator.shell(address).run("sudo systemctl poweroff", is_checked=False)
        machine = await until(lambda: self._stopped(BUILDER), WITHIN_S)
        image, seen = self.operator.folder / "golden", self.operator.folder / "seen"
        image.mkdir()
        seen.mkdir()
        upper = self.disks / "machines" / machine.id / "upper"
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", MERGE, "merge"]
        await asyncio.to_thread(subprocess.run, [*inside, upper, self.plain.resolve(), seen, image], check=True)
        own = [image / "etc/mcpfleet/node.env", image / "etc/mcpfleet/enrol.env", *image.glob("etc/ssh/ssh_host_*")]
        assert not [path for path in own if path.exists()]
        assert not (image / "etc/machine-id").read_text()
        return image

    # ------------------------------------------------------------------------------ what steps are made of

    async def _booted(self, name: str) -> str:
        """Its address, once an operator gets in."""
        user_data = plain(USER, self.operator.key.public)
        machine = await self.cloud.create(Order(f"c-{name}", name, CLUSTER, POOL, user_data=user_data))
        assert machine.address is not None
        shell = self.operator.shell(machine.address)

        async def answers() -> bool:
            return (await asyncio.to_thread(shell.run, "true", is_checked=False)).returncode == 0

        await until(answers, WITHIN_S)
        self.operator.say(f"{name} answers at {machine.address}")
        return machine.address

    async def _play(self, playbook: str, *words: str, given: dict[str, object] | None = None) -> int:
        return await asyncio.to_thread(self.operator.play, playbook, *words, given=given)

    def _given(self, name: str, **more: object) -> dict[str, object]:
        own = {"node_name": name, "node_pool": POOL, "node_orchestrator_url": self.operator.hall.url}
        return {**NO_MIRROR, **own, **more}

    async def _is(self, name: str, state: str | None) -> None:
        """None: it has left."""

        async def holds() -> bool:
            found = (await self.operator.hall.node_states()).get(name)
            return (None if found in {"left", "lost"} else found) == state

        await until(holds, WITHIN_S)

    async def _answers(self, name: str) -> None:
        """A call, placed on it."""
        call = await self._called("probe.echo", {"word": "hello"})

        async def has_ended() -> dict[str, Any] | None:
            view = await self._view(call)
            return view if view["state"] in TERMINAL else None

        view = await until(has_ended, WITHIN_S)
        assert (view["state"], view["attempts"][-1]["node"]) == ("succeeded", name), json.dumps(view)

    async def _called(self, tool: str, arguments: dict[str, object]) -> str:
        form = {"tool": tool, "arguments": arguments, "pool": POOL}
        answer = (await self.operator.hall.ask("POST", "/v1/invocations", json=form)).raise_for_status()
        return str(answer.json()["id"])

    async def _view(self, call: str) -> dict[str, Any]:
        answer = (await self.operator.hall.ask("GET", f"/v1/invocations/{call}")).raise_for_status()
        view: dict[str, Any] = answer.json()
        return view

    async def _runs(self, call: str) -> bool:
        return str((await self._view(call))["state"]) == "running"

    async def _stopped(self, name: str) -> Machine | None:
        machines = await self.cloud.machines(CLUSTER)
        return next((each for each in machines if each.name == name and each.power is Power.STOPPED), None)


def _said(shell: Shell, words: str) -> str:
    return shell.run(words).stdout


def _secret(shell: Shell) -> str:
    """What tells one credential from another, without showing it."""
    return _said(shell, f"sudo sha256sum {CREDENTIAL}")


def _process(shell: Shell) -> str:
    return _said(shell, "systemctl show --property=MainPID --value mcpfleet-node")
