"""Callers who keep calling while the fleet is hurt, and remember what they asked for.

They behave as clients should: an idempotency key for every call, the same key again whenever an answer
did not come. Some hang up in the middle and ask later, some change their mind and cancel.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import httpx

from tests.chaos.asked import MISCHIEF_SHARE, Asked, draw
from tests.chaos.fleet import Fleet

AGAIN_EVERY_S = 0.3
REVIEWS_AT_ONCE = 4


class Callers:
    """Several at once, each one call after the other."""

    def __init__(
        self, fleet: Fleet, rng: random.Random, callers: int, *, mischief_share: float = MISCHIEF_SHARE
    ) -> None:
        self.asked: list[Asked] = []
        self.refusals: list[str] = []
        """Answers that were neither an acceptance nor a reason to ask again."""
        self.replays: dict[str, frozenset[str]] = {}
        """Dead letter → ids of the new calls that those were told who replayed it."""
        self._fleet, self._rng, self._callers = fleet, rng, callers
        self._mischief_share = mischief_share

    async def run(self, until_s: float) -> None:
        """Call until then; returns when every call is known to be accepted, and every cancel was heard."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._callers):
                group.create_task(self._call_on(random.Random(self._rng.random()), number, until_s))

    async def ended(self, within_s: float) -> None:
        """Until every call that was accepted has ended, or the time is over."""
        until_s = time.monotonic() + within_s
        left = [asked for asked in self.asked if asked.id is not None and not asked.is_over]

        async def follow() -> None:
            while left and time.monotonic() < until_s:
                asked = left.pop(0)
                await self._ask(asked, 1.0)
                if not asked.is_over:
                    left.append(asked)

        await asyncio.gather(*(follow() for _ in range(self._callers)))

    async def review(self) -> None:
        """Ask for every call once more, of the ledger and not of who remembers: an end stays as it is."""
        left = [asked for asked in self.asked if asked.id is not None]
        await asyncio.gather(*(self._review(left) for _ in range(REVIEWS_AT_ONCE)))

    async def letters(self) -> Counter[str]:
        """Dead letters by call."""
        found: Counter[str] = Counter()
        cursor: str | None = None
        while True:
            query = {"limit": 200} | ({"cursor": cursor} if cursor else {})
            page = (await self._until_answered("GET", "/v1/dead-letters", params=query)).raise_for_status().json()
            found.update(letter["id"] for letter in page["items"])
            cursor = page["next"]
            if cursor is None:
                return found

    async def replay(self, at_most: int) -> None:
        """Replay some dead letters, each twice at once, as two operators do; the new calls are ours too.

        Those that hang would only take their time, and the later calls of a chain would have no ids we know.
        """
        known = {asked.id: asked for asked in self.asked}
        dead = [known[letter] for letter in await self.letters() if letter in known]
        fit = [asked for asked in dead if asked.mischief != "hang" and "then" not in asked.body]
        await asyncio.gather(*(self._replay(asked) for asked in fit[:at_most]))

    async def _replay(self, asked: Asked) -> None:
        assert asked.id is not None
        body = {"ids": [asked.id]}
        answers = await asyncio.gather(
            *(self._until_answered("POST", "/v1/dead-letters:replay", json=body) for _ in range(2))
        )
        views = [answer.raise_for_status().json()["items"] for answer in answers]
        ids = frozenset(view["id"] for items in views for view in items)
        self.replays[asked.id] = ids
        self.asked += [
            Asked(asked.key, asked.tool, asked.mischief, id=one, answer_bytes=asked.answer_bytes, replay_of=asked.id)
            for one in ids
        ]

    async def _call_on(self, rng: random.Random, number: int, until_s: float) -> None:
        while time.monotonic() < until_s:
            chain = draw(rng, number, self._mischief_share)
            self.asked += chain
            asked = chain[0]
            await self._accepted(asked)
            if asked.cancel_after_s is not None:
                await asyncio.sleep(asked.cancel_after_s)
                await self._cancelled(asked)
            if rng.random() < 0.5:
                await self._ask(asked, rng.uniform(0.0, 3.0))

    async def _accepted(self, asked: Asked) -> None:
        timeout_s, begun_s = 0.01 if asked.hung_up else 10.0, time.monotonic()
        while asked.id is None:
            try:
                answer = await self._fleet.ask("POST", "/v1/invocations", json=asked.body, timeout=timeout_s)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                asked.id, asked.accepted_after_s = answer.json()["id"], time.monotonic() - begun_s
            elif answer is not None and answer.status_code < 500 and answer.status_code != 429:
                # No node offers the tool while all of them are away: an honest answer, and worth asking again.
                self._refused(answer)
            timeout_s = 10.0
            if asked.id is None:
                await asyncio.sleep(AGAIN_EVERY_S)

    async def _cancelled(self, asked: Asked) -> None:
        asked.cancel_sent = True
        answer = await self._until_answered("POST", f"/v1/invocations/{asked.id}/cancel")
        if not answer.is_success:
            self._refused(answer)
            return
        asked.cancelled_at = time.time()
        self._seen(asked, answer.json())

    async def _ask(self, asked: Asked, wait_s: float) -> None:
        try:
            query = {"wait": round(max(wait_s, 0.0), 1)}
            answer = await self._fleet.ask("GET", f"/v1/invocations/{asked.id}", params=query, timeout=wait_s + 5.0)
        except httpx.HTTPError:
            await asyncio.sleep(AGAIN_EVERY_S)
            return
        if answer.is_success:
            self._seen(asked, answer.json())
            return
        if answer.status_code < 500 and not _is_unborn(asked, answer):
            self._refused(answer)
        await asyncio.sleep(AGAIN_EVERY_S)

    async def _review(self, left: list[Asked]) -> None:
        while left:
            asked = left.pop()
            answer = await self._until_answered("GET", f"/v1/invocations/{asked.id}")
            if answer.is_success:
                asked.final = answer.json()
            elif not _is_unborn(asked, answer):
                self._refused(answer)

    async def _until_answered(self, method: str, path: str, **how: Any) -> httpx.Response:
        """By anything but "not now"."""
        while True:
            try:
                answer = await self._fleet.ask(method, path, timeout=10.0, **how)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code < 500:
                return answer
            await asyncio.sleep(AGAIN_EVERY_S)

    @staticmethod
    def _seen(asked: Asked, view: dict[str, Any]) -> None:
        """The first end that a caller hears is kept: later ones are held against it."""
        if not (asked.view is not None and asked.view["ended_at"] is not None):
            asked.view = view

    def _refused(self, answer: httpx.Response) -> None:
        self.refusals.append(f"{answer.status_code} {answer.text[:200]}")


def _is_unborn(asked: Asked, answer: httpx.Response) -> bool:
    """A later call of a chain is unknown until the one before it succeeded."""
    return answer.status_code == 404 and asked.follows is not None
