"""A machine of `local-vps` as an operator sees it: systemd is up, cloud-init did as told, and sshd answers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.testing.waiting import until
from tests.vps.ground import IMAGES, left_of, provider
from tests.vps.shell import Shell, new_key

pytestmark = pytest.mark.live("root", "nspawn", "vps-image")

CLUSTER = "test"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[LocalVps]:
    """Its machines are ended."""
    made = provider(tmp_path / "state", IMAGES / "plain")
    yield made
    for machine in await made.machines(CLUSTER):
        await made.terminate(machine.id)
    assert not left_of(tmp_path / "state")


async def test_cloud_init_lets_an_operator_in_by_ssh(cloud: LocalVps, tmp_path: Path) -> None:
    """User, key and file are as the order's user data say; systemd finds nothing failed."""
    key = new_key(tmp_path)
    user_data = f"""#cloud-config
users:
  - name: ops
    sudo: ALL=(ALL) NOPASSWD:ALL
    shell: /bin/bash
    ssh_authorized_keys: ["{key.public}"]
write_files:
  - path: /etc/proof
    content: by cloud-init
"""
    machine = await cloud.create(Order("one", "web-one", CLUSTER, "web", user_data=user_data))
    assert machine.address is not None
    shell = Shell(machine.address, "ops", key.path)

    async def answers() -> bool:
        return (await asyncio.to_thread(shell.run, "true", is_checked=False)).returncode == 0

    await until(answers)
    assert "status: done" in said(shell, "cloud-init status --wait")
    assert said(shell, "cat /etc/proof; hostname").split() == ["by", "cloud-initweb-one"]
    await until(lambda: said(shell, "systemctl is-system-running || true").strip() == "running")
    assert "web-one" in said(shell, "sudo cat /etc/hosts")
    assert said(shell, "sudo mknod /tmp/disk b 8 0 2>&1 || true").endswith("Operation not permitted\n")


def said(shell: Shell, words: str) -> str:
    """Its standard output."""
    done: subprocess.CompletedProcess[str] = shell.run(words)
    return done.stdout
