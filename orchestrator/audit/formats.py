"""Rows of the audit log in the forms that other systems read: JSON lines, syslog, CEF.

Pure. Source: RFC 5424 (syslog), section 6; ArcSight Common Event Format 25. Every text of a row is printable
already (`chain.clean`), so that one row is one line; what is escaped here is only what each form gives a meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version

from orchestrator.ledger.audit_values import AuditRow, Decision

FACILITY = 13
"""Log audit. Source: RFC 5424, table 1."""
SEVERITY = {Decision.REFUSED.value: 4, Decision.FAILED.value: 4}
"""Warning; all others are notices (5). Source: RFC 5424, table 2."""
NOTICE = 5
ENTERPRISE = "mcpfleet@32473"
"""Of the structured data. 32473 is the number for documentation (RFC 5612): there is none of our own."""
CEF_SEVERITY = {Decision.REFUSED.value: 6, Decision.FAILED.value: 5}
_STRUCTURED = (
    "seq",
    "epoch",
    "tenant",
    "actor",
    "credential",
    "peer",
    "action",
    "target",
    "decision",
    "trace_id",
    "hash",
)


class Form(StrEnum):
    """How a row is written."""

    JSONL = "jsonl"
    SYSLOG = "syslog"
    CEF = "cef"


def json_line(row: AuditRow) -> str:
    """All fields: what `mcpfleet audit verify --rows` reads."""
    return json.dumps(asdict(row), ensure_ascii=False, separators=(",", ":"))


def syslog(row: AuditRow, host: str) -> str:
    """One message of RFC 5424."""
    values = {name: getattr(row, name) for name in _STRUCTURED}
    data = " ".join(f'{name}="{_param(str(value))}"' for name, value in values.items() if value != "")
    message = f"{row.decision} {row.action} {row.target} by {row.actor}: {row.reason} {row.details_json}"
    return f"{_head(row, host)} [{ENTERPRISE} {data}] \ufeff{message}"


def cef(row: AuditRow, host: str) -> str:
    """One CEF event behind a header of RFC 5424."""
    head = ("CEF:0", "mcpfleet", "mcpfleet", version("mcpfleet"), row.action, f"{row.action} {row.decision}")
    fields = {
        "rt": str(row.at_us // 1000),
        "externalId": str(row.seq),
        "suser": row.actor,
        "src": row.peer,
        "act": row.action,
        "outcome": row.decision,
        "reason": row.reason,
        "cs1Label": "target",
        "cs1": row.target,
        "cs2Label": "tenant",
        "cs2": row.tenant,
        "cs3Label": "credential",
        "cs3": row.credential,
        "cs4Label": "hash",
        "cs4": row.hash,
        "cs5Label": "trace",
        "cs5": row.trace_id,
        "cs6Label": "details",
        "cs6": row.details_json,
    }
    extension = " ".join(f"{name}={_extension(value)}" for name, value in fields.items() if value)
    severity = CEF_SEVERITY.get(row.decision, 3)
    return f"{_head(row, host)} - {'|'.join(_header(part) for part in head)}|{severity}|{extension}"


def writer(form: Form, host: str) -> Callable[[AuditRow], str]:
    """What makes a line of a row."""
    made: Mapping[Form, Callable[[AuditRow], str]] = {
        Form.JSONL: json_line,
        Form.SYSLOG: lambda row: syslog(row, host),
        Form.CEF: lambda row: cef(row, host),
    }
    return made[form]


def _head(row: AuditRow, host: str) -> str:
    priority = FACILITY * 8 + SEVERITY.get(row.decision, NOTICE)
    at = datetime.fromtimestamp(row.at_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = "".join(char for char in host if char.isascii() and char.isprintable() and char != " ")[:255] or "-"
    return f"<{priority}>1 {at} {name} mcpfleet - audit"


def _param(value: str) -> str:
    """Source: RFC 5424, section 6.3.3."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _header(value: str) -> str:
    return value.replace("\\", "\\\\").replace("|", "\\|")


def _extension(value: str) -> str:
    return value.replace("\\", "\\\\").replace("=", "\\=")
