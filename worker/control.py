"""Reads this node's control stream: what is settled, what is to be cancelled, what a person answered.

Only a shortcut: the next renewal repeats all of it, so a missed entry costs seconds and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tasks.ledger_events import FIELD
from tasks.node import ApprovalAnswer, Control
from worker.admit import Ref

BLOCK_MS = 2_000
ANSWER_S = 5.0
"""Longer than XREAD blocks; a Redis that vanished without a word is noticed by it."""
assert BLOCK_MS / 1000 < ANSWER_S / 2, "an idle stream must not look like a dead Redis"
COUNT = 200
RETRY_S = 0.5
GATHER_S = 0.01
"""After an entry: acknowledgements come in crowds, and a cancel is as prompt as a person can tell."""
_log = structlog.get_logger()


class Questions(Protocol):
    """The open questions of this node's runs."""

    def noted(self, ids: Iterable[str]) -> None:
        """The ledger has them."""
        ...

    def answered(self, answers: Iterable[ApprovalAnswer]) -> None:
        """Somebody answered."""
        ...


class ControlReader:
    """One reader, on a connection of its own: XREAD blocks it."""

    def __init__(  # noqa: PLR0917 - one part, and everything it needs
        self,
        redis: Redis,
        stream: str,
        settled: Callable[[list[Ref]], None],
        cancel: Callable[[Ref], None],
        questions: Questions,
        opened: Callable[[Mapping[bytes, bytes]], bytes | None] = lambda fields: fields.get(FIELD, b""),
    ) -> None:
        """`opened`: what an entry says, from its fields; None where it is not to be believed."""
        self._redis = redis
        self._stream = stream
        self._settled = settled
        self._cancel, self._questions = cancel, questions
        self._opened = opened
        self._last_id: Any = b""

    async def run(self) -> None:
        """Read until cancelled; Redis may come and go."""
        while True:
            try:
                if not self._last_id:
                    self._last_id = await self._newest_id()
                await self._read()
            except (RedisError, OSError, TimeoutError) as error:
                _log.debug("control_stream_away", detail=str(error))
                await asyncio.sleep(RETRY_S)

    async def _newest_id(self) -> Any:  # noqa: ANN401 - bytes or str, as the client decodes
        """Entries before this process are for an earlier one, which the join has settled."""
        async with asyncio.timeout(ANSWER_S):
            newest = await self._redis.xrevrange(self._stream, count=1)
        return newest[0][0] if newest else b"0-0"

    async def _read(self) -> None:
        async with asyncio.timeout(ANSWER_S):
            reply: Any = await self._redis.xread({self._stream: self._last_id}, count=COUNT, block=BLOCK_MS)
        for entry_id, fields in _entries(reply):
            self._last_id = entry_id
            value = self._opened(fields)
            if value is not None:
                self._take(value)
        if reply:
            await asyncio.sleep(GATHER_S)

    def _take(self, value: bytes) -> None:
        try:
            control = Control.model_validate_json(value)
        except ValidationError as error:
            _log.warning("control_unreadable", detail=str(error)[:300])
            return
        refs = [(ref.invocation, ref.fence) for ref in control.refs]
        if control.kind == "settled":
            self._settled(refs)
        elif control.kind == "approvals":
            self._questions.noted(control.noted)
            self._questions.answered(control.answers)
        else:
            for ref in refs:
                self._cancel(ref)


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:  # noqa: ANN401 - RESP2 gives a list, RESP3 a dict
    if not reply:
        return []
    entries: list[tuple[bytes, dict[bytes, bytes]]] = (
        next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]
    )
    return entries
