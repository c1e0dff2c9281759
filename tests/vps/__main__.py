"""`make vps-demo`: machines that really boot on this host, as root.

    python -m tests.vps [--only WORDS] [--depth N] [--machines N] [--postgresql] [--keep DIR]

Exit status: 0 everything held, 1 something did not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.autoscaler.cloud.local_vps import LocalVps
from orchestrator.testing.postgres import Cluster, postgres_bin
from tests.vps.acts import Act, Played, Say, play
from tests.vps.ground import IMAGES, provider, why_not
from tests.vps.hall import Hall
from tests.vps.pools import CLUSTER, PLAYBOOK, PROVIDER, WHEELHOUSE, Pool, pools_text
from tests.vps.seen import table
from tests.vps.shell import new_key

CLOUDS = IMAGES / "demo"
"""Always the same, so that what a killed demo left is found by the next one."""
STATE = CLOUDS / PROVIDER
ACTS = (
    Act("golden image", "golden", is_from_zero=True),
    Act("golden image, a spot machine is taken away", "golden", kills=True),
    Act("plain image and Ansible", "plain", is_golden=False, joins_within_s=1200.0),
)


def main() -> int:
    """The command line."""
    given = _given()
    lack = why_not()
    if lack is not None:
        raise SystemExit(f"vps-demo: {lack}")
    acts = [replace(act, depth=given.depth, machines=given.machines) for act in ACTS if given.only in act.name]
    missing = sorted({act.image for act in acts if not (IMAGES / act.image).exists()})
    if missing:
        raise SystemExit(f"vps-demo: no image {', '.join(missing)} in {IMAGES}: make vps-image")
    if not all(act.is_golden for act in acts) and not (PLAYBOOK.exists() and WHEELHOUSE.is_dir()):
        raise SystemExit("vps-demo: plain images are made nodes by Ansible: make ansible-tools wheelhouse")
    begun_s = time.monotonic()

    def say(words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun_s:7.1f} s  {words}\n")
        sys.stdout.flush()

    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-vps-")))
        folder.mkdir(parents=True, exist_ok=True)
        cluster = _cluster(stack) if given.postgresql else None
        played = []
        for number, act in enumerate(acts):
            say(f"--- {act.name}")
            played.append(asyncio.run(_staged(act, folder / f"{number}-{act.image}", cluster, say)))
            sys.stdout.write(told(played[-1]))
    return 1 if any(each.wrong for each in played) else 0


async def _staged(act: Act, folder: Path, cluster: Cluster | None, say: Say) -> Played:
    """In a hall of its own."""
    folder.mkdir(exist_ok=True)
    cloud = provider(STATE, IMAGES / act.image)
    await _swept(cloud)

    def told(bridge: str) -> dict[str, str]:
        key = None if act.is_golden else new_key(folder).path
        pools = folder / "pools.toml"
        pool = Pool(act.image, act.is_golden, act.kills, act.machines, act.slots, key)
        pools.write_text(pools_text(pool, bridge))
        return {"MCPFLEET_POOLS_FILE": str(pools), "MCPFLEET_CLOUD_DIR": str(CLOUDS)}

    async with Hall.laid(folder, told, cluster) as hall:
        try:
            say(f"orchestrator and Redis at {hall.ground.host}")
            return await play(act, hall, cloud, state_dir=STATE, say=say)
        finally:
            await hall.close()  # first: it would order what is swept away anew
            await _swept(cloud)


async def _swept(cloud: LocalVps) -> None:
    """What another run, or this one, left."""
    machines = await cloud.machines(CLUSTER)
    await asyncio.gather(*(cloud.terminate(machine.id) for machine in machines))
    await cloud.sweep()


def told(played: Played) -> str:
    """One act, for people."""
    said = played.books
    ends = ", ".join(f"{count} {state}" for state, count in said.states.items())
    lines = [
        "",
        *_decided(played.decisions),
        "",
        table(played.stories),
        "",
        f"calls: {ends}; {said.repeated} tried more than once",
    ]
    lines.append("answered by: " + ", ".join(f"{node} {count}" for node, count in sorted(said.nodes.items())))
    lines += [f"taken away: {played.killed}"] * bool(played.killed)
    lines += [f"WRONG  {words}" for words in played.wrong]
    if not played.wrong:
        lines.append("no call lost; no process, mount, namespace, cable, control group or folder left over")
    lines.append(f"{played.act.name}: {played.took_s:.0f} s")
    return "\n".join(lines) + "\n\n"


def _decided(decisions: list[dict[str, Any]]) -> list[str]:
    """Changes of the pool's size, each with the word that made it."""
    lines = []
    for each in decisions:
        if each["target"] != each["before"]:
            why = each["reasons"][-1]["text"] if each["reasons"] else ""
            after_s = each["at"] - decisions[0]["at"]
            lines.append(f"{after_s:7.1f} s  {each['before']} to {each['target']} machines: {why}")
    return lines


def _given() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="only acts with these words in their name")
    options.add_argument("--depth", type=int, default=ACTS[0].depth, help="calls that are open while load comes")
    options.add_argument("--machines", type=int, default=ACTS[0].machines)
    options.add_argument("--postgresql", action="store_true", help="keep the ledger there instead of in SQLite")
    options.add_argument("--keep", type=Path, help="keep logs and ledger there")
    return options.parse_args()


def _cluster(stack: ExitStack) -> Cluster:
    programs = postgres_bin()
    if programs is None:
        raise SystemExit("--postgresql: PostgreSQL is not installed; `make postgres` does it, as root on Debian")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-pg-"))
    cluster = Cluster(programs, Path(folder))
    cluster.make()
    cluster.start()
    stack.callback(cluster.stop)
    return cluster


if __name__ == "__main__":
    sys.exit(main())
