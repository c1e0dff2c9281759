"""What an act knows of a cloud's API: how the orchestrator is told of it, and what its books say at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tests.vps.centre import DataCentre


@dataclass(frozen=True, slots=True)
class Account:
    """For the pools file.

    Attributes:
        options: of `[providers.<name>]`, with its kind.
        rung: of the ladder, without its provider.
        environ: the secrets that the options name: good for nothing but this run.
    """

    options: Mapping[str, object]
    rung: Mapping[str, object]
    environ: Mapping[str, str] = field(default_factory=dict)


class Api(Protocol):
    """A cloud's API on loopback, in front of a data centre."""

    @property
    def centre(self) -> DataCentre:
        """Where its servers are machines."""

    def account(self) -> Account:
        """The demo's."""

    async def takes(self, name: str) -> None:
        """The market takes a spot machine away, at once."""

    def asked(self) -> Mapping[str, int]:
        """Requests by operation."""

    async def left(self) -> list[str]:
        """Servers in its books that have not ended."""

    async def close(self) -> None:
        """Stop listening."""
