"""The states' moves: one table, kept by code, by statements and by the drawing in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.ledger.moves import settle_sources, sources
from tasks.invocation import OUTSTANDING, TERMINAL, TRANSITIONS, State

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ledger.md"
MERMAID = re.compile(r"```mermaid\n(stateDiagram-v2\n.*?)```", re.DOTALL)
EDGE = re.compile(r"^\s*(\[\*\]|\w+)\s*-->\s*(\[\*\]|\w+)", re.MULTILINE)


@pytest.mark.parametrize("to", State)
def test_sources_are_the_moves_read_backwards(to: State) -> None:
    """The states that statements start from are those that TRANSITIONS leads from."""
    assert set(sources(to)) == {was for was in State if to in TRANSITIONS[was]}


@pytest.mark.parametrize("to", State)
def test_a_settlement_starts_from_an_outstanding_attempt(to: State) -> None:
    """No settlement touches what waits or what has ended."""
    assert set(settle_sources(to)) <= OUTSTANDING


def test_nothing_leaves_an_end() -> None:
    """An Invocation ends once."""
    assert all(not set(sources(to)) & TERMINAL for to in State)


def test_the_drawing_shows_every_move_and_no_other() -> None:
    """The diagram in docs/ledger.md and TRANSITIONS are the same edges."""
    drawings = MERMAID.findall(PAGE.read_text())
    assert len(drawings) == 1
    edges = set(EDGE.findall(drawings[0]))
    moves = {(was.value, to.value) for was, reached in TRANSITIONS.items() for to in reached}
    begins = {("[*]", State.WAITING.value)}
    ends = {(state.value, "[*]") for state in TERMINAL}
    assert edges == moves | begins | ends
