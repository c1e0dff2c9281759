"""The machine's dead-man: the very script that the role installs, with a clock and a switch of ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ansible/roles/node/files/deadman"


class Machine:
    """Looks when told to, and notes that it was powered off."""

    def __init__(self, folder: Path, ttl: str = "100") -> None:
        self.folder, self.ttl = folder, ttl
        self.heard = folder / "heard"
        (folder / "end").write_text(f"#!/bin/sh\ntouch {folder}/off\n")
        (folder / "end").chmod(0o755)

    def look(self, uptime_s: int) -> subprocess.CompletedProcess[str]:
        """One run of the timer."""
        (self.folder / "uptime").write_text(f"{uptime_s}.50 1.00\n")
        environ = {
            "PATH": "/usr/bin:/bin",
            "MCPFLEET_NODE_MACHINE_TTL_S": self.ttl,
            "DEADMAN_HEARD": str(self.heard),
            "DEADMAN_MEMORY": str(self.folder / "memory"),
            "DEADMAN_UPTIME": str(self.folder / "uptime"),
            "DEADMAN_END": str(self.folder / "end"),
        }
        return subprocess.run(["sh", SCRIPT], env=environ, capture_output=True, text=True, check=False, timeout=30)

    @property
    def is_off(self) -> bool:
        """It was powered off."""
        return (self.folder / "off").exists()

    def hear(self, at: int) -> None:
        """The node touched its file, by a wall clock of any value."""
        self.heard.touch()
        os.utime(self.heard, (at, at))


def test_a_machine_that_never_joined_ends_itself(tmp_path: Path) -> None:
    """A boot that failed, or user data that never ran, costs the limit and no more."""
    machine = Machine(tmp_path)
    machine.look(60)
    machine.look(159)
    assert not machine.is_off
    assert "not heard of for 100 s" in machine.look(160).stderr
    assert machine.is_off


def test_a_renewal_begins_it_anew(tmp_path: Path) -> None:
    """As long as its fleet is there, a machine stays; once it is not, the limit counts from the last word."""
    machine = Machine(tmp_path)
    for step in range(10):
        machine.hear(step)
        machine.look(60 * step)
    machine.look(60 * 9 + 99)
    assert not machine.is_off
    machine.look(60 * 9 + 100)
    assert machine.is_off


def test_a_clock_that_jumps_ends_nothing(tmp_path: Path) -> None:
    """A young machine learns the time and its clock jumps by years: the file's age says nothing."""
    machine = Machine(tmp_path)
    machine.hear(0)
    machine.look(60)
    machine.hear(1_800_000_000)
    machine.look(120)
    machine.hear(5)
    machine.look(180)
    assert not machine.is_off


def test_a_dead_man_set_on_an_old_machine_waits(tmp_path: Path) -> None:
    """Installed on a machine that has been up for a year, it counts from its first look."""
    machine = Machine(tmp_path)
    machine.look(31_000_000)
    assert not machine.is_off


def test_a_file_of_an_earlier_boot_counts_from_this_one(tmp_path: Path) -> None:
    """What a golden image was made with, or what the last boot left, gives the whole limit once."""
    machine = Machine(tmp_path)
    machine.hear(5)
    machine.look(60)
    machine.look(159)
    assert not machine.is_off
    machine.look(160)
    assert machine.is_off


@pytest.mark.parametrize("ttl", ["0", "0.0", ""])
def test_off_is_off(ttl: str, tmp_path: Path) -> None:
    """A machine that was not made by the autoscaler is never powered off."""
    machine = Machine(tmp_path, ttl)
    for uptime_s in (60, 10_000_000):
        assert machine.look(uptime_s).returncode == 0
    assert not machine.is_off


def test_a_limit_may_be_a_fraction(tmp_path: Path) -> None:
    """The setting is a number of seconds, which the autoscaler may write as 7200.0."""
    machine = Machine(tmp_path, "7200.0")
    machine.look(60)
    machine.look(7259)
    assert not machine.is_off
    machine.look(7260)
    assert machine.is_off


def test_a_limit_that_is_no_number_ends_nothing(tmp_path: Path) -> None:
    """A typing error is told in the machine's journal, and costs no machine."""
    machine = Machine(tmp_path, "two hours")
    machine.look(60)
    assert "not a number" in machine.look(10_000_000).stderr
    assert not machine.is_off
