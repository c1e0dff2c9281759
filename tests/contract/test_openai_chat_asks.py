"""The agent loop of a chat model asks a person too: for each tool that changes something."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.approval import Permission, Question, canonical, digest
from tasks.clock import SystemClock
from tests.contract.chat_rig import sidecar, task_in
from worker.sidecars.guard import guarded
from worker.sidecars.sidecar import Result
from worker.testing.chat_double import ChatDouble, Step, use


class Person:
    """Allows writing to one file, and nothing else."""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def question(self, tool: str, arguments: Mapping[str, Any]) -> Question:
        """As a node makes them."""
        text = canonical(arguments)
        self.asked.append(Question(f"q{len(self.asked)}", tool, text, digest(text), 0.0, 1.0))
        return self.asked[-1]

    async def answer(self, question: Question) -> Permission:
        """By its arguments."""
        is_good = json.loads(question.arguments_json)["path"] == "good.txt"
        return Permission(is_good, "" if is_good else "not that file")


async def test_only_what_a_person_allowed_is_written(tmp_path: Path) -> None:
    """Reading asks nobody; the model hears why the other was not done, and the Result names it."""
    script = [
        Step(calls=(use("list_files", path="."),)),
        Step(calls=(use("write_file", path="good.txt", content="1"), use("write_file", path="bad.txt", content="2"))),
        Step(text="Done."),
    ]
    double, person = ChatDouble(script), Person()
    async with sidecar(double) as chat, asyncio.timeout(60):
        given = task_in(tmp_path, permission_mode="ask")
        events = [event async for event in guarded(chat, given, SystemClock(), person)]
    assert [question.tool for question in person.asked] == ["write_file", "write_file"]
    assert sorted(path.name for path in given.workspace.iterdir()) == ["good.txt"]
    assert any("not that file" in result for result in double.results())
    assert isinstance(events[-1], Result)
    assert (events[-1].text, events[-1].denials) == ("Done.", ("write_file",))
