"""`mcpfleet up` as a child process of a test, and what is left of it afterwards."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.cli.main import run
from orchestrator.local.statefile import FleetFile, read_fleet_file

UP_WITHIN_S = 150.0
"""Of a machine that runs other tests at the same time."""
DOWN_WITHIN_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Local:
    """A fleet that `mcpfleet up` started."""

    file: FleetFile
    state_dir: Path
    process: subprocess.Popen[bytes]
    output: Path
    given: Mapping[str, str]

    @property
    def url(self) -> str:
        """Of the HTTP door."""
        return self.file.url

    @property
    def token(self) -> str:
        """Its bearer token."""
        return self.file.token

    @property
    def environ(self) -> dict[str, str]:
        """For commands that shall find it."""
        return dict(self.given)

    def family(self) -> list[psutil.Process]:
        """Every process that it started, and those that they did."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def node(self, name: str) -> psutil.Process:
        """The process of one node."""
        return self.child("--name", name)

    def child(self, *words: str) -> psutil.Process:
        """The process with these words in its command line."""
        for process in self.family():
            if set(words) <= set(process.cmdline()):
                return process
        raise LookupError(words)

    def end(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(DOWN_WITHIN_S)


def environ_for(state_dir: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without any fleet of its own."""
    ours = {key: value for key, value in environ.items() if not key.startswith("MCPFLEET_")}
    return ours | {"MCPFLEET_STATE_DIR": str(state_dir)}


def command(*words: str) -> list[str]:
    """`mcpfleet WORDS` of this interpreter."""
    return [sys.executable, "-P", "-m", "orchestrator.cli.main", *words]


@dataclass(frozen=True, slots=True)
class Said:
    """What one command did."""

    returncode: int
    stdout: str
    stderr: str


def mcpfleet(environ: Mapping[str, str], *words: str) -> Said:
    """One command in this process: a second less than one of its own, and the same from its first line on."""
    out, err = io.StringIO(), io.StringIO()
    status = run(words, environ=environ, out=out, err=err, stdin=io.BytesIO())
    return Said(status, out.getvalue(), err.getvalue())


@contextmanager
def upped(
    folder: Path, *words: str, environ: Mapping[str, str], settings: Mapping[str, str] | None = None
) -> Iterator[Local]:
    """A running fleet in `folder`, with these settings; ended if the test did not."""
    state_dir, output = folder / "state", folder / "output"
    given = environ_for(state_dir, environ) | dict(settings or {})
    with output.open("wb") as file:
        process = subprocess.Popen(command("up", *words), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=given)
    try:
        until(lambda: _is_up(state_dir, process, output), UP_WITHIN_S, "the fleet is up")
        found = read_fleet_file(state_dir)
        assert found is not None
        yield Local(found, state_dir, process, output, given)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(DOWN_WITHIN_S)


def until(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait, at most `within_s` seconds."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        threading.Event().wait(POLL_S)


def gone(processes: Sequence[psutil.Process], within_s: float = DOWN_WITHIN_S) -> list[psutil.Process]:
    """Those that are still there after `within_s` seconds; zombies count as gone."""
    return psutil.wait_procs(processes, within_s)[1]


def _is_up(state_dir: Path, process: subprocess.Popen[bytes], output: Path) -> bool:
    assert process.poll() is None, f"mcpfleet up ended: {output.read_text()}"
    return read_fleet_file(state_dir) is not None
