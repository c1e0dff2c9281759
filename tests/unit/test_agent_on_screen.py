"""What an agent does, says and changes, as a person at the command line sees it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.answer import show_answer
from orchestrator.cli.content import PATCH, parts_of
from orchestrator.cli.desk import Desk
from orchestrator.cli.screen import Screen
from orchestrator.cli.settings import read_settings
from orchestrator.cli.watch import _Steps
from tasks.invocation import Lane, State
from tasks.ledger_events import Progress, pack, unpack
from tasks.testing.clock import FakeClock
from tasks.wire import EventView, InvocationView
from worker.sidecars.agent_answers import answered
from worker.sidecars.sidecar import Ending, Result
from worker.watch import LINES_MAX_CHARS, Watch
from worker.work import Work

DIFF = "diff --git a/cart.py b/cart.py\n-old\n+new\n"
RAN = {
    "session_id": "s-1",
    "turns": 5,
    "cost_usd": 0.01874,
    "branch": "agent/1",
    "patch": DIFF,
    "denials": ["Edit", "Bash"],
    "push_error": {"code": "push_refused", "message": "no\x1b[31m"},
}


def _work(lane: Lane) -> Work:
    delivery: Any = SimpleNamespace(lane=lane)
    return Work(delivery, opened=SimpleNamespace(), ref=("i", 1), is_announced=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(("lane", "told"), [(Lane.AGENTS, "two\nthree"), (Lane.TOOLS, "three")])
async def test_no_line_of_an_agent_is_lost_to_the_next(lane: Lane, told: str) -> None:
    """Of a tool's progress the newest is what counts; what an agent says is read as a text."""
    sent: list[Any] = []
    watch, work = Watch(SimpleNamespace(tell=sent.append), FakeClock()), _work(lane)
    watch.began(work)
    for number, line in enumerate(("one", "two", "three")):
        watch.progress(work, float(number), None, line)
    watch.ended(work)
    assert [event.message for event in sent if isinstance(event, Progress)] == ["one", told]


async def test_lines_that_wait_have_a_bound() -> None:
    """An agent that never stops talking costs the node one message."""
    sent: list[Any] = []
    watch, work = Watch(SimpleNamespace(tell=sent.append), FakeClock()), _work(Lane.AGENTS)
    watch.began(work)
    for number in range(50):
        watch.progress(work, float(number), None, "x" * 1000)
    watch.ended(work)
    assert len(sent[-1].message) == LINES_MAX_CHARS


def test_steps_stay_on_the_screen_once() -> None:
    """Also where a stream broke and its last event comes again; nothing moves the cursor."""
    out = io.StringIO()
    bars, steps = SimpleNamespace(console=Console(file=out, width=80)), _Steps()
    for message in ("Bash: ls\nRead: a", "Bash: ls\nRead: a", "done\x1b[2J", None):
        steps.show(bars, EventView(kind="progress", at=1.0, data={"message": message}))  # type: ignore[arg-type]
    assert out.getvalue() == "│ Bash: ls\n│ Read: a\n│ done�[2J\n"


def test_a_run_ends_with_answer_diff_cost_and_session() -> None:
    """The diff is data, on standard output; the rest is about the run."""
    out, err = io.StringIO(), io.StringIO()
    desk = Desk(read_settings({"HOME": "/nonexistent"}), Screen(out, err, environ={}), io.BytesIO())
    result = {"content": [{"type": "text", "text": "It is mended."}], "structuredContent": RAN}
    form = {"id": "0" * 32, "tool": "claude_code.run", "project": "shop", "state": State.SUCCEEDED, "priority": 5}
    form |= {"lane": Lane.AGENTS, "tenant": "t", "principal": "p", "accepted_at": 1.0, "ended_at": 2.0, "node": "n"}
    form |= {"expires_at": None, "not_before": None, "fence": 1, "tries": 1, "trace_id": None, "result": result}
    assert show_answer(desk, InvocationView.model_validate(form), output=None, as_json=False) == 0
    assert out.getvalue() == f"It is mended.\n{DIFF}"
    said = err.getvalue()
    assert "session s-1 · 5 turns · $0.0187 · branch agent/1" in said
    assert "denied: Edit, Bash" in said
    assert "no�[31m [push_refused]" in said


def test_a_patch_is_a_file_of_its_own() -> None:
    """`--output` writes it under a name that says what it is; a run that changed nothing has none."""
    [_, part] = parts_of({"content": [{"type": "text", "text": "x"}], "structuredContent": RAN})
    assert (part.name, part.data) == (PATCH, DIFF.encode())
    assert len(parts_of({"content": [{"type": "text", "text": "x"}], "structuredContent": {"patch": ""}})) == 1
    [part] = parts_of({"content": [], "structuredContent": {"patch_base64": "AAE="}})[1:]
    assert part.data == b"\x00\x01"


async def test_half_a_character_stops_nobody() -> None:
    """Models cut emoji in two. Neither the line of other runs nor the answer is lost with it."""
    sent: list[Any] = []
    watch, work = Watch(SimpleNamespace(tell=lambda event: sent.append(pack([event]))), FakeClock()), _work(Lane.AGENTS)
    watch.began(work)
    watch.progress(work, 1.0, None, "cut \ud83d")
    watch.ended(work)
    (event,) = [each for each in unpack(sent[-1]) if isinstance(each, Progress)]
    assert event.message == "cut ?"
    answer = json.loads(answered(Result(Ending.SUCCEEDED, "cut \ud83d"), {"patch": "+\ud83d"}))
    assert (answer["content"][0]["text"], answer["structuredContent"]["patch"]) == ("cut ?", "+?")
