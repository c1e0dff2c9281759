"""Where `mcpfleet audit verify` reads a log: a running fleet, a database, or an export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.audit.checkpoint import read_line
from orchestrator.cli.api import Api, Params
from orchestrator.cli.checkup_ledger import read_only
from orchestrator.cli.desk import Desk
from orchestrator.cli.exits import BadInput
from orchestrator.ledger import audit_rows
from orchestrator.ledger.audit_values import AuditRow, CheckpointRow
from tasks.errors import LedgerDown
from tasks.wire_audit import AuditKeyView, AuditRowView, CheckpointView

API_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """A log, in the order of writing. `key_pem`: the key it names itself."""

    rows: Iterable[AuditRow]
    checkpoints: Sequence[CheckpointRow]
    key_pem: str | None = None


@contextmanager
def opened(desk: Desk, database: str | None, rows: Path | None) -> Iterator[Source]:
    """The one that is meant.

    Raises:
        BadInput: a file that is none, or holds something else.
        LedgerDown: the database does not answer.
    """
    if rows is not None:
        yield Source(_exported(rows), [])
    elif database is not None:
        with _database(database) as source:
            yield source
    else:
        with desk.api() as api:
            signed = api.pages("/v1/audit/checkpoints", CheckpointView)
            yield Source(
                rows_of(api, {}),
                [CheckpointRow(**one.model_dump()) for one in signed],
                api.get("/v1/audit/key", AuditKeyView).pem,
            )


def rows_of(api: Api, params: Params) -> Iterator[AuditRow]:
    """A fleet's rows, in the order of writing."""
    asked: Params = {**params, "oldest_first": "true", "limit": API_PAGE}
    for view in api.pages("/v1/audit", AuditRowView, asked):
        yield AuditRow(**view.model_dump())


def kept_in(path: Path) -> list[CheckpointRow]:
    """Checkpoints, one to a line. Raises BadInput, InvalidCall."""
    return [read_line(line) for line in text_of(path).splitlines() if line.strip()]


def text_of(path: Path) -> str:
    """Raises BadInput: it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _exported(path: Path) -> Iterator[AuditRow]:
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line:
            continue
        try:
            yield AuditRow(**AuditRowView.model_validate(json.loads(line), strict=True).model_dump())
        except (ValueError, ValidationError, RecursionError) as error:
            raise BadInput(f"{path}, line {number} is no row of an audit log: {line[:80]!r}") from error


@contextmanager
def _database(url: str) -> Iterator[Source]:
    try:
        engine = create_engine(read_only(url))
        try:
            with engine.connect() as connection:
                yield Source(_all(connection), audit_rows.checkpoints(connection))
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError, ImportError) as error:
        detail = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise LedgerDown(f"{detail}; --database takes sqlite:////PATH or postgresql+psycopg://HOST/NAME") from error


def _all(connection: Connection) -> Iterator[AuditRow]:
    after = 0
    while rows := audit_rows.ascending(connection, after, API_PAGE):
        yield from rows
        after = rows[-1].seq
