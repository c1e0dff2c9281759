"""The audit log: who did what, when, and how it was decided; and whether the log is what was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from orchestrator.console.links import kept, moment, pages
from orchestrator.console.page import Page, Visit
from tasks.invocation import FLEET_TENANT
from tasks.scopes import Scope
from tasks.wire import Page as Listing
from tasks.wire_audit import AuditReportView, AuditRowView

HERE = "/audit"
FILTERS = ("actor", "action", "target", "decision", "since", "until")
DECISIONS = ("allowed", "refused", "failed", "noted")
ROWS = 50


async def load(visit: Visit) -> Mapping[str, Any]:
    """A page of rows, newest first."""
    said = kept(visit, *FILTERS, "cursor")
    query: dict[str, str | float | None] = {**said, "limit": ROWS}
    for name in ("since", "until"):
        query[name] = moment(said.get(name, ""), visit.now_s)
    rows = await visit.api.get("/v1/audit", Listing[AuditRowView], query)
    older, newest = pages(visit, HERE, rows.next, FILTERS)
    return {
        "rows": [(row, details(row)) for row in rows.items],
        "older": older,
        "newest": newest,
        "decisions": DECISIONS,
        "is_filtered": bool(kept(visit, *FILTERS)),
        "sees_all": visit.me.tenant == FLEET_TENANT,
    }


async def load_report(visit: Visit) -> Mapping[str, Any]:
    """Every row is looked at, now: some seconds for a hundred thousand."""
    return {"report": await visit.api.post("/v1/audit:verify", AuditReportView)}


def details(row: AuditRowView) -> str:
    """A row's small form as `name value`."""
    form = orjson.loads(row.details_json)
    return (
        ", ".join(f"{name} {_word(value)}" for name, value in form.items())
        if isinstance(form, dict)
        else row.details_json
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


PAGES = (
    Page(f"{HERE}/verify", "Verify", "audit_report.html", load_report, scope=Scope.AUDIT_READ, is_live=False),
    Page(HERE, "Audit", "audit.html", load, scope=Scope.AUDIT_READ, group="Records", is_live=False),
)
