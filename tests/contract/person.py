"""Who is asked in tests of agents: a person that answers as it was told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tasks.approval import Permission, Question, canonical, digest

NO = Permission(is_allowed=False, reason="not on a Friday")
YES = Permission(is_allowed=True)


class Person:
    """Answers what is asked."""

    def __init__(self, *answers: Permission | None) -> None:
        self._answers = list(answers)
        self.asked: list[Question] = []
        self.terms: list[tuple[float, bool]] = []
        self.was_left = False

    def question(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float, frees_slot: bool) -> Question:
        """As the node makes them."""
        self.terms.append((wait_s, frees_slot))
        exact = canonical(arguments)
        self.asked.append(Question(f"q{len(self.asked)}", tool, exact, digest(exact), 0.0, wait_s, frees_slot))
        return self.asked[-1]

    async def answer(self, question: Question) -> Permission:
        """The next one; None: never."""
        answer = self._answers.pop(0)
        if answer is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.was_left = True
        assert answer is not None
        return answer
