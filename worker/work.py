"""One attempt on this node, from its delivery until it is settled. Plain data."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from tasks.envelope import Delivery, Opened
from tasks.ledger_events import Progress
from tasks.node import Phase
from tasks.spend import Spent
from tasks.tracing import Trace
from worker.admit import Ref
from worker.journal import Entry


class Stop(Enum):
    """Why a running call is to be stopped."""

    CANCEL = "cancel"
    VOID = "void"
    """Superseded: whatever it says is no longer wanted."""
    DRAIN = "drain"
    """The drain's deadline is over."""
    CUT_OFF = "cut_off"
    """The fleet has not been reached for so long that another node may have it."""


@dataclass(slots=True, eq=False)
class Work:
    """What the executor knows of one attempt. Dropped when it is settled."""

    delivery: Delivery
    opened: Opened
    ref: Ref
    phase: Phase = Phase.WAITING
    trace: Trace | None = None
    """Where the work on it stands in its trace."""
    received_at: float = 0.0
    """Wall clock."""
    entry: Entry | None = None
    started_at: float | None = None
    """Wall clock; set when the start is journaled."""
    started_s: float = 0.0
    """The same on the monotonic clock."""
    task: asyncio.Task[None] | None = None
    is_calling: bool = False
    """Inside the tool: the only place where the asyncio task may be cancelled."""
    stop: Stop | None = None
    is_claiming: bool = False
    """Late-bound, and the orchestrator has not said yet whose it is."""
    is_announced: bool = False
    is_known: bool = False
    """The orchestrator has heard that it runs."""
    progress: Progress | None = None
    """The newest one that was not sent yet."""
    progress_sent_s: float = 0.0
    saved: tuple[int, str] | None = None
    """What it saved last of its session: number and blob."""
    spent: Spent = ()
    """On models, until now. Kept however it ends."""
    spent_told: Spent = ()
    """Of it, what was sent ahead of the outcome."""
    spent_told_s: float = 0.0

    def spend(self, spent: Spent) -> None:
        """It used more: all of it."""
        self.spent = spent

    def others_may_begin(self) -> bool:
        """After the grace: from what was saved of it, or anew because nobody has heard that it began."""
        return self.saved is not None or self.delivery.capsule is not None or not self.is_known
