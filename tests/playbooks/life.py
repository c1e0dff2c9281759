"""A node's life by playbooks: enrolled, rotated, upgraded beside one from a golden image, drained, removed.

Each step asserts what an operator relies on. Machines are those of `local-vps`; the orchestrator is one of this
tree, on the bridge that they are plugged into.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.autoscaler.act.userdata import golden, plain
from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.testing.waiting import until
from tests.playbooks.operator import ANSIBLE, ROOT, USER, Operator, PlaybookFailed
from tests.playbooks.release import next_release, release_of
from tests.vps.calls import TERMINAL, Load, books
from tests.vps.shell import Shell

CLUSTER, POOL = "playbooks", "builders"
BY_HAND, FROM_IMAGE, NOBODY = "builders-1", "builders-2", "builders-9"
WITHIN_S = 120.0
CALL_S, LOAD_S, DEPTH = 6.0, 1.0, 4
WHEELHOUSE = ROOT / "dist" / "wheelhouse"
CREDENTIAL = f"/var/lib/mcpfleet-node/{BY_HAND}.credential"
NO_MIRROR = {
    f"{role}_apt_update": False
    for role in ("node", "release", "firewall", "node_exporter", "unattended_upgrades")
}  # fmt: skip
"""The machines have no way out, and find in their image what the roles install."""


@dataclass(frozen=True, slots=True)
class Life:
    """One run."""

    operator: Operator
    cloud: LocalVps

    async def lived(self) -> None:
        """All of it, one step after the other."""
        address = await self._booted(BY_HAND)
        await self._enrols(address)
        await self._rotates(address)
        await self._upgrades({BY_HAND: address, FROM_IMAGE: await self._is_a_node_at_once(FROM_IMAGE)})
        await self._drains(address)
        await self._is_removed(address)
        await self._is_nobody()

    # ------------------------------------------------------------------------------ by hand

    async def _enrols(self, address: str) -> None:
        given = self._given(BY_HAND, node_enrol_token=self.operator.enrol(BY_HAND, POOL))
        words = ("-i", f"{BY_HAND},", "-e", f"ansible_host={address}")
        assert await self._play("provision.yml", *words, given=given) > 0
        await self._is(BY_HAND, "active")
        await self._answers(BY_HAND)
        shell = self.operator.shell(address)
        before = _secret(shell), _process(shell)
        # The same token again, and none at all: it has a credential, and trades nothing.
        assert await self._play("provision.yml", *words, given=given) == 0
        assert await self._play("provision.yml", *words, given=self._given(BY_HAND)) == 0
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

    async def _upgrades(self, addresses: dict[str, str]) -> None:
        """One after the other, while calls arrive: each is answered, and none is begun twice."""
        new = await asyncio.to_thread(next_release, ROOT, WHEELHOUSE, self.operator.folder / "next")
        shells = {name: self.operator.shell(address) for name, address in addresses.items()}
        assert {_release(shell) for shell in shells.values()} == {release_of(WHEELHOUSE)}
        words, given = (
            ("-l", f"pool_{POOL}", *self._inventory(addresses)),
            {**NO_MIRROR, "release_wheelhouse": str(new)},
        )
        load = Load(self.operator.hall, POOL, LOAD_S, DEPTH)
        async with load.coming():
            await until(lambda: load.nodes() == addresses.keys(), WITHIN_S)
            assert await self._play("upgrade.yml", *words, given=given) > 0
            before = len(load.ids)
            await until(lambda: len(load.ids) > before + 2 * DEPTH, WITHIN_S)
        await load.ended(WITHIN_S)
        said = books(load)
        assert not said.wrong, said.wrong
        assert not said.repeated, f"{said.repeated} calls were begun twice"
        assert said.nodes.keys() == addresses.keys()
        assert {_release(shell) for shell in shells.values()} == {release_of(new)}
        answers = ", ".join(f"{node} {count}" for node, count in sorted(said.nodes.items()))
        self.operator.say(
            f"{release_of(WHEELHOUSE)} to {release_of(new)}; all {len(load.ids)} calls succeeded: {answers}"
        )
        assert await self._play("upgrade.yml", *words, given=given) == 0

    async def _drains(self, address: str) -> None:
        """While it works: what runs ends well, and only then does it leave."""
        calls = [await self._called("probe.sleep", {"seconds": CALL_S, "steps": 1}) for _ in range(DEPTH)]
        running = await until(lambda: self._one_on(BY_HAND, calls), WITHIN_S)
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

    async def _is_nobody(self) -> None:
        """Who names a node that has left, or never was, hears of it; also of one among several."""
        for playbook in ("drain.yml", "remove.yml", "upgrade.yml", "rotate_credentials.yml"):
            for words in (("-l", BY_HAND), ("-l", f"{FROM_IMAGE},{NOBODY}")):
                nobody = words[1].rpartition(",")[2]
                with pytest.raises(PlaybookFailed, match=f"no node '{nobody}' in the fleet"):
                    await self._play(playbook, *words)
        self.operator.say("playbooks refuse names of nodes that are not in the fleet")

    # ------------------------------------------------------------------------------ from an image

    async def _is_a_node_at_once(self, name: str) -> str:
        """Its settings and its token come with user data, all else is in the image; its address."""
        token, key = self.operator.enrol(name, POOL), self.operator.key.public
        settings = {"NAME": name, "POOL": POOL, "ORCHESTRATOR_URL": self.operator.hall.url, "ENROL_TOKEN": token}
        user_data = _both(
            golden({f"MCPFLEET_NODE_{setting}": value for setting, value in settings.items()}), plain(USER, key)
        )
        order = Order(f"c-{name}", name, CLUSTER, POOL, image="golden", user_data=user_data)
        machine = await self.cloud.create(order)
        assert machine.address is not None
        await self._is(name, "active")
        await self._answers(name)
        shell = self.operator.shell(machine.address)
        assert (
            _said(shell, "systemctl is-active mcpfleet-node mcpfleet-deadman.timer nftables").split() == ["active"] * 3
        )
        assert "NoNewPrivileges=yes" in _said(shell, "systemctl show --property=NoNewPrivileges mcpfleet-node")
        self.operator.say(f"{name} booted from the image, enrolled by its user data, and answers calls")
        return machine.address

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

    def _inventory(self, addresses: dict[str, str]) -> tuple[str, ...]:
        """The fleet's, and where those are that came from an image: their user data could not know it."""
        beside = self.operator.folder / "beside.ini"
        beside.write_text(f"{FROM_IMAGE} ansible_host={addresses[FROM_IMAGE]}\n")
        return ("-i", str(ANSIBLE / "inventory"), "-i", str(beside))

    async def _is(self, name: str, state: str | None) -> None:
        """None: it has left."""

        async def holds() -> bool:
            found = (await self.operator.hall.node_states()).get(name)
            return (None if found in {"left", "lost"} else found) == state

        await until(holds, WITHIN_S)

    async def _answers(self, name: str) -> None:
        """Calls, until one was placed on it."""

        async def has_answered() -> bool:
            view = await self._ended(await self._called("probe.echo", {"word": "hello"}))
            assert view["state"] == "succeeded", json.dumps(view)
            return bool(view["attempts"][-1]["node"] == name)

        await until(has_answered, WITHIN_S)

    async def _ended(self, call: str) -> dict[str, Any]:
        async def view() -> dict[str, Any] | None:
            seen = await self._view(call)
            return seen if seen["state"] in TERMINAL else None

        ended: dict[str, Any] = await until(view, WITHIN_S)
        return ended

    async def _called(self, tool: str, arguments: dict[str, object]) -> str:
        form = {"tool": tool, "arguments": arguments, "pool": POOL}
        answer = (await self.operator.hall.ask("POST", "/v1/invocations", json=form)).raise_for_status()
        return str(answer.json()["id"])

    async def _view(self, call: str) -> dict[str, Any]:
        answer = (await self.operator.hall.ask("GET", f"/v1/invocations/{call}")).raise_for_status()
        view: dict[str, Any] = answer.json()
        return view

    async def _one_on(self, node: str, calls: list[str]) -> str | None:
        """One of them that runs there: the pool's other node takes calls too."""
        for call in calls:
            view = await self._view(call)
            if view["state"] == "running" and view["attempts"][-1]["node"] == node:
                return call
        return None


def _said(shell: Shell, words: str) -> str:
    return shell.run(words).stdout


def _secret(shell: Shell) -> str:
    """What tells one credential from another, without showing it."""
    return _said(shell, f"sudo sha256sum {CREDENTIAL}")


def _process(shell: Shell) -> str:
    return _said(shell, "systemctl show --property=MainPID --value mcpfleet-node")


def _release(shell: Shell) -> str:
    """Of the process: the interpreter that pip wrote into its program, not what the link says now."""
    return _said(shell, f"sudo cat /proc/{_process(shell).strip()}/cmdline").split("/releases/")[1].split("/")[0]


def _both(one: str, other: str) -> str:
    """Of two texts of user data."""
    forms = [json.loads(text.removeprefix("#cloud-config\n")) for text in (one, other)]
    return "#cloud-config\n" + json.dumps(forms[0] | forms[1]) + "\n"
