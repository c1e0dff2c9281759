"""`mcpfleet logs`: whose lines, which of them, how they are shown, and how a growing file is followed."""

from __future__ import annotations

import io
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from orchestrator.cli import main
from orchestrator.cli.desk import Desk
from orchestrator.cli.log_lines import Folder, Reader, parse

if TYPE_CHECKING:
    from pathlib import Path

CALL, TRACE = "01a1ffb7-14c0-740d-8180-ae94446000a1", "0af7651916cd43dd8448eb211c80319c"


def _line(at: int, process: str, event: str, **more: Any) -> str:
    form = more | {"event": event, "level": more.get("level", "info"), "process": process}
    return json.dumps(form | {"timestamp": f"2026-11-22T06:00:{at:02}.000000Z"}) + "\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A local fleet's folder with the logs of three processes."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "orchestrator.log").write_text(
        _line(1, "orchestrator", "leading") + _line(4, "orchestrator", "settled", invocation_id=CALL)
    )
    (logs / "a1.log").write_text(
        _line(3, "node a1", "tool_started", trace_id=TRACE)
        + _line(5, "node a1", "server_lost", level="error", exception="Traceback\n  in here\x1b[2J")
    )
    (logs / "redis.log").write_text("12:M * Ready at redis://:hidden@127.0.0.1\n")
    return tmp_path


def _answer(request: httpx.Request) -> httpx.Response:
    assert request.url.path.endswith(CALL)
    form = {
        "id": CALL, "tool": "t.t", "project": None, "state": "succeeded", "lane": "tools", "priority": 5,
        "tenant": "fleet", "principal": "ada", "accepted_at": 1.0, "ended_at": 2.0, "expires_at": None,
        "not_before": None, "fence": 1, "tries": 1, "node": "a1", "trace_id": TRACE,
    }  # fmt: skip
    return httpx.Response(200, json=form)


def _run(state: Path, *words: str, **environ: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    status = main.run(
        ["logs", *words],
        environ={"MCPFLEET_STATE_DIR": str(state), **environ},
        out=out,
        err=err,
        stdin=io.BytesIO(),
        transport=httpx.MockTransport(_answer),
    )
    return status, out.getvalue(), err.getvalue()


def _events(out: str) -> list[str]:
    return [word for word in ("leading", "tool_started", "settled", "server_lost", "Ready") if word in out]


def test_all_processes_lines_come_in_the_order_of_time(state: Path) -> None:
    """With who said it and how bad it is in words; passwords and control characters do not come through."""
    status, out, _ = _run(state)
    assert status == 0
    lines = [line for line in out.splitlines() if "Ready" not in line]
    assert [line.split()[1:4] for line in lines if line[0].isdigit()] == [
        ["orchestrator", "info", "leading"],
        ["a1", "info", "tool_started"],
        ["orchestrator", "info", "settled"],
        ["a1", "error", "server_lost"],
    ]
    assert "Traceback" in out
    assert "\x1b" not in out
    assert "hidden" not in out


@pytest.mark.parametrize(
    ("words", "events"),
    [
        (("--node", "a1"), ["tool_started", "server_lost"]),
        (("--orchestrator",), ["leading", "settled"]),
        (("--level", "error"), ["server_lost"]),
        (("--since", "2026-11-22T06:00:04+00:00", "--node", "a1"), ["server_lost"]),
        (("--grep", "tool_.tarted|leading"), ["leading", "tool_started"]),
        (("-n", "1", "--node", "a1"), ["server_lost"]),
        (("-n", "0"), []),
    ],
)
def test_filters_leave_what_was_asked_for(state: Path, words: tuple[str, ...], events: list[str]) -> None:
    """Each alone."""
    status, out, _ = _run(state, *words)
    assert (status, _events(out)) == (0, events)


def test_of_a_call_is_what_names_it_or_its_trace(state: Path) -> None:
    """From every process; without an orchestrator, what names it."""
    fleet = {"url": "http://fleet", "token": "t", "join_token": "j"}
    (state / "fleet.json").write_text(json.dumps(fleet))
    assert _events(_run(state, CALL)[1]) == ["tool_started", "settled"]
    (state / "fleet.json").unlink()
    assert _events(_run(state, CALL)[1]) == ["settled"]


def test_json_lines_are_as_they_were_written(state: Path) -> None:
    """For programs: the processes' own JSON."""
    out = _run(state, "--json", "--orchestrator")[1]
    assert out == (state / "logs/orchestrator.log").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--node", "b7"), "no log of b7; there are a1, orchestrator, redis"),
        (("--level", "loud"), "write debug, info, warning or error"),
        (("--grep", "("), "no regular expression"),
        (("--since", "soon"), "not a time"),
    ],
)
def test_what_cannot_be_meant_is_said(state: Path, words: tuple[str, ...], says: str) -> None:
    """One line, and the status of a wrong command line."""
    status, _, err = _run(state, *words)
    assert (status, says in err, err.count("\n")) == (2, True, 1)


def test_a_fleet_elsewhere_keeps_its_logs_and_this_says_where(state: Path, tmp_path: Path) -> None:
    """Journald, Docker, a collector; never an empty list that looks like silence."""
    status, out, err = _run(state, MCPFLEET_URL="http://elsewhere", MCPFLEET_TOKEN="not-a-secret")
    assert (status, out) == (2, "")
    assert "journalctl" in err
    assert "OTLP" in err
    assert _run(tmp_path / "nothing")[0] == 2


def test_followed_lines_come_as_they_are_written(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a node that joins later; Ctrl-C ends it."""
    said = [_line(7, "node a1", "later"), None]

    def sleep(_seconds: float) -> None:
        text = said.pop(0)
        if text is None:
            raise KeyboardInterrupt
        with (state / "logs/a1.log").open("a") as file:
            file.write(text)
        (state / "logs/b2.log").write_text(_line(8, "node b2", "joined_late") + '{"half')

    monkeypatch.setattr(main, "Desk", partial(Desk, sleep=sleep))
    status, out, _ = _run(state, "-f", "-n", "0")
    assert status == 130
    assert out.index("later") < out.index("joined_late")
    assert "half" not in out


def test_a_rotated_file_is_read_on(tmp_path: Path) -> None:
    """What was before it, and what comes after it was emptied."""
    path = tmp_path / "a1.log"
    (tmp_path / "a1.log.1").write_text(_line(1, "node a1", "oldest"))
    path.write_text(_line(2, "node a1", "older") + '{"event": "ha')
    reader = Reader(path, "a1")
    assert [line.event for line in reader.history()] == ["oldest", "older"]
    with path.open("a") as file:
        file.write('lf"}\n')
    assert [line.event for line in reader.new()] == ["half"]
    path.write_text(_line(9, "node a1", "new"))
    assert [line.event for line in reader.new()] == ["new"]
    assert Folder(tmp_path).names() == ["a1"]


def test_a_line_without_a_time_has_that_of_the_one_before() -> None:
    """A crash of the interpreter stands where it happened."""
    line = parse("Segmentation fault", "a1", 12.0)
    assert (line.at, line.process, line.level, line.event) == (12.0, "a1", "info", "Segmentation fault")
