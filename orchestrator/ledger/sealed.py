"""The ledger with what calls carry sealed: arguments, `_meta`, results, the calls that follow, what people are asked.

Each text is sealed on its way to a row and opened on its way out, bound to its Invocation and its place there. What
statements filter on stays readable: names, times, states, digests, errors. Rows from before, in the clear, are read
as they are, and with `seals` off what was sealed still opens. One row that does not open stops no other. Owns which
texts; the key ring has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.ledger.approval_values import ApprovalRow, NewAnswer, NewApproval
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.values import Accepted, Filter, NewInvocation, Release, Released, Settled, Settlement
from tasks.approval import ApprovalState
from tasks.errors import LedgerDown, Unopened
from tasks.invocation import Call, Invocation, State
from tasks.outcome import ErrorInfo, Failure, Outcome

log = structlog.get_logger("mcpfleet.ledger")

FORM = "mcf1."
"""How a sealed text begins. JSON never does."""


class RowKeys(Protocol):
    """The key ring."""

    def seal(self, plain: bytes, *, aad: bytes) -> str: ...
    def open(self, sealed: str, *, aad: bytes) -> bytes: ...


class SealedLedger(Ledger):
    """Made by `open`, then told its keys."""

    _keys: RowKeys
    _seals = False
    on_unopened: Callable[[Settlement, str], None] = staticmethod(lambda _end, _tool: None)
    """Told of each call that ended because it does not open, with its tool; set once, by who tells the others."""

    def with_keys(self, keys: RowKeys, *, seals: bool) -> SealedLedger:
        """`seals`: what is written from now on is sealed."""
        self._keys, self._seals = keys, seals
        return self

    async def accept(self, rows: Sequence[NewInvocation]) -> list[Accepted]:
        """As `Ledger.accept`."""
        return await super().accept([self._new(row) for row in rows])

    async def release(self, wanted: Sequence[Release], epoch: int) -> list[Released | None]:
        """As `Ledger.release`. What does not open is ended as failed and is None, as what moved meanwhile."""
        answers: list[Released | None] = []
        ends: list[tuple[Settlement, str]] = []
        for one, released in zip(wanted, await super().release(wanted, epoch), strict=True):
            try:
                answers.append(released and self._released(released))
            except Unopened as error:
                log.warning("arguments_not_opened", invocation=one.invocation_id, why=error.message, effect="it failed")
                answers.append(None)
                ends.append((_failed(one, error), released.tool if released else ""))
        if ends:
            await self._end(ends)
        return answers

    async def _end(self, ends: Sequence[tuple[Settlement, str]]) -> None:
        try:
            settled = await super().settle([end for end, _tool in ends])
        except LedgerDown as error:  # no node has them: they come back to wait, and are met again
            log.warning("unopened_not_ended", calls=len(ends), error=error.message)
            return
        for (end, tool), answer in zip(ends, settled, strict=True):
            if answer.took:
                self.on_unopened(end, tool)

    def _released(self, released: Released) -> Released:
        if not (_is_sealed(released.arguments_json) or _is_sealed(released.meta_json)):
            return released  # the hot path of a fleet that seals nothing
        return replace(
            released,
            arguments_json=self._opened(released.arguments_json, released.invocation_id, "arguments"),
            meta_json=self._opened(released.meta_json, released.invocation_id, "meta"),
        )

    async def settle(self, wanted: Sequence[Settlement]) -> list[Settled]:
        """As `Ledger.settle`."""
        settled = await super().settle([self._settlement(one) for one in wanted])
        return [replace(one, outcome=self._outcome(one.outcome, one.invocation_id)) for one in settled]

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation:
        """As `Ledger.get`. What it calls stays sealed where it does not open; for its result this raises Unopened."""
        return self._invocation(await super().get(invocation_id, tenant))

    async def arguments_of(self, invocation_id: str) -> tuple[str | None, str | None]:
        """As `Ledger.arguments_of`."""
        text, blob = await super().arguments_of(invocation_id)
        return self._opened(text, invocation_id, "arguments"), blob

    async def listing(
        self, where: Filter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Invocation], str | None]:
        """As `Ledger.listing`."""
        found, following = await super().listing(where, cursor=cursor, limit=limit)
        return [self._invocation(one) for one in found], following

    async def ask_approval(self, asked: NewApproval) -> tuple[ApprovalRow | None, bool]:
        """As `Ledger.ask_approval`."""
        sealed = self._sealed(asked.arguments_json, asked.id, "asked") or ""
        row, is_new = await super().ask_approval(replace(asked, arguments_json=sealed))
        return row and self._approval(row), is_new

    async def answer_approval(
        self, approval_id: str, tenant: str | None, answer: NewAnswer
    ) -> tuple[ApprovalRow, bool]:
        """As `Ledger.answer_approval`."""
        row, is_first = await super().answer_approval(approval_id, tenant, answer)
        return self._approval(row), is_first

    async def approval(self, approval_id: str, tenant: str | None) -> ApprovalRow:
        """As `Ledger.approval`."""
        return self._approval(await super().approval(approval_id, tenant))

    async def approvals(
        self, tenant: str | None, states: frozenset[ApprovalState], cursor: str | None, limit: int
    ) -> tuple[list[ApprovalRow], str | None]:
        """As `Ledger.approvals`."""
        rows, following = await super().approvals(tenant, states, cursor, limit)
        return self._approvals(rows), following

    async def open_approvals(self) -> list[ApprovalRow]:
        """As `Ledger.open_approvals`."""
        return self._approvals(await super().open_approvals())

    def _new(self, row: NewInvocation) -> NewInvocation:
        invocation = row.invocation
        for text in _texts(invocation.call):
            if _is_sealed(text):  # read from a row that did not open
                self._keys.open(text or "", aad=b"")
        if not self._seals:
            return row
        return replace(row, invocation=replace(invocation, call=self._call(invocation.call, invocation.id, "")))

    def _call(self, call: Call, invocation_id: str, place: str) -> Call:
        return replace(
            call,
            arguments_json=self._sealed(call.arguments_json, invocation_id, f"{place}arguments") or "",
            meta_json=self._sealed(call.meta_json, invocation_id, f"{place}meta"),
            then=tuple(self._call(one, invocation_id, f"{place}{at}.") for at, one in enumerate(call.then)),
        )

    def _opened_call(self, call: Call, invocation_id: str, place: str) -> Call:
        return replace(
            call,
            arguments_json=self._opened(call.arguments_json, invocation_id, f"{place}arguments") or "",
            meta_json=self._opened(call.meta_json, invocation_id, f"{place}meta"),
            then=tuple(self._opened_call(one, invocation_id, f"{place}{at}.") for at, one in enumerate(call.then)),
        )

    def _settlement(self, one: Settlement) -> Settlement:
        if not self._seals and not one.successors:
            return one
        outcome = one.outcome
        if self._seals and outcome is not None and outcome.result_json is not None:
            outcome = replace(outcome, result_json=self._sealed(outcome.result_json, one.invocation_id, "result"))
        return replace(one, outcome=outcome, successors=tuple(map(self._new, one.successors)))

    def _invocation(self, found: Invocation) -> Invocation:
        call, outcome = found.call, self._outcome(found.outcome, found.id)
        if not any(map(_is_sealed, _texts(call))):
            return found if outcome is found.outcome else replace(found, outcome=outcome)
        try:
            call = self._opened_call(call, found.id, "")
        except Unopened as error:
            log.warning("call_not_opened", invocation=found.id, why=error.message)
        return replace(found, call=call, outcome=outcome)

    def _outcome(self, outcome: Outcome | None, invocation_id: str) -> Outcome | None:
        if outcome is None or not _is_sealed(outcome.result_json):
            return outcome
        return replace(outcome, result_json=self._opened(outcome.result_json, invocation_id, "result"))

    def _approvals(self, rows: Sequence[ApprovalRow]) -> list[ApprovalRow]:
        opened = []
        for row in rows:
            try:
                opened.append(self._approval(row))
            except Unopened as error:
                asked = row.question
                log.warning("question_not_opened", approval=asked.id, invocation=asked.invocation_id, why=error.message)
        return opened

    def _approval(self, row: ApprovalRow) -> ApprovalRow:
        asked = row.question
        text = self._opened(asked.arguments_json, asked.id, "asked") or ""
        return replace(row, question=replace(asked, arguments_json=text))

    def _sealed(self, text: str | None, owner: str, place: str) -> str | None:
        if text is None or not self._seals:
            return text
        return self._keys.seal(text.encode("utf-8", "surrogatepass"), aad=aad_of_text(owner, place))

    def _opened(self, text: str | None, owner: str, place: str) -> str | None:
        if text is None or not _is_sealed(text):
            return text
        return self._keys.open(text, aad=aad_of_text(owner, place)).decode("utf-8", "surrogatepass")


def _is_sealed(text: str | None) -> bool:
    return text is not None and text.startswith(FORM)


def _texts(call: Call) -> Iterator[str | None]:
    yield from (call.arguments_json, call.meta_json)
    for one in call.then:
        yield from _texts(one)


def _failed(one: Release, error: Unopened) -> Settlement:
    info = ErrorInfo(error.code, f"no node got this call, because {error.message}", Failure.PERMANENT)
    return Settlement(
        invocation_id=one.invocation_id,
        fence=one.expected_fence + 1,
        node=None,
        to=State.FAILED,
        attempt_ending=State.FAILED.value,
        at=one.at,
        outcome=Outcome(State.FAILED.value, error=info),
        error=info,
        dead_reason=error.code,
    )


def aad_of_text(owner: str, place: str) -> bytes:
    """What a sealed text is bound to: the Invocation or question that it is of, and its place there."""
    return f"mcpfleet row\0{place}\0{owner}".encode()
