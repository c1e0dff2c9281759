"""`make compose-test`: docker-compose.yml for real, on a Docker engine in namespaces of its own, as root.

    python -m tests.compose

Exit status: 0 everything held, 1 something did not; 3 this host cannot, and says why.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.compose import bases, images
from tests.compose.client import NotSeen
from tests.compose.engine import Engine, EngineFailed, lacks
from tests.compose.play import Play
from tests.compose.stack import NOT_MADE, Stack

CANNOT = 3
LOG = bases.CACHE / "failed.log"


def main() -> int:
    """All of it."""
    if (lack := lacks()) is not None:
        say(f"!!! NOT TESTED HERE: docker-compose.yml was not started: {lack}")
        return CANNOT
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # tidied up after like Ctrl-C
    say("base images: from Debian's packages")
    for name in bases.PACKAGES:
        say(f"    {bases.tarball(name)}")
    images.further()
    with tempfile.TemporaryDirectory(prefix="mcpfleet-compose-") as folder:
        with Engine(Path(folder)) as engine:
            failure = run(engine, Path(folder))
        left = engine.left()
    for service, why in NOT_MADE.items():
        say(f"!!! NOT TESTED HERE: {service}: {why}")
    say(f"!!! STAND-INS, made of Debian's packages, for: {', '.join(bases.STANDS_IN)}")
    say(f"left behind: {left}" if left else "nothing is left behind")
    say(f"FAILED: {failure}" if failure else "all held")
    return 1 if failure or left else 0


def run(engine: Engine, folder: Path) -> str | None:
    """What did not hold."""
    began = time.monotonic()
    bases.provide(engine)
    say(f"our images, on top of python:{bases.PYTHON}")
    for image, size in images.build(engine).items():
        say(f"    {image}: {size / 1e6:.0f} MB")
    say(f"    {time.monotonic() - began:.0f} s")
    stack = Stack(engine, folder / "checkout")
    engine.enter_network()
    try:
        Play(stack, say).all()
        say("down: nothing of the project is there any more")
        stack.compose("down", "-v", "--remove-orphans")
        left = engine.docker("ps", "-aq") + engine.docker("volume", "ls", "-q", "--filter", "name=mcpfleet_")
        # Of containers that were made anew Compose 1.29 keeps the volumes that have no name: the nodes' journals.
        journals = engine.docker("volume", "ls", "-q").split()
        say(f"    {len(journals)} journals are left to `docker volume prune`")
    except (NotSeen, EngineFailed) as error:
        keep_log(stack)
        return str(error)
    return f"containers or volumes: {left}" if left.strip() else None


def keep_log(stack: Stack) -> None:
    """What the containers said, for whoever mends it. Of a fleet that is gone, with all its secrets."""
    try:
        LOG.write_text(stack.compose("ps") + stack.compose("logs", "--no-color"))
        say(f"    logs: {LOG}")
    except EngineFailed as error:
        say(f"    no logs: {error}")


def say(line: str) -> None:
    """To whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
