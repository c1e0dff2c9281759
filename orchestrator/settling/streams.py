"""The orchestrator's ear and voice in Redis: reads every node's events, answers on its control stream.

Reads all streams with one XREAD. An entry is trimmed only after what it says was settled; a node
says it again until told so. Refuses to judge events: `settler.py` does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from orchestrator.happenings import EntryRefused, Happening, Progressed
from orchestrator.ledger.values import Started as StartedRow
from orchestrator.redis_client import ANSWER_S
from tasks.clock import Clock
from tasks.errors import LedgerDown
from tasks.invocation import Lane, State
from tasks.ledger_events import FIELD, Asked, Event, Finished, Progress, Resolved, Saved, Started, unpack
from tasks.node import Control, Ref
from tasks.queues import BINDINGS, DOORBELL, binding_of, control_stream, events_stream, node_queue
from tasks.sealing import SEALED_FIELD, NotSealedForUs

log = structlog.get_logger("mcpfleet.streams")
E = TypeVar("E", StartedRow, Finished, Progress, Saved, Asked, Resolved)
BLOCK_MS = 1000
RETRY_S = 0.5
READ_MAX_ENTRIES = 256
"""Of one stream at a time: what piled up while nobody read is read in parts that Redis sends in time."""
CONTROL_MAX_ENTRIES = 1000
"""A node that is away hears the same from its next renewal, so older entries may go."""
TRIM_EVERY_ENTRIES = 64
LOOK_BACK_EVERY_S = 5.0
"""One entry per node: its reporter tells again as often."""
FORGET_AGAIN_S = 10.0
"""A Celery worker that ends puts back what it had prefetched: after its node has left, and its queues were deleted."""
SAY_EVERY_S = 0.05
"""At light load this saves a round trip per call; a node tells again only after seconds."""


class Settling(Protocol):
    """Who judges events."""

    async def finished(self, events: Sequence[tuple[str, Finished]]) -> list[tuple[str, Finished]]: ...
    async def started(self, events: Sequence[tuple[str, StartedRow]]) -> None: ...
    async def spent(self, events: Sequence[tuple[str, Progress]]) -> None: ...


class Questions(Protocol):
    """Who takes questions to people."""

    async def asked(self, events: Sequence[tuple[str, Asked]]) -> None: ...
    async def resolved(self, events: Sequence[tuple[str, Resolved]]) -> None: ...


class Seals(Protocol):
    """Who opens what nodes say, and seals what they are told."""

    def opened(self, node: str, fields: Mapping[bytes, bytes]) -> bytes: ...
    def control(self, node: str, control: Control) -> dict[bytes, bytes]: ...
    def forget(self, node: str) -> None: ...


class Plain:
    """Where nothing is sealed."""

    def opened(self, node: str, fields: Mapping[bytes, bytes]) -> bytes:  # noqa: ARG002 - a Seals
        """As it stands there."""
        return fields[FIELD]

    def control(self, node: str, control: Control) -> dict[bytes, bytes]:  # noqa: ARG002 - a Seals
        """As it is."""
        return {FIELD: control.model_dump_json().encode()}

    def forget(self, node: str) -> None:
        """There is nothing to forget."""


class NodeStreams:
    """One reader for all nodes of the fleet."""

    def __init__(
        self,
        redis: Redis,
        *,
        settling: Settling,
        nodes: Callable[[], Iterable[str]],
        tell: Callable[[Happening], None],
        clock: Clock,
        leads: Callable[[], bool],
        is_at: Callable[[str, int, str], bool],
        saved: Callable[[Sequence[tuple[str, Saved]]], Awaitable[None]] | None = None,
        questions: Questions | None = None,
        seals: Seals | None = None,
    ) -> None:
        """`is_at`: whether this attempt (id, fence) is at that node; `saved`: told of sessions before what ended."""
        self._seals = seals or Plain()
        self._redis, self._settling, self._nodes, self._tell = redis, settling, nodes, tell
        self._leads, self._saved, self._questions = leads, saved, questions
        self._clock, self._is_at = clock, is_at
        self._seen: dict[str, bytes] = {}
        self._read_since_trim: defaultdict[str, int] = defaultdict(int)
        self._rung: bytes = b"0"  # not "$", which would miss a ring between two reads
        self._ringing: set[asyncio.Task[None]] = set()
        self._unsaid: defaultdict[str, list[Ref]] = defaultdict(list)
        self._unsaid_trims: set[str] = set()
        self._saying: asyncio.Task[None] | None = None
        self._gone: dict[str, float] = {}
        """Nodes that left, and when their streams and queues are deleted once more."""
        self._one_writes = asyncio.Lock()
        """Held over each write to a control stream and each deletion: one that was under way cannot bring it back."""
        self._look_back_at_s = clock.mono_s() + LOOK_BACK_EVERY_S

    async def run(self) -> None:
        """Until cancelled. Redis or ledger down: waits and goes on where it was."""
        while True:
            try:
                await self._turn()
            except (RedisError, OSError, LedgerDown) as error:
                log.warning("streams_unavailable", error=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("streams_turn_failed")
                await asyncio.sleep(RETRY_S)

    def ring_soon(self) -> None:
        """The set of nodes changed: make the reader look again at once."""
        task = asyncio.get_running_loop().create_task(self._ring())
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

    async def _ring(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._redis.xadd(DOORBELL, {"n": "1"}, maxlen=1)
        except (RedisError, OSError) as error:
            log.info("doorbell_unavailable", error=str(error))

    async def cancel(self, invocation: str, fence: int, node: str) -> None:
        """Ask a node to stop one attempt, now. Its next renewal hears it again."""
        await self.say(node, Control(kind="cancel", refs=(Ref(invocation=invocation, fence=fence),)))

    async def say(self, node: str, control: Control) -> None:
        """On the node's control stream, now. What is lost there is said again otherwise."""
        try:
            async with asyncio.timeout(ANSWER_S), self._one_writes:
                if node not in self._nodes():
                    return
                fields: Any = self._seals.control(node, control)
                if fields:
                    await self._redis.xadd(control_stream(node), fields, maxlen=CONTROL_MAX_ENTRIES, approximate=True)
        except (RedisError, OSError) as error:
            log.warning("control_not_prompt", node=node, kind=control.kind, error=str(error))

    def forget_soon(self, node: str) -> None:
        """The node left."""
        task = asyncio.get_running_loop().create_task(self.forget(node))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

    async def forget(self, node: str) -> None:
        """The node left: its streams and queues have no owner any more."""
        self._seen.pop(events_stream(node), None)
        self._read_since_trim.pop(events_stream(node), None)
        self._unsaid.pop(node, None)
        self._seals.forget(node)
        self._gone[node] = self._clock.mono_s() + FORGET_AGAIN_S
        await self._delete(node)

    async def _forget_again(self) -> None:
        now_s = self._clock.mono_s()
        for node in [node for node, due_s in self._gone.items() if now_s >= due_s]:
            del self._gone[node]
            if node not in self._nodes():  # else it came back, and these are its own
                await self._delete(node)

    async def _delete(self, node: str) -> None:
        queues = [node_queue(node, lane) for lane in Lane]
        try:
            async with asyncio.timeout(ANSWER_S), self._one_writes:
                await self._redis.delete(events_stream(node), control_stream(node), *queues)
                for bindings in BINDINGS:
                    await self._redis.srem(bindings, *map(binding_of, queues))
        except (RedisError, OSError) as error:
            log.warning("streams_not_deleted", node=node, error=str(error))

    async def _turn(self) -> None:
        by_stream = {events_stream(node): node for node in self._nodes()}
        if self._clock.mono_s() >= self._look_back_at_s:
            await self._look_back(by_stream)
        if self._gone:
            await self._forget_again()
        wanted: dict[Any, Any] = {stream: self._seen.get(stream, b"0") for stream in by_stream}
        wanted[DOORBELL] = self._rung
        async with asyncio.timeout(BLOCK_MS / 1000 + ANSWER_S):
            reply = await self._redis.xread(wanted, count=READ_MAX_ENTRIES, block=BLOCK_MS)
        if not reply:
            return
        if not self._leads():
            # A successor may have released what these speak of: refused here, they would be acknowledged.
            await asyncio.sleep(RETRY_S)
            return
        entries = {_text(stream): batch for stream, batch in _pairs(reply)}
        bell = entries.pop(DOORBELL, None)
        if bell:
            self._rung = bell[-1][0]
        events = [
            (by_stream[stream], event)
            for stream, batch in entries.items()
            for entry_id, fields in batch
            for event in self._events(by_stream[stream], entry_id, fields)
        ]
        settled = await self._act(events)
        for stream, batch in entries.items():
            self._seen[stream] = batch[-1][0]
            self._read_since_trim[stream] += len(batch)
        self._answer(settled, entries)

    async def _look_back(self, streams: Iterable[str]) -> None:
        """Read again from the start what has become older than what was read of it.

        A master that took over, or a server without its data, numbers entries by its own clock. Where
        that is behind, what it takes now would go unread until the clock has caught up. Nobody says when
        that happens: the client connects again by itself.
        """
        seen = {stream: self._seen[stream] for stream in streams if stream in self._seen}
        pipeline: Any = self._redis.pipeline(transaction=False)
        for stream in seen:
            pipeline.xrevrange(stream, count=1)
        async with asyncio.timeout(ANSWER_S):
            newest = await pipeline.execute()
        for (stream, read), entries in zip(seen.items(), newest, strict=True):
            if not entries or _order(entries[0][0]) < _order(read):
                self._seen.pop(stream, None)
        self._look_back_at_s = self._clock.mono_s() + LOOK_BACK_EVERY_S

    async def _act(self, events: Sequence[tuple[str, Event]]) -> list[tuple[str, Finished]]:
        started = [
            (node, StartedRow(event.invocation, event.fence, node, event.at))
            for node, event in events
            if isinstance(event, Started)
        ]
        await _each_apart(self._settling.started, started)
        spent = []
        for node, event in events:
            if isinstance(event, Progress):
                if event.spent:
                    spent.append((node, event))
                elif self._is_at(event.invocation, event.fence, node):
                    self._tell(self._progressed(event))
        if spent:
            await _each_apart(self._settling.spent, spent)
        if self._saved is not None:
            await _each_apart(self._saved, [(node, saved) for node, event in events for saved in _saved_in(event)])
        if self._questions is not None:
            asked = [(node, event) for node, event in events if isinstance(event, Asked)]
            await _each_apart(self._questions.asked, asked)
            resolved = [(node, event) for node, event in events if isinstance(event, Resolved)]
            await _each_apart(self._questions.resolved, resolved)
        finished = [(node, event) for node, event in events if isinstance(event, Finished)]
        return await _each_apart(self._settling.finished, finished)

    def _events(self, node: str, entry_id: bytes, fields: dict[bytes, bytes]) -> list[Event]:
        """What an entry says: nothing, where it is not that node's, or not readable. An outcome is said again."""
        try:
            return unpack(self._seals.opened(node, fields))
        except NotSealedForUs:
            why = "seal" if SEALED_FIELD in fields else "unsealed"
            self._tell(EntryRefused(node, why))
            log.warning("events_refused", node=node, entry=_text(entry_id), why=why)
        except (KeyError, ValueError, TypeError) as error:
            self._tell(EntryRefused(node, "form"))
            log.warning("events_unreadable", node=node, entry=_text(entry_id), error=str(error))
        return []

    def _progressed(self, event: Progress) -> Progressed:
        at = self._clock.wall_s()
        return Progressed(event.invocation, event.fence, event.progress, event.total, event.message, at)

    def _answer(self, settled: Sequence[tuple[str, Finished]], entries: dict[str, Any]) -> None:
        """Note what to say; said in batches, because nothing but a node's journal waits for it."""
        for node, event in settled:
            self._unsaid[node].append(Ref(invocation=event.invocation, fence=event.fence))
        self._unsaid_trims.update(entries)
        if self._saying is None or self._saying.done():
            self._saying = asyncio.get_running_loop().create_task(self._say_soon())

    async def _say_soon(self) -> None:
        """A batch that Redis does not take is lost: the node tells again, and is answered again."""
        while self._unsaid or self._unsaid_trims:
            await asyncio.sleep(SAY_EVERY_S)
            unsaid, self._unsaid = self._unsaid, defaultdict(list)
            trims, self._unsaid_trims = self._unsaid_trims, set()
            try:
                async with asyncio.timeout(ANSWER_S), self._one_writes:
                    await self._said(unsaid, trims).execute()
            except (RedisError, OSError) as error:
                log.info("settled_not_said", error=str(error) or type(error).__name__)

    def _said(self, unsaid: dict[str, list[Ref]], trims: set[str]) -> Any:  # noqa: ANN401 - redis-py's pipeline
        pipeline: Any = self._redis.pipeline(transaction=False)
        for node in unsaid.keys() & set(self._nodes()):
            refs = unsaid[node]
            fields = self._seals.control(node, Control(kind="settled", refs=tuple(refs)))
            if fields:
                pipeline.xadd(control_stream(node), fields, maxlen=CONTROL_MAX_ENTRIES, approximate=True)
        for stream in trims:
            if self._read_since_trim.get(stream, 0) >= TRIM_EVERY_ENTRIES:
                self._read_since_trim[stream] = 0
                pipeline.xtrim(stream, minid=self._seen[stream], approximate=False)
        return pipeline


async def _each_apart(
    act: Callable[[Sequence[tuple[str, E]]], Awaitable[list[tuple[str, E]] | None]], events: Sequence[tuple[str, E]]
) -> list[tuple[str, E]]:
    """Act on all at once; where that fails, on one after the other. Answers those that were acted on.

    That is all of them where `act` does not say. One event that cannot be taken holds up no other: its
    node tells an outcome again.

    Raises:
        LedgerDown: nothing can be written now; the same events are to come again.
    """
    if not events:
        return []
    try:
        acted = await act(events)
    except LedgerDown:
        raise
    except Exception:
        if len(events) == 1:
            log.exception("event_not_taken", node=events[0][0], told=type(events[0][1]).__name__)
            return []
        return [taken for event in events for taken in await _each_apart(act, [event])]
    return list(events) if acted is None else acted


def _saved_in(event: Event) -> list[Saved]:
    """What is said of a session; also with a failure, after which another attempt may go on from there."""
    if isinstance(event, Saved):
        return [event]
    if isinstance(event, Finished) and event.saved is not None and event.outcome.ending == State.FAILED.value:
        return [Saved(event.invocation, event.fence, *event.saved)]
    return []


def _pairs(reply: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - RESP2 gives a list, RESP3 a dict
    if isinstance(reply, dict):
        return [(stream, batches[0]) for stream, batches in reply.items()]
    return [(stream, batch) for stream, batch in reply]


def _order(entry_id: bytes) -> tuple[int, int]:
    """Of stream entries: milliseconds, then a number."""
    at_ms, _, number = _text(entry_id).partition("-")
    return int(at_ms), int(number or 0)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
