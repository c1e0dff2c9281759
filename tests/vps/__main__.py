"""`make vps-demo`: machines that really boot on this host, as root.

    python -m tests.vps [--only WORDS] [--depth N] [--machines N] [--postgresql] [--keep DIR]

Exit status: 0 everything held, 1 something did not.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.autoscaler.cloud.nspawn.network import Wire
from orchestrator.autoscaler.cloud.nspawn.records import Records
from orchestrator.testing.postgres import Cluster, postgres_bin
from tests.vps.acts import Act, NotSeen, Played, Say, play
from tests.vps.api import Api
from tests.vps.centre import DataCentre, sweep
from tests.vps.ec2_api import Ec2Api
from tests.vps.ground import IMAGES, why_not
from tests.vps.hall import Hall
from tests.vps.hetzner_api import HetznerApi
from tests.vps.pools import PLAYBOOK, WHEELHOUSE, Pool, pools_text
from tests.vps.seen import grid, medians, table
from tests.vps.shell import new_key

STATE = IMAGES / "demo"
"""Always the same, so that what a killed demo left is found by the next one."""
CLOUDS: dict[str, Callable[[DataCentre, str, Path], Api]] = {"hetzner": HetznerApi, "ec2": Ec2Api}
LOG_CHARS = 4000
SPARE = 2
"""Machines that an account may have beyond what the pool may: those that are being ended count too."""
ACTS = (
    Act("golden image", "golden", is_from_zero=True),
    Act("golden image, a spot machine is taken away", "golden", "ec2", machines=2, call_s=4.0, kills=True),
    Act("plain image and Ansible", "plain", machines=2, is_golden=False, joins_within_s=1200.0),
)


def main() -> int:
    """The command line."""
    given = _given()
    lack = why_not()
    if lack is not None:
        raise SystemExit(f"vps-demo: {lack}")
    acts = [_asked(act, given) for act in ACTS if given.only in act.name]
    if not acts:
        raise SystemExit(f"vps-demo: no act has {given.only!r} in its name: {'; '.join(act.name for act in ACTS)}")
    missing = sorted({act.image for act in acts if not (IMAGES / act.image).exists()})
    if missing:
        raise SystemExit(f"vps-demo: no image {', '.join(missing)} in {IMAGES}: make vps-image")
    if not all(act.is_golden for act in acts) and not (PLAYBOOK.exists() and WHEELHOUSE.is_dir()):
        raise SystemExit("vps-demo: plain images are made nodes by Ansible: make ansible-tools wheelhouse")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # asyncio tidies up after that one
    with ExitStack() as stack:
        _alone(stack)
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpfleet-vps-")))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SystemExit(f"vps-demo: --keep {folder} has something in it; name an empty folder")
        cluster = _cluster(stack) if given.postgresql else None
        return _played(acts, folder, cluster)


def _asked(act: Act, given: argparse.Namespace) -> Act:
    """As it is written, but for what the command line says."""
    return replace(act, depth=given.depth or act.depth, machines=given.machines or act.machines)


def _played(acts: list[Act], folder: Path, cluster: Cluster | None) -> int:
    """All of them, each told when it is over; the exit status."""
    begun_s = time.monotonic()

    def say(words: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begun_s:7.1f} s  {words}\n")
        sys.stdout.flush()

    wrong, steps = [], {}
    for number, act in enumerate(acts):
        say(f"--- {act.name}")
        own = folder / f"{number}-{act.image}"
        try:
            played = asyncio.run(_staged(act, own, cluster, say))
        except (NotSeen, TimeoutError) as missed:
            wrong.append(act.name)
            say(f"WRONG  {act.name}: {missed or 'the orchestrator or its calls did not come to an end in time'}")
            sys.stdout.write(_last_words(own))
            continue
        sys.stdout.write(told(played))
        steps[act.name] = medians(played.stories)
        wrong += [act.name] * bool(played.wrong)
    sys.stdout.write(grid("median s from the order", steps) + "\n\n")
    say(f"WRONG: {', '.join(wrong)}" if wrong else f"{len(acts)} of {len(acts)} acts held")
    return 1 if wrong else 0


def _last_words(folder: Path) -> str:
    """Of the orchestrator, as far as they are no routine."""
    lines = (folder / "o1.log").read_text(errors="replace").splitlines() if (folder / "o1.log").exists() else []
    return "".join(f"    {line[:LOG_CHARS]}\n" for line in lines if '"level":"info"' not in line)[-LOG_CHARS:]


def _alone(stack: ExitStack) -> None:
    """Another demo of this tree would sweep away the machines of this one."""
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = stack.enter_context((STATE / "demo.lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"vps-demo: another one is running from {IMAGES.parent.parent}; wait for its end") from None


async def _staged(act: Act, folder: Path, cluster: Cluster | None, say: Say) -> Played:
    """In a hall of its own, in front of a data centre of its own."""
    folder.mkdir(exist_ok=True)
    await sweep(STATE)
    stage = Stage(act, folder)
    try:
        async with Hall.laid(folder, stage.set, cluster, owner=_bridge_owner()) as hall:
            assert stage.api is not None
            say(f"orchestrator and Redis at {hall.ground.host}; {act.cloud}'s API on loopback")
            return await play(act, hall, stage.api, say)
    finally:  # after the orchestrator's end: it would order what is swept away anew
        if stage.api is not None:
            await stage.api.close()
            await stage.api.centre.close()
        await sweep(STATE)


@dataclass
class Stage:
    """The cloud of an act, once there is a network for its machines."""

    act: Act
    folder: Path
    api: Api | None = None

    def set(self, wire: Wire) -> dict[str, str]:
        """What the orchestrator is told of it."""
        act = self.act
        key = None if act.is_golden else new_key(self.folder).path
        most = act.machines + SPARE
        centre = DataCentre(STATE, {act.image: IMAGES / act.image}, wire, most)
        self.api = CLOUDS[act.cloud](centre, act.image, self.folder)
        account = self.api.account()
        pools = self.folder / "pools.toml"
        pools.write_text(pools_text(Pool(act.is_golden, act.kills, act.machines, act.slots, key), account))
        environ = {"MCPFLEET_POOLS_FILE": str(pools), "MCPFLEET_CLOUD_DIR": str(self.folder / "clouds")}
        return {**environ, **account.environ}


def _bridge_owner() -> str:
    """Of this tree, so that two trees play on one host without treading on each other."""
    return f"d{Records(STATE).owner}"


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
        f"calls: {ends}; {said.repeated} started more than once, {said.moved} given out anew before their start",
    ]
    lines.append("answered by: " + ", ".join(f"{node} {count}" for node, count in sorted(said.nodes.items())))
    lines.append(f"{played.act.cloud}'s API: " + ", ".join(f"{name} {n}" for name, n in sorted(played.asked.items())))
    lines += [f"taken away: {played.killed}"] * bool(played.killed)
    lines += [f"WRONG  {words}" for words in played.wrong]
    if not played.wrong:
        lines.append("no call lost; nothing left over: no process, mount, namespace, cable, control group or folder,")
        lines.append("and no server in the books of the cloud's API")
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
    options.add_argument("--depth", type=int, help="calls that are open while load comes")
    options.add_argument("--machines", type=int, help="that each act is to need")
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
