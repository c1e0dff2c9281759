"""The audit log in the ledger: appended in order, chained, signed, sealed, and by the leader alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from orchestrator.assembly import fleet_of, views_of
from orchestrator.audit.checkpoint import Signer, public_keys, read_line, signer_at
from orchestrator.audit.log import AuditLog
from orchestrator.audit.verify import Report, verify
from orchestrator.ledger.audit_values import AuditEntry, AuditFilter, Decision
from orchestrator.ledger.database import connect
from orchestrator.ledger.errors import EpochLost
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import HOLDER
from orchestrator.settings import OrchestratorSettings
from orchestrator.testing.protocol import SAFE, UNSAFE, Story
from tasks.invocation import Call, Principal
from tasks.testing.clock import FakeClock

DAY_S = 86_400.0
CORDON = AuditEntry("node.state", Decision.ALLOWED, "ann", target="n1", details={"state": "cordoned"})


class Kept:
    """What left the box."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """The key of a first start."""
    return signer_at(tmp_path / "keys" / "audit.key")


async def _look_at(ledger: Ledger, kept: Kept, signer: Signer) -> Report:
    rows = await ledger.audit.after(0, 10_000)
    return verify(
        rows,
        await ledger.audit.checkpoints(),
        [read_line(line) for line in kept.lines],
        public_keys(signer.public_pem()),
    )


async def test_what_is_told_is_kept_in_order_and_signed(ledger: Ledger, clock: FakeClock, signer: Signer) -> None:
    """A leader's first row names the log; a checkpoint agrees, here and elsewhere."""
    kept = Kept()
    audit = AuditLog(books=ledger.audit, signer=signer, clock=clock, keep=kept)
    await audit.begin(1)
    for number in range(5):
        await audit.write(replace(CORDON, target=f"n{number}", reason="\0 \ud800 over\nlines " + "x" * 900))
    await audit.checkpoint()
    report = await _look_at(ledger, kept, signer)
    assert report.findings == []
    assert (report.rows, report.last, report.signed_up_to, report.checkpoints) == (6, 6, 6, 2)
    rows, cursor = await ledger.audit.listing(AuditFilter(action="node."), None, 2)
    assert [row.target for row in rows] == ["n4", "n3"]
    assert [row.target for row in (await ledger.audit.listing(AuditFilter(action="node."), cursor, 2))[0]] == [
        "n2",
        "n1",
    ]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"actor": "ann"}, 2),
        ({"actor": "bob"}, 1),
        ({"action": "node.state"}, 2),
        ({"action": "node_"}, 0),
        ({"target": "n1"}, 3),
        ({"decision": "refused"}, 1),
        ({"tenant": "acme"}, 1),
        ({"since_us": 1_800_000_000_000_000 + 60_000_000}, 1),
        ({"until_us": 1_800_000_000_000_000 + 60_000_000}, 2),
    ],
)
async def test_rows_are_found(
    ledger: Ledger, clock: FakeClock, signer: Signer, where: dict[str, object], found: int
) -> None:
    """By actor, beginning of the action, target, decision, tenant and time."""
    audit = AuditLog(books=ledger.audit, signer=signer, clock=clock)
    await audit.write(CORDON, replace(CORDON, actor="bob", tenant="acme", decision=Decision.REFUSED, action="x"))
    clock.advance(60)
    await audit.write(CORDON)
    rows, _ = await ledger.audit.listing(AuditFilter(**where), None, 10)  # type: ignore[arg-type]
    assert len(rows) == found


async def test_many_rows_or_much_time_make_a_checkpoint(ledger: Ledger, clock: FakeClock, signer: Signer) -> None:
    """And nothing new makes none."""
    kept = Kept()
    audit = AuditLog(books=ledger.audit, signer=signer, clock=clock, keep=kept, checkpoint_rows=3, checkpoint_s=300)
    await audit.write(CORDON)
    await audit.look()
    assert kept.lines == []
    await audit.write(CORDON, CORDON)
    await audit.look()
    assert len(kept.lines) == 1
    clock.advance(301)
    await audit.look()
    assert len(kept.lines) == 1
    await audit.write(CORDON)
    await audit.look()
    assert len(kept.lines) == 1
    clock.advance(301)
    await audit.look()
    assert len(kept.lines) == 2
    await audit.write(CORDON)
    await audit.close()
    assert len(kept.lines) == 3
    assert (await _look_at(ledger, kept, signer)).signed_up_to == 6


async def test_a_superseded_leader_writes_no_row(ledger: Ledger, clock: FakeClock, signer: Signer) -> None:
    """The epoch guard of the ledger's own writes is before these too."""
    audit = AuditLog(books=ledger.audit, signer=signer, clock=clock)
    epoch = await ledger.take_epoch(HOLDER, 10.0)
    assert epoch is not None
    ledger.fence(epoch - 1)
    with pytest.raises(EpochLost):
        await audit.write(CORDON)
    await audit.refused(replace(CORDON, decision=Decision.REFUSED))
    await audit.close()
    assert await ledger.audit.after(0, 10) == []


async def test_rows_past_their_days_are_sealed_first(ledger: Ledger, clock: FakeClock, signer: Signer) -> None:
    """What is left verifies from the seal on; without the seal the gap is named."""
    kept = Kept()
    audit = AuditLog(books=ledger.audit, signer=signer, clock=clock, keep=kept, retention_days=30)
    await audit.begin(1)
    await audit.write(CORDON, CORDON)
    await audit.checkpoint()
    clock.advance(31 * DAY_S)
    await audit.write(CORDON)
    await audit.look()
    rows = await ledger.audit.after(0, 10)
    assert [row.action for row in rows] == ["node.state", "audit.seal"]
    report = await _look_at(ledger, kept, signer)
    assert report.findings == []
    assert (report.first, report.last, report.signed_up_to) == (4, 5, 5)
    await audit.look()
    assert len(await ledger.audit.after(0, 10)) == 2
    again = AuditLog(books=ledger.audit, signer=signer, clock=clock, keep=kept)
    await again.begin(2)
    await again.checkpoint()
    assert (await _look_at(ledger, kept, signer)).findings == []
    bare = verify(rows, [], [], public_keys(signer.public_pem()))
    assert "rows 1 to 3 were removed, and no checkpoint" in bare.findings[0].text


@pytest.mark.parametrize(
    "statement",
    ["UPDATE mcpfleet_audit SET actor = 'nobody' WHERE seq = 1", "DELETE FROM mcpfleet_audit WHERE seq = 1"],
)
async def test_the_database_itself_refuses_to_change_rows(
    ledger: Ledger, ledger_url: str, clock: FakeClock, signer: Signer, statement: str
) -> None:
    """A trigger: against mistakes. Who owns the database can drop it, and then the chain tells."""
    await AuditLog(books=ledger.audit, signer=signer, clock=clock).write(CORDON, CORDON)
    engine = connect(ledger_url, busy_timeout_s=5).engine
    with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(sa.text(statement))
    engine.dispose()
    assert len(await ledger.audit.after(0, 10)) == 2


async def test_a_log_that_lost_its_end_is_noticed_at_the_start(
    ledger: Ledger, clock: FakeClock, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest checkpoint names a row that is not there: said loudly, and the fleet works on."""
    audit = AuditLog(books=ledger.audit, signer=signer, clock=clock)
    await audit.write(CORDON, CORDON)
    signed = await audit.checkpoint()
    assert signed is not None
    await ledger.audit.sign(replace(signed, seq=9, body_json=signed.body_json.replace('"seq":2', '"seq":9')))
    await AuditLog(books=ledger.audit, signer=signer, clock=clock).begin(2)
    assert "audit_log_altered" in capsys.readouterr().out


async def test_calls_of_named_tools_have_a_row_before_they_are_accepted(story: Story) -> None:
    """By pattern; the others have none, and arguments are in none."""
    settings = OrchestratorSettings.model_validate({"token": "t", "join_token": "j", "audit_calls": "no.*, *.write"})
    await story.join("a1")
    fleet = fleet_of(story.core, views_of(story.core), settings)
    who = Principal("ann", roles=frozenset({"admin"}))
    before = len(await story.core.stores.ledger.audit.after(0, 100))
    accepted = await fleet.accept([Call(SAFE, '{"x": "s3cr3t"}'), Call(UNSAFE)], who)
    rows = (await story.core.stores.ledger.audit.after(0, 100))[before:]
    assert [(row.action, row.actor, row.target) for row in rows] == [("call", "ann", accepted[1].id)]
    assert "s3cr3t" not in repr(rows)
