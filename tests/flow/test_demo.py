"""`mcpfleet demo`: its story holds, on real servers, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from orchestrator.cli.demo.props import make_repository, page
from orchestrator.testing.local import command, environ_for, gone, until

ENDS_WITHIN_S = 300.0
"""Of a machine that runs other tests at the same time; alone it takes well under a minute."""


@pytest.mark.timeout(ENDS_WITHIN_S)
def test_every_promise_of_the_demo_holds(tmp_path: Path, third_party: dict[str, str]) -> None:
    """It checks what it shows; here is checked that it shows all of it, and cleans up."""
    environ = environ_for(tmp_path / "unused", os.environ) | {"TMPDIR": str(tmp_path), "COLUMNS": "100"}
    said = subprocess.run(
        command("demo", "--fast"), env=environ, capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_S
    )
    assert said.returncode == 0, said.stdout + said.stderr
    for promise in (
        "behind one address",
        "the reasons for its placement",
        "10 of 10 on general-",
        "succeeded at try 3",
        "instead of 5 minutes",
        "only builders-1 runs git",
        "a capability nobody offers is refused at once",
        "the page came through",
        "kept as a dead letter",
        "linked to it, succeeded",
    ):
        assert f"{promise}" in said.stdout
    assert "MCP endpoint  http://127.0.0.1:" in said.stdout
    assert "nothing left running" in said.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(ENDS_WITHIN_S)
@pytest.mark.parametrize("word", ["demo", "up"])
def test_killed_fleet_leaves_nothing(word: str, tmp_path: Path) -> None:
    """Kill -9, the OOM killer, a closed lid; with half of it there, one process may just have been started."""
    environ = environ_for(tmp_path / "state", os.environ) | {"TMPDIR": str(tmp_path)}
    output = tmp_path.with_name(f"{tmp_path.name}-output")
    with output.open("wb") as file:
        process = subprocess.Popen(command(word), env=environ, stdout=file, stderr=file)
        try:
            until(lambda: _nodes_of(process), ENDS_WITHIN_S, "its nodes start")
            family = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
        assert process.wait(ENDS_WITHIN_S) == -signal.SIGKILL
    assert gone([*family, *_of(tmp_path)]) == []
    if word == "demo":
        until(lambda: list(tmp_path.iterdir()) == [], ENDS_WITHIN_S, "its directory is removed")
    else:
        assert (tmp_path / "state" / "identity.json").exists(), "the next one has the same addresses"
        assert not (tmp_path / "state" / "fleet.json").exists()


def _of(folder: Path) -> list[psutil.Process]:
    """Whoever works in it; some were started after the others were counted."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(str(folder)):
                found.append(process)
    return found


def _nodes_of(process: subprocess.Popen[bytes]) -> bool:
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "worker.cli" in child.cmdline():
                return True
    return False


def test_repository_of_the_demo_ignores_the_users_settings(tmp_path: Path) -> None:
    """A signing key or a commit hook of whoever runs it has no say."""
    folder = tmp_path / "shop"
    assert make_repository(folder)
    log = subprocess.run(
        ["git", "-C", str(folder), "log", "--format=%an %s"], capture_output=True, text=True, check=True
    )
    assert log.stdout.splitlines()[-1] == "Demo Begin the shop"


def test_page_of_the_demo_is_on_loopback() -> None:
    """It is reachable while the story is told, and only from here."""
    with page() as url:
        assert url.startswith("http://127.0.0.1:")
    assert tempfile.gettempdir()
