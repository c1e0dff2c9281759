"""What a fleet under test stands on: this machine as it is, or nodes with a network, a disk or a clock of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.testing.wrong_clock import set_ahead
from tests.chaos.disks import Disks
from tests.chaos.network import Network


@dataclass(frozen=True, slots=True)
class Ground:
    """Absent: as it is.

    Attributes:
        network: nodes are on cables.
        disks: some folders are small disks.
        clocks: folder of the files that say how wrong each process' clock is.
    """

    network: Network | None = None
    disks: Disks | None = None
    clocks: Path | None = None

    @property
    def host(self) -> str:
        """Where the orchestrator and Redis listen."""
        return "127.0.0.1" if self.network is None else self.network.host

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """To start a process of that name."""
        return [*words] if self.network is None else self.network.command(name, words)

    def module(self, name: str, module: str) -> list[str]:
        """What to run a Python module as, so that its clock can be set."""
        if self.clocks is None:
            return [module]
        self.set_clock(name, 0.0)
        return ["tasks.testing.wrong_clock", str(self.clock_file(name)), module]

    def clock_file(self, name: str) -> Path:
        """Of a process."""
        assert self.clocks is not None
        return self.clocks / f"{name}.ahead"

    def set_clock(self, name: str, ahead_s: float) -> None:
        """A process' wall clock is wrong by so much from now on."""
        set_ahead(self.clock_file(name), ahead_s)
