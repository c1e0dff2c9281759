"""`make ansible-check`, its second half: every playbook for real, on machines that boot on this host, as root.

    python -m tests.playbooks [--keep DIR]

Exit status: 0 everything held, 1 something did not; 3 this host cannot, and says why.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.autoscaler.cloud.nspawn.network import Wire
from tests.playbooks.life import CLUSTER, Life
from tests.playbooks.operator import PROGRAMS, Operator
from tests.vps.ground import IMAGES, left_of, provider, why_not
from tests.vps.hall import Hall
from tests.vps.shell import new_key

STATE = IMAGES / "playbooks"
"""Always the same, so that what a killed run left is found by the next one."""
PLAIN, GOLDEN = IMAGES / "plain", IMAGES / "golden"
MACHINES = 2
TYPE = {"cpus": os.cpu_count() or 1, "memory_bytes": 2 * 1024**3}
CANNOT = 3
BRIDGE_OWNER = "plays"


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", type=Path, help="keep logs there")
    keep: Path | None = options.parse_args().keep
    lack = _lack()
    if lack is not None:
        sys.stderr.write(f"!!! NOT TESTED HERE: no playbook was run: {lack}\n")
        return CANNOT
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-playbooks-")))
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(_run(folder))
    left = left_of(STATE)
    sys.stdout.write(f"left behind: {left}\n" if left else "nothing is left behind\n")
    return 1 if left else 0


def _lack() -> str | None:
    if not (PROGRAMS / "ansible-playbook").exists():
        return "no Ansible (make ansible-tools)"
    return why_not() or (None if GOLDEN.exists() else "no image of a machine (make vps-image)")


async def _run(folder: Path) -> None:
    begun_s = time.monotonic()

    def say(words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun_s:7.1f} s  {words}\n")
        sys.stdout.flush()

    wires: list[Wire] = []

    def told(wire: Wire) -> dict[str, str]:
        wires.append(wire)
        return {}

    async with Hall.laid(folder, told, owner=BRIDGE_OWNER) as hall:
        has = {"images": {"golden": str(GOLDEN)}, "types": {"small": TYPE}, "max_machines": MACHINES}
        cloud = provider(STATE, PLAIN, bridge=wires[0].bridge, **has)
        try:
            await _swept(cloud)
            say(f"orchestrator and Redis at {hall.ground.host}")
            await Life(Operator(hall, folder, new_key(folder), say), cloud).lived()
        finally:
            await _swept(cloud)


async def _swept(cloud: LocalVps) -> None:
    """What another run, or this one, left."""
    for machine in await cloud.machines(CLUSTER):  # one after the other: each has the lock for as long as it takes
        await cloud.terminate(machine.id)
    await cloud.sweep()


if __name__ == "__main__":
    sys.exit(main())
