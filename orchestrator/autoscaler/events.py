"""What happened to machines and sizes, told to whoever counts: metrics, and the log.

Told after the ledger took it. Never the truth itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.autoscaler.values import Decision, NodeClaim


@dataclass(frozen=True, slots=True)
class Ordered:
    """A claim was written; its machine is asked for next."""

    claim: NodeClaim


@dataclass(frozen=True, slots=True)
class Joined:
    """Its node is there."""

    claim: NodeClaim
    boot_s: float


@dataclass(frozen=True, slots=True)
class LetGo:
    """It was told to go: draining, or ended before it served."""

    claim: NodeClaim


@dataclass(frozen=True, slots=True)
class TakenBack:
    """It was to go, and is wanted again."""

    claim: NodeClaim


@dataclass(frozen=True, slots=True)
class Failed:
    """It came to nothing; `claim.failed_with` says why."""

    claim: NodeClaim


@dataclass(frozen=True, slots=True)
class Ended:
    """The cloud says that it is gone."""

    claim: NodeClaim


@dataclass(frozen=True, slots=True)
class Leaked:
    """A machine under our tag that no claim accounts for was ended. `why` is a constant word."""

    provider: str
    machine_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision was made, carried out or not."""

    decision: Decision


ScaleEvent = Ordered | Joined | LetGo | TakenBack | Failed | Ended | Leaked | Decided
Tell = Callable[[ScaleEvent], None]
