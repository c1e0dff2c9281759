"""What was ordered and may have been carried out is not ordered again, whatever cuts in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.errors import CloudDown
from orchestrator.autoscaler.cloud.intents import SETTLE_S, Intents

CLAIM = "aaaaaaaaa2"


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self, folder: Path) -> None:
        self.now = folder.stat().st_mtime  # what a cut leaves has the time of the file system

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def mono_s(self) -> float:
        """The same."""
        return self.now


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["pwrite", "ftruncate", "fsync"])
def test_a_record_whose_writing_is_cut_holds_the_order(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order was sent, and writing down what it became ends anywhere: it is never taken for not sent."""
    clock = Hands(tmp_path)
    with Intents("mine", tmp_path, clock).held(CLAIM) as intent:
        intent.before_sending()
        with monkeypatch.context() as cutting:
            cutting.setattr(os, step, _cut)
            with pytest.raises(Cut):
                intent.carried_out("1")
    with Intents("mine", tmp_path, clock).held(CLAIM) as intent, pytest.raises(CloudDown):
        intent.before_sending()


def test_a_record_that_was_half_written_holds_the_order(tmp_path: Path) -> None:
    """The power went between writing down and sending: nobody knows, so nothing is sent yet."""
    (tmp_path / f"{CLAIM}.json").write_text('{"at": 17')
    with Intents("mine", tmp_path, Hands(tmp_path)).held(CLAIM) as intent, pytest.raises(CloudDown):
        intent.before_sending()


def test_a_clock_that_is_set_back_sends_nothing_again(tmp_path: Path) -> None:
    """When the order was sent is not known then, so it may have been a moment ago."""
    clock = Hands(tmp_path)
    with Intents("mine", tmp_path, clock).held(CLAIM) as intent:
        intent.before_sending()
    clock.now -= 3600.0
    with Intents("mine", tmp_path, clock).held(CLAIM) as intent, pytest.raises(CloudDown):
        intent.before_sending()


@pytest.mark.parametrize(("passed_s", "wait_s"), [(1.0, SETTLE_S - 1.0), (-3600.0, SETTLE_S)])
def test_an_order_is_asked_for_again_when_lists_had_their_time(passed_s: float, wait_s: float, tmp_path: Path) -> None:
    """Sooner it would only use up the tries of its claim; and a clock that is set back delays no longer than that."""
    clock = Hands(tmp_path)
    with Intents("mine", tmp_path, clock).held(CLAIM) as intent:
        intent.before_sending()
    clock.now += passed_s
    with Intents("mine", tmp_path, clock).held(CLAIM) as intent, pytest.raises(CloudDown) as raised:
        intent.before_sending()
    assert raised.value.retry_after_s == pytest.approx(wait_s)


def _cut(*_: object) -> None:
    raise Cut
