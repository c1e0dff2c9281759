"""Makes a golden image of the plain one, as an operator does at any cloud: boots it, runs the playbook, keeps its disk.

    .venv/bin/python deploy/vps/golden.py PLAIN IMAGE

As root. The machine is one of `local-vps`; the playbook is `ansible/golden_image.yml`, which powers it off as its last
act. IMAGE is a new folder. Owns the machine and its way in, and makes one root file system of its two layers.
Refuses to know what a node is made of: the roles do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from orchestrator.autoscaler.cloud.local_vps import LocalVps, open_local_vps
from orchestrator.autoscaler.cloud.provider import Machine, Order, Power, ProviderConfig
from orchestrator.testing.waiting import until

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "ansible"
PROGRAM = ROOT / ".cache" / "ansible" / "bin" / "ansible-playbook"
CLUSTER, NAME = "golden", "image-builder"
BAKE_WITHIN_S, OFF_WITHIN_S = 1500.0, 60.0
MEMORY_BYTES = 2 * 1024**3
MERGE = """
mount -t overlay overlay -o "ro,lowerdir=$1:$2" "$3"
cp -a "$3/." "$4"
"""
NO_MIRROR = {
    f"{role}_apt_update": False
    for role in ("node", "release", "firewall", "node_exporter", "unattended_upgrades")
}  # fmt: skip
"""Machines of ours have no way out, and find in their image what the roles install."""
OWN = (
    "etc/mcpfleet/node.env",
    "etc/mcpfleet/enrol.env",
    "etc/mcpfleet/keys",
    "root/.ssh/authorized_keys",
    "var/lib/cloud/seed",
)
"""What one machine has alone, or its operator: in an image it would be everybody's."""


def main(words: list[str]) -> int:
    """The command line."""
    plain, image = map(Path, words)
    if not PROGRAM.exists():
        raise SystemExit(f"golden: no Ansible at {PROGRAM}: make ansible-tools")
    with tempfile.TemporaryDirectory(prefix="mcpfleet-golden-") as scratch:
        asyncio.run(baked(plain.resolve(), image, state_dir=image.parent / "builder", scratch=Path(scratch)))
    return 0


async def baked(plain: Path, image: Path, *, state_dir: Path, scratch: Path) -> None:
    """`image` is what the playbook made of `plain`.

    Args:
        plain: a root file system.
        image: made here.
        state_dir: the machine's; always the same, so that what a killed run left is found by the next one.
        scratch: for the key, and what Ansible is told.

    Raises:
        CloudError: the machine does not boot.
        subprocess.CalledProcessError: the playbook failed, and said why.
        TimeoutError: the machine did not power itself off.
    """
    table = {"image": str(plain), "types": {"builder": {"cpus": os.cpu_count() or 1, "memory_bytes": MEMORY_BYTES}}}
    cloud = open_local_vps(ProviderConfig("builder", "local-vps", table, state_dir))
    key = scratch / "key"
    await _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
    order = Order("builder", NAME, CLUSTER, CLUSTER, user_data=way_in(key.with_suffix(".pub").read_text()))
    async with _ended(cloud):
        machine = await cloud.create(order)
        await _play(machine, key, scratch)
        await until(lambda: _is_off(cloud, machine), OFF_WITHIN_S)
        await merged(state_dir / "machines" / machine.id / "upper", plain, image, scratch)


def way_in(public_key: str) -> str:
    """User data: root, by this key. A user would stay in the image; the key does not."""
    account = {"name": "root", "ssh_authorized_keys": [public_key.strip()]}
    return "#cloud-config\n" + json.dumps({"disable_root": False, "users": [account]}) + "\n"


async def merged(upper: Path, lower: Path, image: Path, scratch: Path) -> None:
    """One root file system of a machine's layers; whoever it was is not in it.

    Raises:
        RuntimeError: the playbook left something that one machine has alone.
    """
    seen = scratch / "seen"
    for folder in (seen, image):
        folder.mkdir()
    inside = ("unshare", "--mount", "--propagation", "private", "sh", "-euc", MERGE, "merge")
    await _run(*inside, str(upper), str(lower), str(seen), str(image))
    left = _own(image)
    if left:
        raise RuntimeError(f"the image would give {', '.join(left)} to every machine; see golden_image.yml")


def _own(image: Path) -> list[str]:
    """What is in it of the machine that it was."""
    left = [path for path in OWN if (image / path).exists()] + [str(key) for key in image.glob("etc/ssh/ssh_host_*")]
    return left + ["etc/machine-id"] * bool((image / "etc/machine-id").read_text().strip())


@contextlib.asynccontextmanager
async def _ended(cloud: LocalVps) -> AsyncIterator[None]:
    """Before, what a killed run left; afterwards, what this one made."""
    await _swept(cloud)
    try:
        yield
    finally:
        await _swept(cloud)


async def _swept(cloud: LocalVps) -> None:
    for machine in await cloud.machines(CLUSTER):
        await cloud.terminate(machine.id)
    await cloud.sweep()


async def _is_off(cloud: LocalVps, machine: Machine) -> bool:
    seen = await cloud.machine(machine.id)
    return seen is not None and seen.power is Power.STOPPED


async def _play(machine: Machine, key: Path, scratch: Path) -> None:
    variables = scratch / "variables.json"
    variables.write_text(json.dumps({"ansible_host": machine.address, "ansible_user": "root", **NO_MIRROR}))
    ssh = f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={scratch / 'known_hosts'} -o ControlPersist=5s"
    told = {
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_HOME": str(scratch / "ansible"),
        "ANSIBLE_PRIVATE_KEY_FILE": str(key),
        "ANSIBLE_SSH_COMMON_ARGS": ssh,
    }
    passed = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MCPFLEET_"))}
    words = (str(PROGRAM), str(ANSIBLE / "golden_image.yml"), "-i", f"{NAME},", "-e", f"@{variables}")
    await _run(*words, environ=passed | told | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"})


async def _run(*words: str, environ: Mapping[str, str] | None = None) -> None:
    async with asyncio.timeout(BAKE_WITHIN_S):
        process = await asyncio.create_subprocess_exec(*words, env=environ, stdin=subprocess.DEVNULL)
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
    if status:
        raise subprocess.CalledProcessError(status, words[:2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
