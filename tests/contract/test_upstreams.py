"""A node's servers that behave badly: the call learns what happened, the others go on, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tasks.outcome import Failure
from tasks.tracing import Trace
from worker.testing.upstreams_kit import Kit, is_alive, noted, running, scripted, until
from worker.upstreams.life import Limits


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the scripted server writes down what it is told."""
    return tmp_path / "notes"


@pytest.fixture
async def kit(notes: Path) -> AsyncIterator[Kit]:
    """The scripted server, ready."""
    async with running(
        {"mcpServers": {"s": scripted(notes)}}, limits=Limits(result_bytes=100_000, health_every_s=3600)
    ) as kit:
        assert kit.status("s").state == "ready", kit.status("s")
        yield kit


async def test_what_a_server_says_is_carried_unchanged(kit: Kit) -> None:
    """Arguments with nulls go there as they are; structured content and `_meta` come back as they are."""
    meta = {"_meta": {"mine": {"a": None}, "progressToken": 7, "io.modelcontextprotocol/protocolVersion": "x"}}
    trace = Trace("ab" * 16, "cd" * 8, is_sampled=True)
    result = await kit.call("s.echo", {"a": None, "b": [1, "ü"]}, meta=meta, trace=trace, invocation="inv-9")
    assert result["_meta"] == {"kept": 1}
    assert result["structuredContent"]["arguments"] == {"a": None, "b": [1, "ü"]}
    told = result["structuredContent"]["meta"]
    assert told["mine"] == {"a": None}
    assert told["mcpfleet/invocation"] == "inv-9"
    assert told["traceparent"] == f"00-{'ab' * 16}-{'cd' * 8}-01"
    assert "io.modelcontextprotocol/protocolVersion" not in told


async def test_tools_are_listed_from_all_pages_as_they_are(kit: Kit) -> None:
    """Unknown keys of a definition survive; a name that cannot stand in the fleet's list is left out."""
    listed = {spec.name: spec.definition for spec in kit.upstreams.tools()}
    assert {"s.echo", "s.spawn", "s.chat", "probe.echo"} <= listed.keys()
    assert "s.not allowed" not in listed
    assert listed["s.echo"]["x-extra"] == {"null": None}


async def test_progress_reaches_the_caller(kit: Kit) -> None:
    """What a tool reports on its way arrives before its result is returned to us, in order."""
    told: list[object] = []
    await kit.call("s.progress", on_progress=lambda *report: told.append(report))
    assert told == [(float(step), 3.0, f"step {step}") for step in range(3)]


async def test_a_cancelled_call_is_cancelled_at_the_server(kit: Kit, notes: Path) -> None:
    """Cancelling the task sends notifications/cancelled for that request; what follows is in test_stopping.py."""
    task = asyncio.create_task(kit.call("s.hang"))
    await until(lambda: noted(notes, "hangs"))
    task.cancel()
    await until(lambda: noted(notes, "cancelled"))
    assert noted(notes, "cancelled") == noted(notes, "hangs")
    assert (await kit.call("s.echo"))["content"] == []
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_server_that_dies_is_brought_back(kit: Kit, notes: Path) -> None:
    """The call that met the death may have started; its tools vanish from the offer and come back."""
    version = kit.upstreams.version
    error = await kit.refusal("s.die")
    assert (error.code, error.failure) == ("connection_lost", Failure.MAYBE_STARTED)
    await until(lambda: kit.status("s").restarts == 1 and kit.status("s").state == "ready")
    assert kit.upstreams.version >= version + 2
    assert len(noted(notes, "pid")) == 2
    assert (await kit.call("s.echo"))["content"] == []


async def test_the_era_that_worked_is_remembered(kit: Kit, notes: Path) -> None:
    """A server of the handshake era is asked for server/discover once, not at every restart."""
    await kit.refusal("s.die")
    await until(lambda: kit.status("s").restarts == 1 and kit.status("s").state == "ready")
    assert noted(notes, "unknown") == ["server/discover"]
    assert kit.status("s").protocol == "2025-06-18"


async def test_a_killed_server_is_offered_as_unhealthy_and_its_calls_were_not_started(notes: Path) -> None:
    """While it is away calls for it can wait: its tools stay known. One that comes here learns that nothing started."""
    async with running({"mcpServers": {"s": scripted(notes)}}, draw=1.0) as kit:
        os.kill(int(noted(notes, "pid")[0]), signal.SIGKILL)
        await until(lambda: kit.status("s").state == "waiting")
        assert "s.echo" in kit.names()
        assert kit.upstreams.capabilities() == {"probe"}
        assert kit.upstreams.unhealthy() == {"s": "it is not running (the process was killed by signal 9)"}
        error = await kit.refusal("s.echo")
        assert (error.code, error.failure) == ("server_unavailable", Failure.NOT_STARTED)
        assert "killed by signal 9" in error.message


async def test_a_result_over_the_limit_fails_its_own_call_only(kit: Kit) -> None:
    """Too large is an error of that call: a call beside it, and the session, are not touched."""
    error, beside = await asyncio.gather(kit.refusal("s.big", {"bytes": 1_500_000}), kit.call("s.echo"))
    assert (error.code, error.failure) == ("result_too_large", Failure.PERMANENT)
    assert "100000 bytes" in error.message
    assert beside["content"] == []
    assert kit.status("s").restarts == 0
    assert len((await kit.call("s.big", {"bytes": 90_000}))["content"][0]["text"]) == 90_000


async def test_an_answer_that_breaks_the_protocol_is_permanent(kit: Kit) -> None:
    """The tool ran and would answer so again: repeating cannot help, and the message says where."""
    error = await kit.refusal("s.wrong")
    assert (error.code, error.failure) == ("bad_result", Failure.PERMANENT)
    assert "content" in error.message


async def test_a_wrong_output_schema_does_not_lose_the_result(kit: Kit) -> None:
    """A mistake in a server's output schema is for the caller to see, with the result in hand."""
    assert (await kit.call("s.mismatch"))["structuredContent"] == {"other": 1}


@pytest.mark.parametrize(
    ("code", "name"),
    [(-32602, "invalid_arguments"), (-32601, "unknown_tool"), (-32603, "server_error"), (-32000, "server_error")],
)
async def test_a_json_rpc_error_is_permanent_with_the_servers_words(kit: Kit, code: int, name: str) -> None:
    """A server that answers `no` was reached, and the same call gets the same answer."""
    error = await kit.refusal("s.rpc_error", {"code": code})
    assert (error.code, error.failure) == (name, Failure.PERMANENT)
    assert "no, because" in error.message


async def test_changed_tools_are_offered(kit: Kit) -> None:
    """A server that adds a tool and says so is listed again."""
    version = kit.upstreams.version
    await kit.call("s.grow")
    await until(lambda: "s.grown" in kit.names())
    assert kit.upstreams.version > version


async def test_noise_disturbs_nothing_and_secrets_stay_out_of_the_log(kit: Kit) -> None:
    """A line on stdout that is no message is skipped; stderr is logged without the secrets of the entry."""
    with capture_logs() as logs:
        assert (await kit.call("s.chat"))["content"][0]["text"] == "chat"
        await until(lambda: [entry for entry in logs if entry["event"] == "server_stderr"])
    assert [entry["sample"] for entry in logs if entry["event"] == "server_stdout_junk"] == ["I am no JSON-RPC"]
    assert "t0ken" not in str(logs)
    assert "*** on stderr" in str(logs)


async def test_what_a_server_started_is_gone_after_close(notes: Path) -> None:
    """Closing ends the process and its children; without that a node leaks a process per restart."""
    async with running({"mcpServers": {"s": scripted(notes)}}) as kit:
        await kit.call("s.spawn")
        pids = [int(pid) for pid in noted(notes, "pid") + noted(notes, "child")]
        assert [is_alive(pid) for pid in pids] == [True, True]
    assert [is_alive(pid) for pid in pids] == [False, False]


async def test_what_a_dead_server_started_is_gone_before_the_next(notes: Path) -> None:
    """A server that dies leaves its children; they are ended before it is started again."""
    async with running({"mcpServers": {"s": scripted(notes)}}) as kit:
        await kit.call("s.spawn")
        await kit.refusal("s.die")
        await until(lambda: kit.status("s").restarts == 1 and kit.status("s").state == "ready")
        assert not is_alive(int(noted(notes, "child")[0]))


BAD: dict[str, tuple[dict[str, object], str]] = {
    "missing": ({"command": "no-such-program"}, "cannot start 'no-such-program'"),
    "no-folder": ({"command": "cat", "cwd": "/no/such/folder"}, "cannot start '/no/such/folder'"),
    "exits": ({"command": "sh", "args": ["-c", "echo why >&2; exit 3"]}, "status 3; its last line on stderr: why"),
    "killed": ({"command": "sh", "args": ["-c", "kill -9 $$"]}, "killed by signal 9"),
    "junk": ({"command": "yes", "args": ["hello"]}, "not JSON-RPC, it printed 'hello'"),
    "silent": ({"command": "sleep", "args": ["1000"]}, "did not answer within 6 s"),
    "floods-stderr": ({"command": "sh", "args": ["-c", "yes >&2"]}, "did not answer within 6 s"),
    "endless-line": ({"command": "sh", "args": ["-c", "yes | tr -d '\\n'"]}, "printed a line of more than"),
    "nobody-listens": ({"url": "http://127.0.0.1:1/mcp"}, "no connection"),
}


async def test_servers_that_cannot_start_say_why_and_stop_nobody(notes: Path) -> None:
    """Each way to fail has its sentence, the server beside them works, and the node starts."""
    form = {"mcpServers": {name: entry for name, (entry, _) in BAD.items()} | {"s": scripted(notes)}}
    async with running(form, limits=Limits(start_s=6.0, result_bytes=100_000)) as kit:
        await until(lambda: kit.status("s").state == "ready")
        await until(lambda: all(kit.status(name).error for name in BAD))
        said = {name: str(kit.status(name).error) for name in BAD}
        assert {name: words for name, (_, words) in BAD.items() if words not in said[name]} == {}, said
        assert kit.upstreams.capabilities() == {"probe", "s"}
        for name in BAD:
            error = await kit.refusal(f"{name}.anything")
            assert (error.code, error.failure) == ("server_unavailable", Failure.NOT_STARTED)
        assert (await kit.call("s.echo"))["content"] == []


async def test_pages_without_end_are_given_up(notes: Path) -> None:
    """A cursor that comes twice is an error of that server, not a loop for ever."""
    async with running({"mcpServers": {"s": scripted(notes, "endless")}}) as kit:
        assert "never end" in str(kit.status("s").error)


async def test_an_idle_server_that_stopped_answering_is_restarted(notes: Path) -> None:
    """Hung is as bad as dead: without calls nobody else would notice."""
    limits = Limits(health_every_s=0.1, health_answer_s=0.5)
    async with running({"mcpServers": {"s": scripted(notes)}}, limits=limits) as kit:
        os.kill(int(noted(notes, "pid")[0]), signal.SIGSTOP)
        await until(lambda: len(noted(notes, "pid")) == 2 and kit.status("s").state == "ready")


async def test_unknown_server_and_unknown_tool_were_not_started(kit: Kit) -> None:
    """Another node may have it: the call may go there at no risk."""
    for tool in ("nowhere.echo", "s.nothing", "probe.nothing", "noserver"):
        assert (await kit.refusal(tool)).failure is Failure.NOT_STARTED


async def test_a_server_that_works_between_its_crashes_is_started_at_once(notes: Path) -> None:
    """Only a loop of starts has to wait ever longer: one bad call in a hundred must not close a server for a minute."""
    async with running({"mcpServers": {"s": scripted(notes)}}) as kit:
        with capture_logs() as lines:
            for crash in range(1, 6):
                await kit.call("s.echo")
                await kit.refusal("s.die")
                await until(lambda crash=crash: kit.status("s").restarts == crash and kit.status("s").state == "ready")
    planned = [line["failures"] for line in lines if line["event"] == "server_restart_planned"]
    assert planned == [1] * 5
