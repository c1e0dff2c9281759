"""Who owns the database alters the audit log, in every way there is; `verify` names the row each time."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from orchestrator.audit.chain import hash_of
from orchestrator.audit.checkpoint import line_of, signer_at, stated
from orchestrator.audit.log import AuditLog
from orchestrator.cli.main import run
from orchestrator.ledger.audit_values import AuditEntry, AuditRow, Decision
from orchestrator.ledger.ledger import Ledger
from orchestrator.testing.audit import MemoryBook, memory_audit
from tasks.testing.clock import FakeClock

ROWS = 12
SIGNED = 10
COLUMNS = ", ".join(field.name for field in fields(AuditRow))
Thief = Callable[[sqlite3.Connection], object]


@dataclass(frozen=True)
class Scene:
    """A database, what was kept elsewhere, and what a verification of it says."""

    folder: Path

    @property
    def database(self) -> Path:
        """As it is now."""
        return self.folder / "ledger.db"

    def hurt(self, thief: Thief) -> None:
        """The triggers are no obstacle to who owns the file."""
        with sqlite3.connect(self.database) as database:
            database.execute("DROP TRIGGER IF EXISTS mcpfleet_audit_update")
            database.execute("DROP TRIGGER IF EXISTS mcpfleet_audit_delete")
            thief(database)
        database.close()

    def verify(self, *more: str, kept: bool = True, key: str = "audit.pub") -> tuple[int, str]:
        """The command; its status and its words."""
        out, err = io.StringIO(), io.StringIO()
        away = ("--checkpoints", str(self.folder / "kept.jsonl")) if kept else ()
        source = more or ("--database", f"sqlite:///{self.database}")
        keys = ("--key", str(self.folder / key)) if key else ()
        argv = ["audit", "verify", *source, *keys, *away]
        status = run(argv, environ={"HOME": str(self.folder)}, out=out, err=err, stdin=io.BytesIO())
        return status, out.getvalue() + err.getvalue()


async def _write(folder: Path) -> None:
    clock, kept = FakeClock(), folder / "kept.jsonl"
    ledger = await Ledger.open(f"sqlite:///{folder / 'ledger.db'}", clock=clock)
    signer = signer_at(folder / "audit.key")
    (folder / "audit.pub").write_text(signer.public_pem())
    audit = AuditLog(
        books=ledger.audit, signer=signer, clock=clock, checkpoint_rows=5, keep=lambda line: _add(kept, line)
    )
    for number in range(1, ROWS + 1):
        await audit.write(AuditEntry("set_node_state", Decision.ALLOWED, "ann", target=f"n{number}"))
        clock.advance(1)
        await audit.look()
    await ledger.close()


def _add(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of twelve rows, signed at five and ten, made once."""
    import asyncio

    folder = tmp_path_factory.mktemp("audit")
    asyncio.run(_write(folder))
    return folder


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    """A copy of it."""
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


def _rows(database: sqlite3.Connection) -> list[AuditRow]:
    return [AuditRow(*row) for row in database.execute(f"SELECT {COLUMNS} FROM mcpfleet_audit ORDER BY seq")]


def _rechain(database: sqlite3.Connection, **changed: str) -> None:
    """Edit row 7 and compute all hashes after it anew: the chain is whole again."""
    prev = ""
    for row in _rows(database):
        new = replace(row, prev=prev or row.prev, **(changed if row.seq == 7 else {}))  # type: ignore[arg-type]
        new = replace(new, hash=hash_of(new))
        sql = "UPDATE mcpfleet_audit SET actor = ?, prev = ?, hash = ? WHERE seq = ?"
        database.execute(sql, (new.actor, new.prev, new.hash, row.seq))
        prev = new.hash


def _swap(database: sqlite3.Connection) -> None:
    database.execute("UPDATE mcpfleet_audit SET seq = 100 WHERE seq = 3")
    database.execute("UPDATE mcpfleet_audit SET seq = 3 WHERE seq = 4")
    database.execute("UPDATE mcpfleet_audit SET seq = 4 WHERE seq = 100")


def _rehash_one(database: sqlite3.Connection) -> None:
    row = replace(_rows(database)[6], actor="nobody")
    database.execute("UPDATE mcpfleet_audit SET actor = ?, hash = ? WHERE seq = 7", ("nobody", hash_of(row)))


def _cut(database: sqlite3.Connection) -> None:
    """With the checkpoints that would tell."""
    database.execute("DELETE FROM mcpfleet_audit WHERE seq > 8")
    database.execute("DELETE FROM mcpfleet_audit_checkpoints WHERE seq > 8")


def test_an_untouched_log_is_sound(scene: Scene) -> None:
    """And says up to which row it is signed."""
    status, said = scene.verify()
    assert status == 0, said
    assert f"sound: rows 1 to {ROWS} ({ROWS}), signed up to row {SIGNED}" in said


@pytest.mark.parametrize(
    ("thief", "named"),
    [
        pytest.param(
            lambda db: db.execute("UPDATE mcpfleet_audit SET actor = 'nobody' WHERE seq = 7"),
            "row 7 was edited",
            id="an edited row",
        ),
        pytest.param(
            lambda db: db.execute("UPDATE mcpfleet_audit SET details_json = '{\"a\":1}' WHERE seq = 12"),
            "row 12 was edited",
            id="the newest row edited",
        ),
        pytest.param(_rehash_one, "row 8 does not follow row 7", id="an edited row with its own hash anew"),
        pytest.param(
            lambda db: db.execute("DELETE FROM mcpfleet_audit WHERE seq IN (4, 5)"),
            "rows 4 to 5 were removed",
            id="rows removed in the middle",
        ),
        pytest.param(
            lambda db: db.execute("DELETE FROM mcpfleet_audit WHERE seq < 4"),
            "rows 1 to 3 were removed, and no checkpoint says that they may be",
            id="the beginning removed",
        ),
        pytest.param(_swap, "row 3 was edited", id="two rows in another order"),
        pytest.param(
            lambda db: _rechain(db, actor="nobody"),
            "the log was rewritten: row 10 is not what was signed",
            id="an edit with the whole chain anew",
        ),
        pytest.param(_cut, "rows 9 to 10 were cut off the end", id="the end cut off"),
        pytest.param(
            lambda db: db.execute("DELETE FROM mcpfleet_audit"),
            "rows 1 to 10 were cut off the end",
            id="all of it gone",
        ),
    ],
)
def test_every_alteration_is_found_at_its_row(scene: Scene, thief: Thief, named: str) -> None:
    """The command ends with 1, names the row, and says what to do."""
    scene.hurt(thief)
    status, said = scene.verify()
    assert status == 1, said
    assert named in said
    assert "ALTERED" in said
    assert "keep this database as evidence" in said


def test_without_a_key_a_whole_log_is_not_called_altered(scene: Scene) -> None:
    """Nothing signed can be checked then; what is edited is named all the same."""
    status, said = scene.verify(key="", kept=False)
    assert (status, "NOT PROVED" in said, "ALTERED" in said) == (1, True, False)
    scene.hurt(lambda db: db.execute("UPDATE mcpfleet_audit SET actor = 'nobody' WHERE seq = 3"))
    assert "ALTERED" in scene.verify(key="", kept=False)[1]


def test_a_rewritten_stretch_is_told_from_what_is_still_signed(scene: Scene) -> None:
    """Between the last checkpoint that agrees and the first that does not."""
    scene.hurt(lambda db: _rechain(db, actor="nobody"))
    assert "something in rows 6 to 10" in scene.verify()[1]


def test_a_cut_end_without_checkpoints_from_elsewhere_is_not_seen_and_said(scene: Scene) -> None:
    """What `verify` cannot know it says."""
    scene.hurt(_cut)
    status, said = scene.verify(kept=False)
    assert status == 0, said
    assert "without --checkpoints from another machine" in said


def test_a_checkpoint_of_a_foreign_key_counts_for_nothing(scene: Scene) -> None:
    """A thief who signs anew with a key of his own is named with it."""
    foreign = signer_at(scene.folder / "foreign.key")

    def forge(database: sqlite3.Connection) -> None:
        _rechain(database, actor="nobody")
        for seq, body in database.execute("SELECT seq, body_json FROM mcpfleet_audit_checkpoints").fetchall():
            (hashed,) = database.execute("SELECT hash FROM mcpfleet_audit WHERE seq = ?", (seq,)).fetchone()
            one = foreign.sign(_again(body, hash=hashed, key=foreign.key_id))
            sql = "UPDATE mcpfleet_audit_checkpoints SET body_json = ?, signature = ? WHERE seq = ?"
            database.execute(sql, (one.body_json, one.signature, seq))

    scene.hurt(forge)
    status, said = scene.verify(kept=False)
    assert status == 1, said
    assert f"signed by the key {foreign.key_id}, which is none of those given" in said


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ('"at_us":1', '"at_us":2', "its signature is not of the key"),
        ('"seq":5', '"seq":6', "its signature is not of the key"),
        ('"seq":5', '"sequel":5', "it cannot be read"),
    ],
)
def test_a_checkpoint_whose_words_were_changed_is_not_signed(scene: Scene, was: str, becomes: str, named: str) -> None:
    """The signature is over the body."""
    sql = "UPDATE mcpfleet_audit_checkpoints SET body_json = replace(body_json, ?, ?) WHERE seq = 5"
    scene.hurt(lambda db: db.execute(sql, (was, becomes)))
    status, said = scene.verify()
    assert (status, named in said) == (1, True), said


def test_a_checkpoint_of_another_log_is_named(scene: Scene, tmp_path: Path) -> None:
    """A log that was begun anew cannot show the old one's checkpoints, nor the other way."""
    kept = scene.folder / "kept.jsonl"
    signer = signer_at(scene.folder / "audit.key")
    line = json.loads(kept.read_text().splitlines()[0])
    other = signer.sign(_again(json.dumps(line["checkpoint"]), chain="0" * 64))
    _add(kept, line_of(other))
    assert "is of another log (000000000000…" in scene.verify()[1]


def test_an_export_verifies_like_the_database(scene: Scene, tmp_path: Path) -> None:
    """Away from the box, with nothing but a file; a line that was edited is found."""
    from orchestrator.audit.formats import json_line

    with sqlite3.connect(scene.database) as database:
        lines = [json_line(row) for row in _rows(database)]
    database.close()
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    assert scene.verify("--rows", str(path))[0] == 0
    path.write_text("\n".join(lines).replace('"target":"n6"', '"target":"n66"'))
    status, said = scene.verify("--rows", str(path))
    assert (status, "row 6 was edited" in said) == (1, True)
    path.write_text("\n".join([*lines[:4], lines[5], lines[4], *lines[6:]]))
    assert "row 5 comes after row 6" in scene.verify("--rows", str(path))[1]


async def test_a_flood_of_refusals_costs_a_bounded_number_of_rows() -> None:
    """However many, from however many addresses: counted, and said with their number."""
    book, clock = MemoryBook(), FakeClock()
    audit = memory_audit(book, clock)
    for number in range(5000):
        await audit.refused(AuditEntry("authenticate", Decision.REFUSED, "anonymous", peer=f"192.0.2.{number % 200}"))
    clock.advance(61)
    await audit.look()
    assert len(book.rows) == 16 + 17
    counted = [json.loads(row.details_json).get("count", 0) for row in book.rows]
    assert sum(counted) + 16 == 5000
    assert book.rows[-1].peer == "others"


def _again(body: str, **changed: str):  # noqa: ANN202
    from orchestrator.ledger.audit_values import CheckpointRow

    found = stated(CheckpointRow(0, 0, body, ""))
    assert found is not None
    return replace(found, **changed)  # type: ignore[arg-type]
