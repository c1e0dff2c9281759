"""`mcpfleet top`: what one frame says, what keys do, and the terminal afterwards."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from orchestrator.cli.api import Api
from orchestrator.cli.main import run
from orchestrator.cli.top import SILENT_S, _Source
from orchestrator.cli.top_frame import Frame, gather
from orchestrator.cli.top_screen import SORTS, Look, draw, pressed, rows_of
from tasks.invocation import Lane, State
from tests.conftest import ROOT

WITHIN_S = 60.0
NOW = 1_000.0
SLOW, QUICK = "01a1ffb7-14c0-740d-8180-ae94446000a1", "01a1ffb7-14c0-740d-8180-ae94446000b2"


def _node(name: str, state: str = "active", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "pool": "general", "state": state, "lease_left_s": 5.0 if state == "active" else 0.0,
        "slots": {"tools": 8, "agents": 2}, "running": {"tools": 3}, "outstanding": {"tools": 4}, "cpu": 0.5,
        "memory": 0.25, "capabilities": ["git"], "tools": 3, "location": "", "visibility": "public", "labels": {},
        "version": "1.2.3", "url": "",
    } | more  # fmt: skip


def _call(ident: str, started: float, tool: str, **more: Any) -> dict[str, Any]:
    attempt = {
        "fence": 1, "node": "a1", "pool": "general", "queue": "q", "released_at": started, "started_at": started,
        "ended_at": None, "ending": None,
    }  # fmt: skip
    return {
        "id": ident, "tool": tool, "project": "shop", "state": "running", "lane": "tools", "priority": 5,
        "tenant": "fleet", "principal": "ada", "accepted_at": started, "ended_at": None, "expires_at": None,
        "not_before": None, "fence": 1, "tries": 1, "node": "a1", "trace_id": None, "attempts": [attempt],
    } | more  # fmt: skip


PULSE = {
    "window_s": 60.0, "accepted_per_s": 12.0, "ended_per_s": 10.0, "failed_per_s": 2.5, "wait_p50_s": 0.012,
    "wait_p95_s": 0.34,
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/v1/nodes": {"items": [_node("a1"), _node("a2", "lost"), _node("a3", circuits={"git": "5 of 5 failed"})]},
    "/v1/pools": {"items": []},
    "/v1/queues": {
        "items": [
            {"name": "mcpfleet.n.a1.tools", "pool": "general", "node": "a1", "lane": "tools", "depth_msgs": 7,
             "is_paused": False}
        ]
    },
    "/v1/backlog": {
        "waiting": 3, "delayed": 0, "outstanding": 4, "oldest_wait_s": 90.0, "by_project": {}, "paused_projects": [],
    },
    "/v1/pulse": PULSE,
    "/v1/invocations": {"items": [_call(QUICK, 990.0, "git.log"), _call(SLOW, 400.0, "a\x1b[2Jb.sleep")]},
    "/v1/dead-letters": {"items": []},
}  # fmt: skip


def _answer(request: httpx.Request) -> httpx.Response:
    found = ANSWERS.get(request.url.path)
    if found is None:
        return httpx.Response(403, json={"detail": "not for you", "code": "forbidden", "status": 403})
    return httpx.Response(200, json=found)


def _frame(**more: Any) -> Frame:
    with Api("http://fleet", "token", httpx.MockTransport(_answer)) as api:
        return gather(api, lambda: NOW).model_copy(update=more)


def _run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    environ = {"MCPFLEET_URL": "http://fleet", "MCPFLEET_TOKEN": "not-a-secret"}
    status = run(words, environ=environ, out=out, err=err, stdin=io.BytesIO(), transport=httpx.MockTransport(_answer))
    return status, out.getvalue(), err.getvalue()


def test_a_pipe_gets_one_frame_with_everything_in_words() -> None:
    """No terminal, no loop: nodes, lanes, queues, rates, waits, and what needs attention."""
    status, out, _ = _run("top")
    assert status == 0
    assert "12 accepted, 10 ended, 2.50 failed · wait p50 12 ms, p95 340 ms" in out
    assert "3 waiting (oldest 1 m 30 s), 4 at nodes" in out
    assert "mcpfleet.n.a1.tools 7" in out
    assert out.index("sleep") < out.index("git.log"), "slowest first"
    assert "node a2 is lost" in out
    assert "\x1b" not in out


def test_what_needs_attention_says_what_to_type() -> None:
    """Lost nodes first, then servers passed by, then failing and waiting calls, then what could not be seen."""
    said = _frame().attention
    assert said[0].startswith("node a2 is lost")
    assert "server git of a3 is passed by: 5 of 5 failed" in said
    assert any(one.startswith("25% of what ended") for one in said)
    assert any(one.startswith("the oldest call has waited") and "mcpfleet why" in one for one in said)
    assert any(one.startswith("autoscaler: ") for one in said), "a part these credentials may not see"


def test_json_is_one_object_a_refresh() -> None:
    """For scripts: the same parts, unshortened."""
    status, out, _ = _run("top", "--json", "--once")
    form = json.loads(out)
    assert (status, len(out.splitlines())) == (0, 1)
    assert {call["id"] for call in form["calls"]} == {SLOW, QUICK}
    assert form["pulse"] == PULSE


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (40, 6), (80, 12)])
@pytest.mark.parametrize("look", [Look(), Look(row=4), Look(is_open=True, row=3), Look(is_help=True)])
def test_every_screen_fits(width: int, height: int, look: Look) -> None:
    """No line is cut by the terminal and none scrolls away, however many nodes there are."""
    nodes = [_frame().nodes[0].model_copy(update={"name": f"n{number}"}) for number in range(60)]
    for frame in (_frame(), _frame(nodes=nodes)):
        lines = draw(frame, look, width=width, height=height)
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width


def test_states_and_the_choice_do_not_need_colour() -> None:
    """The words are there, and the chosen row has a mark."""
    lines = [line.plain for line in draw(_frame(), Look(row=1), width=80, height=30)]
    assert any(line.startswith(">a2") and "lost" in line for line in lines)
    assert sum(line.startswith(">") for line in lines) == 1


def test_an_orchestrator_that_is_away_is_said_over_the_last_frame() -> None:
    """Since when, and why; what was known stays."""
    lines = [line.plain for line in draw(_frame(), Look(since=NOW, why="refused"), width=120, height=30)]
    assert "no answer since" in lines[1]
    assert any("git.log" in line for line in lines)


def test_a_source_that_fails_keeps_its_frame_and_says_since_when() -> None:
    """Silence is shown before it is an error, an error with its words, and the next answer ends both."""
    now, is_up = [NOW], [True]

    def answer(request: httpx.Request) -> httpx.Response:
        return _answer(request) if is_up[0] else httpx.Response(503, json={"detail": "standing by"})

    desk: Any = SimpleNamespace(now=lambda: now[0])
    with Api("http://fleet", "token", httpx.MockTransport(answer)) as api:
        source = _Source(api, desk, every=1.0)
        source.refresh()
        assert source.away() == (None, "")
        now[0] += SILENT_S + 1.0
        assert source.away() == (NOW, "no answer yet")
        is_up[0] = False
        source.try_again()
        assert source.away() == (NOW, "standing by")
        assert len(source.frame.nodes) == 3
        is_up[0] = True
        source.try_again()
        assert source.away() == (None, "")


def test_keys_choose_open_sort_and_end() -> None:
    """Never past the rows that are there."""
    look, rows = Look(), len(rows_of(_frame(), SORTS[0]))
    for key in ("k", "j", "down", "j", "j", "j", "j", "j"):
        look = pressed(look, key, rows) or pytest.fail("ended")
    assert look.row == rows - 1
    opened = pressed(look, "enter", rows) or pytest.fail("ended")
    text = "\n".join(line.plain for line in draw(_frame(), opened, width=120, height=30))
    assert QUICK in text
    assert (pressed(opened, "esc", rows) or opened).is_open is False
    assert (pressed(look, "s", rows) or look).sort == SORTS[1]
    assert (pressed(look, "?", rows) or look).is_help
    assert pressed(look, "x", rows) == look
    assert pressed(look, "q", rows) is None


def test_calls_are_sorted_as_chosen() -> None:
    """The slowest first, or by name."""
    frame = _frame()
    first = {sort: rows_of(frame, sort)[len(frame.nodes)] for sort in SORTS}
    assert (first["slowest"].id, first["tool"].id) == (SLOW, SLOW)  # type: ignore[union-attr]
    assert {node.state for node in frame.nodes} >= {"lost"}
    assert frame.calls[0].state is State.RUNNING
    assert frame.nodes[0].outstanding[Lane.TOOLS] == 4


SCRIPT = """
import sys, httpx
sys.path.insert(0, {root!r})
from tests.unit.test_cli_top import _answer
from orchestrator.cli.main import run
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.exit(run(["top", "--every", "0.2"], environ=os.environ, out=sys.stdout, err=sys.stderr,
             stdin=sys.stdin.buffer, transport=httpx.MockTransport(_answer)))
"""


@pytest.mark.parametrize(("how", "status"), [("q", 0), ("interrupt", 130)])
def test_the_terminal_is_as_it_was(how: str, status: int) -> None:
    """After q and after Ctrl-C: echo, line mode, and the screen that was there before."""
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    environ = os.environ | {
        "MCPFLEET_URL": "http://fleet", "MCPFLEET_TOKEN": "not-a-secret", "TERM": "xterm", "COLUMNS": "80",
        "LINES": "24",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(root=str(ROOT))],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environ,
    )
    try:
        seen = _until(leader, b"quit")
        if how == "q":
            os.write(leader, b"q")
        else:
            process.send_signal(signal.SIGINT)
        seen += _until(leader, b"\x1b[?1049l")
        assert process.wait(WITHIN_S) == status
        assert b"\x1b[?1049h" in seen
        assert termios.tcgetattr(follower) == before
    finally:
        process.kill()
        process.wait(WITHIN_S)
        os.close(leader)
        os.close(follower)


def _until(descriptor: int, word: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + WITHIN_S
    while word not in seen and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 65_536)
    assert word in seen, seen[-2000:]
    return seen
