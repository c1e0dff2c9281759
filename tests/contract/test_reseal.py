"""Another key for what rows carry: all of it is under the newest one afterwards, and readable at every moment."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.ledger import reseal
from orchestrator.ledger.approval_values import NewApproval
from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.oauth_values import SigningKeyRow, aad_of_signing_key
from orchestrator.ledger.reseal import Books, shelves
from orchestrator.ledger.sealed import SealedLedger
from orchestrator.ledger.secret_values import Change
from orchestrator.ledger.tables import INVOCATIONS
from orchestrator.ledger.testing import AT, HOLDER, new, release_of, success
from orchestrator.secrets import resealing
from orchestrator.secrets.keyring import KeyRing, kid_of
from orchestrator.secrets.resealing import Resealing
from tasks.approval import digest
from tasks.clock import SystemClock
from tasks.errors import LedgerDown, Unopened
from tasks.invocation import Call
from tasks.outcome import Outcome

CALLS = 7
TEXTS = CALLS * 4 + 1 + 1 + 1
"""Arguments, `_meta` and two that follow, of each; a result, a question, a signing key."""
OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
BEFORE, BOTH, AFTER = KeyRing({"k1": OLD}, newest="k1"), KeyRing({"k2": NEW, "k1": OLD}, newest="k2"), KeyRing(
    {"k2": NEW}, newest="k2"
)  # fmt: skip


def text(name: str, at: int) -> str:
    """One JSON text."""
    return f'{{"said": "{name} {at}"}}'


def call(at: int) -> Call:
    """With everything in it that is sealed."""
    deep = Call(tool="git.b", arguments_json=text("deep", at))
    following = Call(tool="git.a", arguments_json=text("next", at), then=(deep,))
    return Call(tool="git.log", arguments_json=text("arguments", at), meta_json=text("meta", at), then=(following,))


@dataclass
class Field:
    """A ledger, and what of it is under which key."""

    ledger: SealedLedger

    async def whole(self, keys: KeyRing) -> bool:
        """Whether all of it opens with these keys, and says what it said."""
        self.ledger.with_keys(keys, seals=True)
        try:
            for at in range(CALLS):
                found = await self.ledger.get(f"c{at}")
                if (found.call.arguments_json, found.call.meta_json, found.call.then) != (
                    call(at).arguments_json,
                    call(at).meta_json,
                    call(at).then,
                ):
                    return False
            outcome = (await self.ledger.get("c0")).outcome
            asked = await self.ledger.approval("a1", None)
            (key,) = await self.ledger.oauth.keys()
            keys.open(key.sealed, aad=aad_of_signing_key("s1"))
        except Unopened:
            return False
        return (outcome and outcome.result_json, asked.question.arguments_json) == (
            text("result", 0),
            text("asked", 0),
        )


@pytest.fixture
async def field(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Field]:
    """On SQLite and PostgreSQL, sealed under the key before; slices are small."""
    monkeypatch.setattr(reseal, "SLICE_ROWS", 2)
    monkeypatch.setattr(reseal, "SPAN_ROWS", 3)
    monkeypatch.setattr(resealing, "RETRY_S", 0.0)
    ledger = (await SealedLedger.open(ledger_url, clock=SystemClock())).with_keys(BEFORE, seals=True)
    epoch = await ledger.take_epoch(HOLDER, 600.0)
    assert epoch is not None
    for at in range(CALLS):
        one = new(invocation_id=f"c{at}")
        await ledger.accept([replace(one, invocation=replace(one.invocation, call=call(at)))])
    await ledger.release([release_of("c0")], epoch)
    asked = NewApproval("a1", "c0", 1, "n1", "Bash", AT, AT + 60, False, digest(text("asked", 0)), text("asked", 0))
    await ledger.ask_approval(asked)
    await ledger.settle([replace(success("c0"), outcome=Outcome("succeeded", result_json=text("result", 0)))])
    signing = BEFORE.seal(b"a signing key", aad=aad_of_signing_key("s1"))
    await ledger.oauth.save_key(SigningKeyRow("s1", AT, AT, signing))
    yield Field(ledger)
    await ledger.close()


async def test_everything_is_under_the_newest_key_and_the_old_one_can_go(field: Field) -> None:
    """Arguments, `_meta`, the calls that follow and theirs, results, questions, signing keys; then there is no more."""
    assert not await field.whole(AFTER)
    rows = pass_of(field.ledger, BOTH)
    rows.begin()
    assert rows.so_far.is_running
    done = await rows.ended()
    assert (done.texts, done.unopened, done.is_running, done.stopped) == (TEXTS, 0, False, None)
    assert await field.whole(AFTER)
    rows.begin()
    assert (await rows.ended()).texts == 0


def pass_of(books: Books, keys: KeyRing) -> Resealing:
    """Over all tables, without a rest."""
    return Resealing(shelves(books), keys, pause_s=0.0)


@dataclass
class Failing:
    """A ledger that fails once, at its third write."""

    ledger: SealedLedger
    error: Exception
    writes: int = 0

    async def write(self, operation: Callable[[Any], Any]) -> Any:
        """Count, then fail or write."""
        self.writes += 1
        if self.writes == 3:
            raise self.error
        return await self.ledger.write(operation)

    async def read(self, question: Callable[[Any], Any]) -> Any:
        """As it is."""
        return await self.ledger.read(question)


async def test_cut_off_it_is_begun_again_and_both_keys_open_in_between(field: Field) -> None:
    """By a leader that lost its place; the next pass finds what is left, and no text is done twice."""
    first = pass_of(Failing(field.ledger, EpochLost(1, 2)), BOTH)
    first.begin()
    done = await first.ended()
    assert done.stopped is not None
    assert 0 < done.texts < TEXTS
    assert await field.whole(BOTH)
    assert not await field.whole(BEFORE)
    assert not await field.whole(AFTER)
    again = pass_of(field.ledger, BOTH)
    again.begin()
    assert (await again.ended()).texts == TEXTS - done.texts
    assert await field.whole(AFTER)


async def test_a_database_that_is_away_for_a_while_ends_nothing(field: Field) -> None:
    """The same slice is tried again."""
    rows = pass_of(Failing(field.ledger, LedgerDown("away")), BOTH)
    rows.begin()
    done = await rows.ended()
    assert (done.texts, done.stopped) == (TEXTS, None)
    assert await field.whole(AFTER)


async def test_what_does_not_open_is_left_and_counted(field: Field) -> None:
    """A key that is not in the file: the old one may not go, and nothing is lost that its line would bring back."""
    rows = pass_of(field.ledger, AFTER)
    rows.begin()
    done = await rows.ended()
    assert (done.texts, done.unopened) == (0, TEXTS)
    assert await field.whole(BEFORE)


async def test_a_text_that_changed_since_it_was_read_is_not_written_over(field: Field) -> None:
    """A result that came meanwhile, a row that was erased."""
    shelf = shelves(field.ledger)[0]
    found = await shelf.find("k2", 0)
    first = found.rows[0]
    stale = Change("arguments_json", first["id"], "what was read", "what is written")
    assert await shelf.put([stale, replace(stale, id="gone")]) == 0
    assert await field.whole(BEFORE)


async def test_each_text_stays_bound_to_its_place(field: Field) -> None:
    """A text that somebody moved to another row is not wrapped anew for that one."""
    rows = pass_of(field.ledger, BOTH)
    moved = await _moved(field, "c1", "c2")
    rows.begin()
    done = await rows.ended()
    assert (done.texts, done.unopened) == (TEXTS - 1, 1)
    assert kid_of(moved) == "k1"


async def _moved(field: Field, to: str, of: str) -> str:
    """Arguments of one call put into another's row, by who may write to the database."""
    found = {row["id"]: row["arguments_json"] for row in await _raw(field)}
    change = Change("arguments_json", to, found[to], found[of])
    assert await shelves(field.ledger)[0].put([change]) == 1
    return str(found[of])


async def _raw(field: Field) -> list[dict[str, Any]]:
    """Rows as they are kept."""
    query = select(INVOCATIONS.c.id, INVOCATIONS.c.arguments_json)
    return await field.ledger.read(lambda reader: [dict(row) for row in reader.core.execute(query).mappings()])
