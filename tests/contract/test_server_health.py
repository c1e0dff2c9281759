"""A node's servers that go deaf, flap and come back: checked while idle, felt while calls run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

import worker.testing.napping_server
from tasks.outcome import Failure
from worker.testing.upstreams_kit import Kit, noted, running, scripted, until
from worker.upstreams.life import Limits

IDLE = Limits(health_every_s=0.05, health_answer_s=1.0, recheck_s=0.05)
NO_CHECKS = {"health_every_s": 3600.0, "recheck_s": 3600.0}
QUICK = Limits(health_every_s=0.2, recheck_s=0.2, beat_every_s=0.2, silence_s=2.0)
BUSY = Limits(**NO_CHECKS, beat_every_s=0.05, silence_s=0.5)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the scripted server writes down what it is told."""
    return tmp_path / "notes"


def _form(notes: Path, **policy: Any) -> dict[str, Any]:
    return {"mcpServers": {"s": scripted(notes)}, "mcpfleet": {"tools": {"s.*": policy}}}


def _is_back(kit: Kit) -> bool:
    status = kit.status("s")
    return status.restarts >= 1 and status.state == "ready"


async def test_a_deaf_server_is_unhealthy_after_three_checks_and_used_after_two(notes: Path) -> None:
    """It is ended and started again, offered all the while, and trusted only when it answered twice."""
    with capture_logs() as lines:
        async with running(_form(notes), limits=IDLE) as kit:
            os.kill(int(noted(notes, "pid")[0]), signal.SIGSTOP)
            await until(lambda: "s" in kit.upstreams.unhealthy())
            assert "s.echo" in kit.names()
            await until(lambda: _is_back(kit) and not kit.upstreams.unhealthy())
            assert (await kit.call("s.echo"))["content"] == []
    assert len(noted(notes, "pid")) == 2
    told = [line["event"] for line in lines if line["event"].startswith("server_")]
    assert told.count("server_check_failed") == 3
    assert told.index("server_ended") < told.index("server_health_changed", told.index("server_ended"))


async def test_two_unanswered_checks_end_nothing(notes: Path) -> None:
    """A pause of the machine is no reason to end a session and what runs on it."""
    async with running(_form(notes), limits=IDLE) as kit:
        await kit.call("s.mute", {"pings": 2})
        await until(lambda: len(noted(notes, "mute")) == 2)
        heard = len(noted(notes, "ping"))
        await until(lambda: len(noted(notes, "ping")) > heard + 1)
        assert (kit.status("s").restarts, kit.upstreams.unhealthy()) == (0, {})


async def test_an_ordinary_crash_costs_no_more_than_the_restart(notes: Path) -> None:
    """One end is one bad check: as soon as it is ready it is used, before any further check."""
    async with running(_form(notes), limits=Limits(**NO_CHECKS)) as kit:
        await kit.refusal("s.die")
        await until(lambda: _is_back(kit))
        assert kit.upstreams.unhealthy() == {}


async def test_a_server_that_crashes_again_and_again_has_to_prove_itself(notes: Path) -> None:
    """Three ends with no good check between them, and being up is no longer enough."""
    async with running(_form(notes), limits=Limits(**NO_CHECKS)) as kit:
        for restarts in (1, 2, 3):
            await kit.refusal("s.die")
            await until(lambda wanted=restarts: kit.status("s").restarts == wanted and kit.status("s").state == "ready")
        assert "not trusted yet" in kit.upstreams.unhealthy()["s"]


async def test_a_long_call_goes_on_while_its_server_answers_heartbeats(notes: Path) -> None:
    """And when it has gone deaf, the call ends as one that may have run, long before its timeout."""
    async with running(_form(notes), limits=BUSY) as kit:
        error = await kit.refusal("s.fade", {"pings": 30})
        assert len(noted(notes, "ping")) == 30, "30 heartbeats of 50 ms: three times the limit"
        assert (error.code, error.failure) == ("silent", Failure.MAYBE_STARTED)
        assert "nothing was heard of it for" in error.message
        await until(lambda: _is_back(kit))
        assert "not trusted yet" in kit.upstreams.unhealthy()["s"]


async def test_a_server_that_does_one_thing_at_a_time_is_not_ended_for_it(notes: Path) -> None:
    """It cannot answer while it works. One heartbeat waits for it, not a pipe full of them."""
    async with running(_form(notes), limits=BUSY) as kit:
        assert (await kit.call("s.block", {"seconds": 1.5}))["content"]
        assert kit.status("s").restarts == 0
        assert (await kit.call("s.block", {"seconds": 1.5}))["content"], "nor is it held to what it did once"
        await until(lambda: len(noted(notes, "ping")) >= 2)  # it reads what waited once it has answered
        assert len(noted(notes, "ping")) == 2


async def test_a_declared_limit_counts_for_any_server(notes: Path) -> None:
    """Its operator knows how long it may be silent."""
    async with running(_form(notes, silence_limit_s=0.5), limits=Limits(**NO_CHECKS)) as kit:
        error = await kit.refusal("s.block", {"seconds": 600})
        assert (error.code, error.failure) == ("silent", Failure.MAYBE_STARTED)
        await until(lambda: _is_back(kit))


async def test_a_declared_zero_switches_it_off(notes: Path) -> None:
    """For tools that answer at times and then work for an hour without a word."""
    async with running(_form(notes, silence_limit_s=0), limits=BUSY) as kit:
        task = asyncio.create_task(kit.call("s.fade", {"pings": 5}))
        await until(lambda: noted(notes, "deaf"))
        done, _ = await asyncio.wait({task}, timeout=4 * BUSY.silence_s)
        assert not done
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def napping(transport: str, folder: Path) -> AsyncIterator[tuple[Kit, psutil.Process]]:
    """A node with a real server of the SDK, and the process that it is."""
    script = [sys.executable, str(Path(worker.testing.napping_server.__file__))]
    if transport == "stdio":
        form = {"mcpServers": {"s": {"command": script[0], "args": [script[1], "stdio"]}}}
        others = set(psutil.Process().children())
        async with running(form, limits=QUICK) as kit:
            (server,) = set(psutil.Process().children()) - others
            yield kit, server
        return
    port = folder / "port"
    process = await asyncio.create_subprocess_exec(*script, "http", str(port), *transport.split()[1:])
    try:
        await until(lambda: port.exists() and port.read_text())
        form = {"mcpServers": {"s": {"url": f"http://127.0.0.1:{port.read_text()}/mcp"}}}
        async with running(form, limits=QUICK) as kit:
            yield kit, psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("transport", "protocol"), [("stdio", "2026-07-28"), ("http", "2026-07-28"), ("http old", "2025-11-25")]
)
async def test_silence_in_a_call_is_noticed_on_every_transport_in_every_era(
    transport: str, protocol: str, tmp_path: Path
) -> None:
    """It answers for longer than the limit, then its whole process stops; and when it goes on it is used again."""
    async with napping(transport, tmp_path) as (kit, process):
        assert kit.status("s").protocol == protocol
        task = asyncio.create_task(kit.refusal("s.nap", {"seconds": 3600}))
        done, _ = await asyncio.wait({task}, timeout=2 * QUICK.silence_s)
        assert not done
        process.suspend()
        error = await task
        assert (error.code, error.failure) == ("silent", Failure.MAYBE_STARTED)
        assert "s.nap" in kit.names()
        if transport != "stdio":  # its session is over without a farewell, and it is away until it goes on
            await until(lambda: kit.status("s").restarts >= 1)
            process.resume()
        await until(lambda: _is_back(kit) and not kit.upstreams.unhealthy())
        assert (await kit.call("s.nap", {"seconds": 0}))["content"][0]["text"] == "rested"
