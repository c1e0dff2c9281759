"""A ledger that seals: what calls carry comes back whole, and none of it is in the database's files."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestrator.at_rest import ledger_of
from orchestrator.ledger.approval_values import NewApproval
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.sealed import RowKeys, SealedLedger
from orchestrator.ledger.testing import AT, HOLDER, new, release_of, success
from orchestrator.ledger.values import Filter, NewInvocation
from orchestrator.secrets.keyring import KeyMissing, NotAsSealed
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.secrets import new_ring
from tasks.approval import ApprovalState, digest
from tasks.clock import SystemClock
from tasks.invocation import Call, State
from tasks.outcome import Outcome

WORDS = {name: f"canary-{name}" for name in ("arguments", "meta", "result", "next", "deep", "asked")}


def text(name: str) -> str:
    """One JSON text."""
    return f'{{"said": "{WORDS[name]}"}}'


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SealedLedger]:
    """SQLite; seals."""
    opened = await SealedLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock=SystemClock())
    yield opened.with_keys(new_ring(), seals=True)
    await opened.close()


def call() -> NewInvocation:
    """One with everything in it."""
    deep = Call(tool="git.b", arguments_json=text("deep"))
    following = Call(tool="git.a", arguments_json=text("next"), then=(deep,))
    return new(invocation_id="c1", arguments_json=text("arguments"), meta_json=text("meta"), then=(following,))


async def lived(ledger: Ledger) -> None:
    """Accepted, released, asked about, settled with a successor."""
    await ledger.accept([call()])
    epoch = await ledger.take_epoch(HOLDER, 60.0)
    assert epoch is not None
    (released,) = await ledger.release([release_of("c1")], epoch)
    assert released is not None
    assert (released.arguments_json, released.meta_json) == (text("arguments"), text("meta"))
    asked = NewApproval("a1", "c1", 1, "n1", "Bash", AT, AT + 60, False, digest(text("asked")), text("asked"))
    row, is_new = await ledger.ask_approval(asked)
    assert is_new
    assert row is not None
    assert row.question == asked
    done = replace(
        success("c1"),
        outcome=Outcome("succeeded", result_json=text("result")),
        successors=(new(invocation_id="c2", arguments_json=text("next")),),
    )
    (settled,) = await ledger.settle([done])
    assert settled.took


async def test_what_a_call_carries_comes_back_and_is_not_in_the_files(ledger: SealedLedger, tmp_path: Path) -> None:
    """Arguments, `_meta`, the calls that follow, the result, a question to a person."""
    await lived(ledger)
    found = await ledger.get("c1")
    assert found.call == call().invocation.call
    assert found.outcome is not None
    assert found.outcome.result_json == text("result")
    assert await ledger.arguments_of("c2") == (text("next"), None)
    listed, _ = await ledger.listing(Filter())
    assert {one.id: one.call.then for one in listed} == {"c1": call().invocation.call.then, "c2": ()}
    assert (await ledger.approval("a1", None)).question.arguments_json == text("asked")
    rows, _ = await ledger.approvals(None, frozenset(ApprovalState), None, 10)
    assert [row.question.arguments_json for row in rows] == [text("asked")]
    await ledger.close()
    data = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert [word for word in WORDS.values() if word.encode() in data] == []


async def test_a_ledger_that_does_not_seal_has_them_in_its_files(tmp_path: Path) -> None:
    """The look above can see: without it this is where every word is."""
    plain = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock=SystemClock())
    await lived(plain)
    await plain.close()
    data = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.db*"))
    assert all(b"canary-" + name.encode() in data for name in WORDS)


async def test_rows_of_both_kinds_are_read_whatever_the_setting(tmp_path: Path) -> None:
    """Turned on, what is there stays; turned off, what was sealed still opens."""
    url, keys = f"sqlite:///{tmp_path / 'ledger.db'}", new_ring()
    for seals, name in ((False, "one"), (True, "two"), (False, "three")):
        opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(keys, seals=seals)
        await opened.accept([new(invocation_id=name, arguments_json=f'{{"a": "{name}"}}')])
        await opened.close()
    opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(keys, seals=False)
    for name in ("one", "two", "three"):
        assert (await opened.arguments_of(name))[0] == f'{{"a": "{name}"}}'
    await opened.close()
    raw = await Ledger.open(url, clock=SystemClock())
    assert [((await raw.arguments_of(name))[0] or "")[:5] for name in ("one", "two", "three")] == [
        '{"a":', "mcf1.", '{"a":',
    ]  # fmt: skip
    await raw.close()


async def test_a_text_moved_to_another_row_does_not_open(tmp_path: Path) -> None:
    """Who may write the database cannot have one call's arguments shown as another's."""
    url, keys = f"sqlite:///{tmp_path / 'ledger.db'}", new_ring()
    opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(keys, seals=True)
    await opened.accept([new(invocation_id="mine", arguments_json='{"a": 1}')])
    raw = await Ledger.open(url, clock=SystemClock())
    moved, _ = await raw.arguments_of("mine")
    await raw.accept([new(invocation_id="theirs", arguments_json=moved)])
    with pytest.raises(NotAsSealed):
        await opened.arguments_of("theirs")
    await raw.close()
    await opened.close()


async def waits(path: Path, keys: RowKeys, name: str, meta: str | None = None) -> str:
    """One call accepted, sealed; the ledger's URL."""
    url = f"sqlite:///{path / 'ledger.db'}"
    opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(keys, seals=True)
    await opened.accept([new(invocation_id=name, arguments_json=text("arguments"), meta_json=meta)])
    await opened.close()
    return url


def alter(path: Path, statement: str) -> None:
    """As who may write the database."""
    with sqlite3.connect(path / "ledger.db") as database:
        database.execute(statement)


async def test_a_call_that_does_not_open_fails_and_the_others_of_its_batch_go_on(tmp_path: Path) -> None:
    """Its key was removed from the file, or one byte of it was altered."""
    keys = new_ring("k2")
    await waits(tmp_path, new_ring("k1"), "gone")
    await waits(tmp_path, keys, "altered")
    url = await waits(tmp_path, keys, "good")
    flipped = "substr(arguments_json, 1, length(arguments_json) - 8) || 'AAAA' || substr(arguments_json, -4)"
    alter(tmp_path, f"UPDATE mcpfleet_invocations SET arguments_json = {flipped} WHERE id = 'altered'")
    opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(keys, seals=True)
    epoch = await opened.take_epoch(HOLDER, 60.0)
    found = await opened.release([release_of(one) for one in ("gone", "altered", "good")], epoch or 0)
    assert [one and one.arguments_json for one in found] == [None, None, text("arguments")]
    errors = {}
    for name in ("gone", "altered"):
        ended = await opened.get(name)
        assert ended.state is State.FAILED
        assert ended.outcome is not None
        assert ended.outcome.error is not None
        errors[name] = ended.outcome.error
        assert ended.attempts[0].ending == "failed"
    assert {one.code for one in errors.values()} == {"unopened"}
    assert "'k1'" in errors["gone"].message
    assert "MCPFLEET_KEY_FILE" in errors["gone"].message
    assert "it was changed" in errors["altered"].message
    assert [one.invocation_id for one in await opened.outstanding()] == ["good"]
    dead, _ = await opened.dead_letters(tenant=None)
    assert sorted(one.invocation_id for one in dead) == ["altered", "gone"]
    await opened.close()


async def test_a_call_whose_next_steps_do_not_open_is_listed_and_not_replayed_as_ciphertext(tmp_path: Path) -> None:
    """The page of a listing is whole; what is sealed is not accepted as what a call says."""
    url = await waits(tmp_path, new_ring("k1"), "gone", text("meta"))
    await waits(tmp_path, new_ring("k2"), "good")
    for seals in (True, False):
        opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(new_ring("k2"), seals=seals)
        listed, _ = await opened.listing(Filter())
        assert {one.id for one in listed} == {"gone", "good"}
        sealed = (await opened.get("gone")).call
        for call in (sealed, replace(sealed, arguments_json="{}"), Call(tool="git.b", then=(sealed,))):
            again = new(invocation_id="again")
            with pytest.raises(KeyMissing):
                await opened.accept([replace(again, invocation=replace(again.invocation, call=call))])
        await opened.close()


async def test_an_open_question_that_does_not_open_keeps_nobody_from_leading(ledger: SealedLedger) -> None:
    """The others are there; it is left out."""
    await ledger.accept([new(invocation_id="c1")])
    epoch = await ledger.take_epoch(HOLDER, 60.0)
    await ledger.release([release_of("c1")], epoch or 0)
    for name, keys in (("a1", new_ring("k1")), ("a2", new_ring("k2"))):
        ledger.with_keys(keys, seals=True)
        await ledger.ask_approval(
            NewApproval(name, "c1", 1, "n1", "Bash", AT, AT + 60, False, digest(text("asked")), text("asked"))
        )
    assert [row.question.id for row in await ledger.open_approvals()] == ["a2"]
    rows, _ = await ledger.approvals(None, frozenset(ApprovalState), None, 10)
    assert [row.question.id for row in rows] == ["a2"]


async def test_without_a_key_file_what_was_sealed_is_refused_and_not_handed_out(tmp_path: Path) -> None:
    """The setting went missing: nobody gets ciphertext for arguments or a result."""
    url, keys = f"sqlite:///{tmp_path / 'ledger.db'}", new_ring("k1")
    opened = (await SealedLedger.open(url, clock=SystemClock())).with_keys(keys, seals=True)
    await lived(opened)
    await opened.close()
    settings = OrchestratorSettings(database_url=url, token=SecretStr("t" * 40), join_token=SecretStr("j" * 40))
    plain = await ledger_of(settings, None, SystemClock())
    for reads in (plain.arguments_of("c2"), plain.get("c1"), plain.approval("a1", None)):
        with pytest.raises(KeyMissing, match=r"no key file is set; set MCPFLEET_KEY_FILE .* 'k1'"):
            await reads
    epoch = await plain.take_epoch(HOLDER, 60.0)
    bare = '{"said": "mcf1.k1.a.b"}'
    await plain.accept([new(invocation_id="looks", arguments_json=bare)])
    found = await plain.release([release_of("c2"), release_of("looks")], epoch or 0)
    assert [one and one.arguments_json for one in found] == [None, bare]
    assert (await plain.get("c2")).state is State.FAILED
    await plain.close()
