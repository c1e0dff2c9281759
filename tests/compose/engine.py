"""A Docker engine of our own: its network, processes and mounts are its own namespaces', its files a folder.

What it starts cannot outlive it: when its first process dies, the kernel ends the namespaces with all that is in
them. Nothing of the host's network is touched, so ports and networks are those that the Compose file names.
Owns the engine's life; refuses to know what runs in it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from orchestrator.autoscaler.cloud.nspawn.cgroups import mounted

STARTS_WITHIN_S = 120.0
STOPS_WITHIN_S = 120.0
ASK_EVERY_S = 0.2
DOCKER_S = 1800.0
NEW_NETWORK = 0x40000000
"""CLONE_NEWNET, setns(2)."""
PROGRAMS = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "openssl": "openssl",
}
"""What is run, and its Debian package."""


class EngineFailed(Exception):
    """A command of Docker's ended with an error; its words are the message."""


def lacks() -> str | None:
    """What this host lacks for an engine, in one sentence."""
    if os.geteuid() != 0:
        return "not root"
    if missing := sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None}):
        return f"not installed: {' '.join(missing)} (make compose-test installs them as root with apt)"
    if not mounted(Path("/proc/self/mounts").read_text()):
        return "no control groups are mounted here"
    words = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "true"]
    tried = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    return f"no namespaces of our own: {tried.stderr.strip()}" if tried.returncode else None


class Engine:
    """One daemon. Start it, use it, stop it; a context manager does both ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group = f"mcpfleet-compose-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "docker.sock"

    def __enter__(self) -> Self:
        """Up, and it answers."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Down, and nothing of it is left."""
        self.stop()

    @property
    def environ(self) -> dict[str, str]:
        """Of what talks to it."""
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}

    def start(self) -> None:
        """The daemon, in namespaces of its own; whoever started it takes it along when it dies."""
        words = ["dockerd", "--data-root", str(self._folder / "data"), "--exec-root", str(self._folder / "exec")]
        words += ["--pidfile", str(self._folder / "pid"), "-H", f"unix://{self.socket}", "--bip", "10.78.0.1/24"]
        words += ["--default-address-pool", "base=10.79.0.0/16,size=24", "--cgroup-parent", f"/{self._group}"]
        own = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--pid", "--mount", "--fork", "--kill-child"]
        own += ["--mount-proc", "--propagation", "private", "sh", "-c", 'ip link set lo up; exec "$@"', "-"]
        log = (self._folder / "dockerd.log").open("wb")
        self._process = subprocess.Popen([*own, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise EngineFailed(f"dockerd did not start: {(self._folder / 'dockerd.log').read_text()[-2000:]}")
            time.sleep(ASK_EVERY_S)

    def stop(self) -> None:
        """In order, else by its namespace's end; then its control groups."""
        if self._process is None:
            return
        if (first := self.first_process()) is not None:
            os.kill(first, 15)
        try:
            self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOPS_WITHIN_S)
        self._process = None
        for group in self.groups():
            group.rmdir()

    def first_process(self) -> int | None:
        """The daemon, as this host numbers it: the one child of what made its namespaces."""
        assert self._process is not None
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def groups(self) -> list[Path]:
        """Its control groups that are there, the innermost first."""
        found = [folder for top in Path("/sys/fs/cgroup").glob(f"*/{self._group}") for folder in (top, *top.rglob("*"))]
        return sorted((folder for folder in found if folder.is_dir()), key=lambda folder: -len(folder.parts))

    def enter_network(self) -> None:
        """This thread, and all that it starts from now on, is where published ports are.

        Raises:
            OSError: the kernel did not let it.
        """
        with Path(f"/proc/{self.first_process()}/ns/net").open() as network:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(network.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")

    def left(self) -> str:
        """What is there of it after its end: control groups, mounts, processes."""
        groups = [str(group) for group in self.groups()]
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self._folder) in line]
        mine = str(self._folder).encode()
        found = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if mine in _bytes_of(path)]
        return "; ".join([*groups, *mounts, *(path.name for path in found)])

    def docker(self, *words: str, stdin: IO[Any] | None = None, timeout: float = DOCKER_S) -> str:
        """What the command prints.

        Raises:
            EngineFailed: it ended with an error.
        """
        # Beside the daemon: what is called docker on the PATH may be something else.
        docker = str(Path(shutil.which("dockerd") or "").parent.parent / "bin" / "docker")
        return said([docker, *words], self.environ, stdin=stdin, timeout=timeout)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            self.docker("version", timeout=60)
        except (EngineFailed, subprocess.TimeoutExpired):
            return False
        return True


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended in between
        return b""


def said(
    words: list[str],
    environ: Mapping[str, str],
    *,
    stdin: IO[Any] | None = None,
    timeout: float = DOCKER_S,
    cwd: Path | None = None,
) -> str:
    """What a command prints on standard output.

    Raises:
        EngineFailed: it ended with an error.
    """
    done = subprocess.run(
        words,
        env=dict(environ),
        stdin=stdin or subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
    )
    if done.returncode:
        raise EngineFailed(f"{' '.join(words)[:300]}: {(done.stderr or done.stdout)[-3000:]}")
    return done.stdout
