"""One call as its caller knows it, and what callers draw: tool, mischief, size, lane, a chain, a cancel."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

SAFE, UNSAFE = "effects.put", "effects.apply"
MISCHIEF = ("crash", "junk", "flood", "hang")
DEADLY = frozenset({"crash", "flood", "hang"})
"""May end its call badly. A line of junk alone may not: it is read past."""
MISCHIEF_SHARE = 0.04
HANG_UP_SHARE, CANCEL_SHARE, CHAIN_SHARE, AGENTS_SHARE, LARGE_SHARE = 0.2, 0.1, 0.1, 0.12, 0.08
LARGE_BYTES = 70_000
"""Over the inline limit of 64 KiB: it goes through the blob store."""
ATTEMPTS = 50
"""Of safe calls: the policy must not give up before the faults do."""
DEADLINE_S = 280.0
"""More than any call takes under faults, less than a clock is wrong."""
PATIENCE = {"attempts": ATTEMPTS, "first_wait_s": 0.2, "cap_s": 1.0}
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "lost"})


@dataclass
class Asked:
    """One call.

    Attributes:
        id: what it was accepted as; a later call of a chain has it from the beginning.
        view: the first answer that said it had ended, else the last one.
        final: what the ledger says of it when the run is over.
        answer_bytes: the tool is asked for an answer that is longer by so much.
        accepted_after_s: since it was asked for the first time.
        cancel_after_s: its caller will want it cancelled, so long after it was accepted.
        cancel_sent: and has said so at least once.
        cancelled_at: and was answered; wall clock.
        follows: the call before it in a chain.
        replay_of: the dead letter it is a replay of.
        body: what is posted.
    """

    key: str
    tool: str
    mischief: str
    id: str | None = None
    view: dict[str, Any] | None = None
    final: dict[str, Any] | None = None
    hung_up: bool = False
    answer_bytes: int = 0
    accepted_after_s: float = 0.0
    cancel_after_s: float | None = None
    cancel_sent: bool = False
    cancelled_at: float | None = None
    follows: Asked | None = None
    replay_of: str | None = None
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def is_safe(self) -> bool:
        """Declared safe to repeat."""
        return self.tool == SAFE

    @property
    def last(self) -> dict[str, Any] | None:
        """The most that is known of it."""
        return self.final or self.view

    @property
    def state(self) -> str | None:
        """Where it stands."""
        return None if self.last is None else str(self.last["state"])

    @property
    def answer(self) -> str:
        """What its tool says when all goes well."""
        return self.key + "." * self.answer_bytes

    @property
    def is_over(self) -> bool:
        """It has ended; or never begins, because what it follows ended badly."""
        if self.follows is not None and self.follows.is_over and self.follows.state != "succeeded":
            return True
        return self.view is not None and self.view["state"] in TERMINAL and self.view["ended_at"] is not None


def draw(rng: random.Random, caller: int, mischief_share: float = MISCHIEF_SHARE) -> list[Asked]:
    """One call, and the later ones where it is a chain."""
    first = _one(rng, caller, mischief_share)
    first.hung_up = rng.random() < HANG_UP_SHARE
    first.body |= {"project": f"p{rng.randrange(6)}", "idempotency_key": first.key}
    if first.key[-1] in "0123":
        first.body["deadline_s"] = DEADLINE_S
    if rng.random() < CANCEL_SHARE:
        first.cancel_after_s = rng.uniform(0.0, 1.5)
        first.body |= {"delay_s": 1.0} if rng.random() < 0.5 else {}
    chain = [first]
    if rng.random() < CHAIN_SHARE:
        for _ in range(rng.choice((1, 1, 2))):
            chain.append(later := _one(rng, caller, 0.0))  # crashes enough: servers wait up to a minute to be restarted
            later.id, later.follows = f"later-{later.key}", chain[-2]
            later.body |= {"id": later.id, "into": "after"}
        first.body["then"] = [later.body for later in chain[1:]]
    return chain


def _one(rng: random.Random, caller: int, mischief_share: float) -> Asked:
    asked = Asked(
        key=f"{caller}-{rng.getrandbits(48):012x}",
        tool=rng.choice((SAFE, UNSAFE)),
        mischief=rng.choice(MISCHIEF) if rng.random() < mischief_share else "",
    )
    arguments: dict[str, Any] = {"key": asked.key, "seconds": round(rng.choice((0.0, 0.2, 1.0, 2.5)), 1)}
    if asked.mischief:
        arguments["mischief"] = asked.mischief
    if rng.random() < LARGE_SHARE:
        arguments["padding"] = "x" * LARGE_BYTES
    if rng.random() < LARGE_SHARE:
        asked.answer_bytes = arguments["answer_bytes"] = LARGE_BYTES
    asked.body = {"tool": asked.tool, "arguments": arguments}
    if rng.random() < AGENTS_SHARE:
        asked.body["lane"] = "agents"
    if asked.is_safe and asked.mischief not in DEADLY:
        asked.body["retry"] = PATIENCE
    return asked
