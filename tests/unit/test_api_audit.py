"""Nothing administrative without its row: the door's side of the audit log, and the log's own paths."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import httpx
import pytest

from orchestrator.api import audit as api_audit
from orchestrator.api.auditing import UNAUDITED, is_audited
from orchestrator.audit.log import AuditLog
from orchestrator.identity.doors import Authenticators
from orchestrator.identity.lockout import TRIES, LockedOut, Lockout
from orchestrator.identity.oauth.errors import BadToken, ForgedToken
from orchestrator.identity.watched import Watched
from orchestrator.ledger.audit_values import AuditRow, CheckpointRow
from orchestrator.presented import Presented
from orchestrator.testing.audit import MemoryBook, memory_audit
from orchestrator.testing.doors import CLIENT_TOKEN, OPERATOR_TOKEN, OTHER_TOKEN, FakeTokens
from orchestrator.testing.fleet import FakeFleet
from orchestrator.testing.http import door, fake_app
from tasks.errors import LedgerDown, NotAllowed
from tasks.invocation import Principal
from tasks.testing.clock import FakeClock

SECRET = "s3cr3t-in-a-body"


@pytest.fixture
def book() -> MemoryBook:
    """What was written."""
    return MemoryBook()


@pytest.fixture
def audit(book: MemoryBook) -> AuditLog:
    """The log over it."""
    return memory_audit(book)


def _said(book: MemoryBook) -> list[tuple[str, str, str, str]]:
    return [(row.actor, row.action, row.target, row.decision) for row in book.rows]


async def test_an_administrative_act_has_its_row_before_it_is_done(book: MemoryBook, audit: AuditLog) -> None:
    """Who, what, to what, with which words; and where the act fails, a second row says so."""
    async with door(token=OPERATOR_TOKEN, audit=audit) as client:
        done = await client.post("/v1/pauses", json={"kind": "project", "name": "east", "is_paused": True})
        failed = await client.post("/v1/nodes/nobody/state", json={"state": "cordoned"})
    assert (done.status_code, failed.status_code) == (204, 404)
    assert _said(book) == [
        ("operator", "pause", "east", "allowed"),
        ("operator", "set_node_state", "nobody", "allowed"),
        ("operator", "set_node_state", "nobody", "failed"),
    ]
    assert json.loads(book.rows[0].details_json) == {"is_paused": True, "kind": "project"}
    assert json.loads(book.rows[2].details_json) == {"of": 2}
    assert book.rows[2].reason == "not_found"
    assert len(book.rows[0].trace_id) == 32


async def test_what_cannot_be_audited_is_not_done(book: MemoryBook, audit: AuditLog) -> None:
    """A database that does not answer stops administration; reading goes on."""
    book.is_down = True
    fleet = FakeFleet()
    async with door(fleet, token=OPERATOR_TOKEN, audit=audit) as client:
        refused = await client.post("/v1/pauses", json={"kind": "project", "name": "east", "is_paused": True})
        read = await client.get("/v1/nodes")
    assert (refused.status_code, refused.json()["code"]) == (503, "ledger_down")
    assert read.status_code == 200
    assert not fleet._rows.paused


async def test_a_refusal_has_its_row(book: MemoryBook, audit: AuditLog) -> None:
    """Good credentials, and not for this."""
    async with door(token=CLIENT_TOKEN, audit=audit) as client:
        answer = await client.post("/v1/pauses", json={"kind": "project", "name": "east", "is_paused": True})
    assert answer.status_code == 403
    assert _said(book) == [("alice", "pause", "", "refused")]
    assert "fleet:write" in book.rows[0].reason


async def test_ordinary_calls_have_no_rows(book: MemoryBook, audit: AuditLog) -> None:
    """They are in the ledger; a row for each would be one more write on the hottest path."""
    async with door(token=CLIENT_TOKEN, audit=audit) as client:
        await client.post("/v1/invocations", json={"tool": "probe.echo", "arguments": {"text": SECRET}})
        await client.get("/v1/invocations")
    assert book.rows == []


def test_every_operation_that_changes_something_is_audited_or_says_why_not() -> None:
    """One that somebody adds is audited, without a word of his; and the list names only what there is."""
    operations = fake_app(FakeFleet()).state.operations
    changing = {operation.name for operation in operations if operation.method != "GET"}
    open_to_all = {"challenge", "open_session"}
    assert {one.name for one in operations if is_audited(one)} == changing - set(UNAUDITED) - open_to_all
    assert set(UNAUDITED) <= changing
    assert {"pause", "set_node_state", "revoke_enrolment", "issue_enrolment", "set_override", "answer_approval",
            "replay_dead", "discard_dead", "join", "create_key", "revoke_key"} <= changing - set(UNAUDITED)  # fmt: skip


async def test_rows_show_no_secret_of_a_body(book: MemoryBook, audit: AuditLog) -> None:
    """Only fields that are known to be harmless."""
    async with door(token=OPERATOR_TOKEN, audit=audit) as client:
        await client.post("/v1/dead-letters:discard", json={"ids": [SECRET, "b"]})
        await client.post("/v1/enrolments", json={"name": "vps-1", "pool": "east", "ttl_s": 600})
        key = {"name": "ci", "roles": ["agent"], "public_key": "A" * 43}
        made = await client.post("/v1/keys", json=key)
    assert made.status_code == 201
    assert [json.loads(row.details_json) for row in book.rows[:2]] == [{"ids": 2}, {"pool": "east", "ttl_s": 600}]
    assert (book.rows[2].target, json.loads(book.rows[2].details_json)["roles"]) == ("ci", "agent")
    for secret in (SECRET, "A" * 43, made.json().get("key") or SECRET):
        assert secret not in repr(book.rows)


async def test_a_stranger_cannot_fill_the_log(book: MemoryBook, audit: AuditLog) -> None:
    """What anybody may ask without a token has no row; what is refused there is counted like any refusal."""
    async with door(token=None, audit=audit) as client:
        for _ in range(50):
            said = {"key": "a" * 10, "nonce": "x" * 43, "signature": "y" * 86}
            answer = await client.post("/v1/auth/sessions", json=said)
            assert answer.status_code == 401
    assert _said(book) == [("anonymous", "open_session", "", "refused")]


async def test_the_log_is_read_by_who_may(book: MemoryBook, audit: AuditLog) -> None:
    """Filtered, in pages, either way round; not by an agent."""
    async with door(token=OPERATOR_TOKEN, audit=audit) as client:
        for pool in ("a", "b", "c"):
            await client.post("/v1/pauses", json={"kind": "project", "name": pool, "is_paused": True})
        newest = (await client.get("/v1/audit?limit=2")).json()
        rest = (await client.get(f"/v1/audit?cursor={newest['next']}")).json()
        oldest = (await client.get("/v1/audit?oldest_first=true&target=b")).json()
        signed = (await client.post("/v1/audit/checkpoints")).json()
        listed = (await client.get("/v1/audit/checkpoints")).json()["items"]
        key = (await client.get("/v1/audit/key")).json()
        wrong = await client.get("/v1/audit?decision=maybe")
    assert [row["target"] for row in newest["items"] + rest["items"]] == ["c", "b", "a"]
    assert [row["target"] for row in oldest["items"]] == ["b"]
    assert listed == [signed]
    assert key["key"] in signed["body_json"]
    assert wrong.status_code == 422
    async with door(token=CLIENT_TOKEN, audit=audit) as client:
        assert (await client.get("/v1/audit")).status_code == 403


async def test_another_tenant_sees_its_rows_alone(book: MemoryBook, audit: AuditLog) -> None:
    """And no checkpoints: those are about everybody's."""
    app = fake_app(FakeFleet(), audit=audit)
    auditor = Principal("eve", tenant="other", roles=frozenset({"auditor"}))
    tokens = FakeTokens()
    tokens._known["token-auditor"] = auditor
    verifier = Authenticators([tokens])
    for route in app.routes:
        if hasattr(route, "endpoint"):
            route.endpoint._verifier = verifier
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        say = {"kind": "project", "name": "east", "is_paused": True}
        await client.post("/v1/pauses", json=say, headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"})
        await client.post("/v1/pauses", json=say, headers={"Authorization": f"Bearer {OTHER_TOKEN}"})
        client.headers["Authorization"] = "Bearer token-auditor"
        rows = (await client.get("/v1/audit")).json()["items"]
        checkpoints = await client.get("/v1/audit/checkpoints")
    assert [(row["actor"], row["decision"]) for row in rows] == [("bob", "refused")]
    assert checkpoints.status_code == 403


class _Says:
    """An authenticator that knows one token, and one that is over."""

    async def principal(self, presented: Presented) -> Principal | None:
        """Raises NotAllowed for the old one."""
        if presented.token == "old":
            raise NotAllowed("this key expired yesterday")
        return Principal("ann") if presented.token == "good" else None


async def test_what_was_issued_once_is_no_guess(book: MemoryBook) -> None:
    """Agents behind one NAT whose tokens expire together are refused, each in the audit log, and nobody is locked.

    One that a key of its issuer did not sign is a guess.
    """

    class _Refuses:
        async def principal(self, presented: Presented) -> Principal | None:
            kind, _, text = presented.token.partition(" ")
            if kind == "good":
                return Principal("ann")
            raise {"old": BadToken, "forged": ForgedToken}.get(kind, NotAllowed)(f"it is refused {text}")

    clock = FakeClock()
    audit = memory_audit(book, clock)
    watched = Watched(Authenticators([_Refuses()]), lockout=Lockout(), audit=audit, clock=clock)
    for kind in ("old", "elsewhere"):
        for number in range(3 * TRIES):
            with pytest.raises(NotAllowed, match="it is refused"):
                await watched.verify(Presented(f"{kind} {number}", "192.0.2.3"))
    assert await watched.verify(Presented("good", "192.0.2.3")) is not None
    for number in range(TRIES):
        with pytest.raises(ForgedToken):
            await watched.verify(Presented(f"forged {number}", "192.0.2.3"))
    with pytest.raises(LockedOut):
        await watched.verify(Presented("old 0", "192.0.2.3"))
    assert [row.action for row in book.rows] == ["authenticate", "lock_out"]
    clock.advance(61)
    await audit.look()
    assert json.loads(book.rows[-1].details_json)["count"] == 7 * TRIES  # the first is a row


async def test_refused_credentials_are_counted_and_guessing_is_locked_out(book: MemoryBook) -> None:
    """The first is a row, the rest a number; the lock is a row of its own; nothing of a credential is kept."""
    clock = FakeClock()
    audit = memory_audit(book, clock)
    watched = Watched(Authenticators([_Says()]), lockout=Lockout(), audit=audit, clock=clock)
    assert await watched.verify(Presented("good", "192.0.2.1")) is not None
    with pytest.raises(NotAllowed, match="expired"):
        await watched.verify(Presented("old", "192.0.2.2"))
    for number in range(TRIES):
        assert await watched.verify(Presented(f"{SECRET}-{number}", "192.0.2.3")) is None
    with pytest.raises(NotAllowed, match="too many different"):
        await watched.verify(Presented("good", "192.0.2.3"))
    assert await watched.verify(Presented("good", "192.0.2.1")) is not None
    assert [(row.peer, row.action) for row in book.rows] == [
        ("192.0.2.2", "authenticate"),
        ("192.0.2.3", "authenticate"),
        ("192.0.2.3", "lock_out"),
    ]
    clock.advance(61)
    await audit.look()
    assert (book.rows[-1].peer, json.loads(book.rows[-1].details_json)["count"]) == ("192.0.2.3", TRIES)
    assert SECRET not in repr(book.rows)


async def test_who_sees_the_whole_log_may_have_it_looked_at(book: MemoryBook, audit: AuditLog) -> None:
    """Sound, or what is wrong at which row; nobody of another tenant may ask."""
    async with door(token=OPERATOR_TOKEN, audit=audit) as client:
        await client.post("/v1/pauses", json={"kind": "project", "name": "east", "is_paused": True})
        await client.post("/v1/pauses", json={"kind": "project", "name": "east", "is_paused": False})
        sound = await client.post("/v1/audit:verify")
        book.rows[1] = dataclasses.replace(book.rows[1], actor="somebody else")
        altered = await client.post("/v1/audit:verify")
    async with door(token=OTHER_TOKEN, audit=audit) as client:
        refused = await client.post("/v1/audit:verify")
    found = sound.json()["report"]
    assert (found["is_sound"], found["rows"], found["findings"]) == (True, 2, [])
    assert altered.json()["report"]["is_sound"] is False
    assert "row 2 was edited" in altered.json()["report"]["findings"][0]["text"]
    assert refused.status_code == 403


async def test_one_look_at_the_log_at_a_time_and_nobody_waits_for_a_long_one(
    book: MemoryBook, audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten who ask cost one look; how far it is can be asked, and what it found is there for all."""
    monkeypatch.setattr(api_audit, "VERIFIED_WITHIN_S", 0.01)
    let_go, reads = asyncio.Event(), 0
    read = book.after

    async def after(seq: int, limit: int) -> list[AuditRow]:
        nonlocal reads
        reads += 1
        await let_go.wait()
        return await read(seq, limit)

    async with door(token=OPERATOR_TOKEN, audit=audit) as client:
        assert (await client.get("/v1/audit:verify")).json()["began_at"] is None
        await client.post("/v1/pauses", json={"kind": "project", "name": "east", "is_paused": True})
        monkeypatch.setattr(book, "after", after)
        for _ in range(3):
            begun = (await client.post("/v1/audit:verify")).json()
            assert (begun["is_running"], begun["report"]) == (True, None)
        let_go.set()
        async with asyncio.timeout(60.0):
            await audit.checks.ended(60.0)
        ended = (await client.get("/v1/audit:verify")).json()
    assert (ended["is_running"], ended["rows"], ended["report"]["is_sound"]) == (False, 1, True)
    assert reads == 2


async def test_a_look_that_does_not_come_to_its_end_says_why(
    book: MemoryBook, audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one begins anew."""

    async def away() -> list[CheckpointRow]:
        raise LedgerDown("the disk is full")

    async with door(token=OPERATOR_TOKEN, audit=audit) as client:
        with monkeypatch.context() as patch:
            patch.setattr(book, "checkpoints", away)
            failed = (await client.post("/v1/audit:verify")).json()
        good = (await client.post("/v1/audit:verify")).json()
    assert (failed["is_running"], failed["report"], "the disk is full" in failed["error"]) == (False, None, True)
    assert (good["error"], good["report"]["is_sound"]) == ("", True)
