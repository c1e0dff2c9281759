"""Callers who keep calling while the fleet is hurt, and remember what they asked for.

They behave as clients should: an idempotency key for every call, the same key again whenever an answer
did not come. Some hang up in the middle and ask later.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.chaos.fleet import Fleet

AGAIN_EVERY_S = 0.3
ATTEMPTS = 50
"""Of safe calls: the policy must not give up before the faults do."""
SAFE, UNSAFE = "effects.put", "effects.apply"
MISCHIEF = ("crash", "junk", "flood", "hang")
MISCHIEF_SHARE = 0.04
DEADLINE_S = 280.0
"""More than any call takes under faults, less than a clock is wrong."""
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "lost"})


@dataclass
class Asked:
    """One call, as its caller knows it."""

    key: str
    tool: str
    mischief: str
    id: str | None = None
    view: dict[str, Any] | None = None
    hung_up: bool = False
    accepted_after_s: float = 0.0
    """Since it was asked for the first time."""

    @property
    def is_safe(self) -> bool:
        """Declared safe to repeat."""
        return self.tool == SAFE


class Callers:
    """Several at once, each one call after the other."""

    def __init__(
        self, fleet: Fleet, rng: random.Random, callers: int, *, mischief_share: float = MISCHIEF_SHARE
    ) -> None:
        self.asked: list[Asked] = []
        self.refusals: list[str] = []
        """Answers that were neither an acceptance nor a reason to ask again."""
        self._fleet, self._rng, self._callers = fleet, rng, callers
        self._mischief_share = mischief_share

    async def run(self, until_s: float) -> None:
        """Call until then; returns when every call is known to be accepted."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._callers):
                group.create_task(self._call_on(random.Random(self._rng.random()), number, until_s))

    async def ended(self, within_s: float) -> None:
        """Until every call that was accepted has ended, or the time is over."""
        until_s = time.monotonic() + within_s
        left = [asked for asked in self.asked if asked.id is not None and not _is_over(asked)]

        async def follow() -> None:
            while left and time.monotonic() < until_s:
                asked = left.pop(0)
                await self._ask(asked, 1.0)
                if not _is_over(asked):
                    left.append(asked)

        await asyncio.gather(*(follow() for _ in range(self._callers)))

    async def _call_on(self, rng: random.Random, number: int, until_s: float) -> None:
        while time.monotonic() < until_s:
            asked = Asked(
                key=f"{number}-{rng.getrandbits(48):012x}",
                tool=rng.choice((SAFE, UNSAFE)),
                mischief=rng.choice(MISCHIEF) if rng.random() < self._mischief_share else "",
                hung_up=rng.random() < 0.2,
            )
            self.asked.append(asked)
            await self._accepted(asked, rng)
            if rng.random() < 0.5:
                await self._ask(asked, rng.uniform(0.0, 3.0))

    async def _accepted(self, asked: Asked, rng: random.Random) -> None:
        arguments = {"key": asked.key, "seconds": round(rng.choice((0.0, 0.2, 1.0, 2.5)), 1)}
        body = {
            "tool": asked.tool,
            "arguments": arguments | ({"mischief": asked.mischief} if asked.mischief else {}),
            "project": f"p{rng.randrange(6)}",
            "idempotency_key": asked.key,
        }
        if asked.key[-1] in "0123":
            body["deadline_s"] = DEADLINE_S
        if asked.is_safe and not asked.mischief:
            body["retry"] = {"attempts": ATTEMPTS, "first_wait_s": 0.2, "cap_s": 1.0}
        timeout_s, begun_s = 0.01 if asked.hung_up else 10.0, time.monotonic()
        while asked.id is None:
            try:
                answer = await self._fleet.ask("POST", "/v1/invocations", json=body, timeout=timeout_s)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                asked.id, asked.accepted_after_s = answer.json()["id"], time.monotonic() - begun_s
            elif answer is not None and answer.status_code < 500 and answer.status_code != 429:
                # No node offers the tool while all of them are away: an honest answer, and worth asking again.
                self.refusals.append(f"{answer.status_code} {answer.text[:200]}")
            timeout_s = 10.0
            if asked.id is None:
                await asyncio.sleep(AGAIN_EVERY_S)

    async def _ask(self, asked: Asked, wait_s: float) -> None:
        try:
            query = {"wait": round(max(wait_s, 0.0), 1)}
            answer = await self._fleet.ask("GET", f"/v1/invocations/{asked.id}", params=query, timeout=wait_s + 5.0)
        except httpx.HTTPError:
            await asyncio.sleep(AGAIN_EVERY_S)
            return
        if answer.is_success:
            asked.view = answer.json()
        else:
            if answer.status_code < 500:
                self.refusals.append(f"{answer.status_code} {answer.text[:200]}")
            await asyncio.sleep(AGAIN_EVERY_S)


def _is_over(asked: Asked) -> bool:
    return asked.view is not None and asked.view["state"] in TERMINAL and asked.view["ended_at"] is not None
