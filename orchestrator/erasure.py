"""Forgetting a project: calls, results, blobs that nobody else has, capsules and secrets; and saying what is left.

Owns the order: rows first, then the blobs that no row refers to any more. Refuses to touch what was spent and what
was done: money has to add up, and an audit that can be erased is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from orchestrator.ledger.erase import Erased
from tasks.clock import Clock
from tasks.erasure_wire import ErasureView
from tasks.errors import InvalidProject, ReservedProject
from tasks.invocation import PROJECT_PATTERN, Principal
from tasks.secret_wire import SecretView
from tasks.secretref import TENANT_ITSELF

log = structlog.get_logger("mcpfleet.erasure")
SLICE_ROWS = 200
PAUSE_S = 0.05
FRESH_S = 600.0
"""A blob that was stored so lately may be another call's, whose row is not committed yet: the daily sweep takes it."""
REFERENCES_PAGE = 5000
KEPT = (
    "what was spent on models, by call and project: money has to add up (MCPFLEET_RETENTION_SPEND_DAYS)",
    "the audit and the logs: who did what, without arguments and results",
    "on nodes: mirrors, workspaces and sessions of the project's agents, below their state folders",
    "blobs stored within the last ten minutes, or that other calls refer to; the daily sweep takes the rest",
    "free pages of the database's file, until they are written over (VACUUM), and its backups",
)


class Books(Protocol):
    """The ledger."""

    async def erase(self, tenant: str, project: str, after: int, limit: int) -> Erased: ...
    async def blob_references(self, *, after: int, limit: int) -> tuple[list[str], int | None]: ...


class Blobs(Protocol):
    """The blob store."""

    async def forget(self, *, older_than: float, is_kept: Callable[[str], bool]) -> int: ...


class Secrets(Protocol):
    """The secrets."""

    async def listing(self, principal: Principal, owner: str | None = None) -> list[SecretView]: ...
    async def delete(self, owner: str, name: str, principal: Principal) -> None: ...


class Erasure:
    """Of one project of one tenant at a time."""

    def __init__(self, *, books: Books, blobs: Blobs, secrets: Secrets, clock: Clock, pause_s: float = PAUSE_S) -> None:
        self._books, self._blobs, self._secrets = books, blobs, secrets
        self._clock, self._pause_s = clock, pause_s

    async def erase(self, project: str, principal: Principal) -> ErasureView:
        """Everything of it that has ended. Saying it again goes on where it was cut off.

        Raises:
            InvalidProject: no project has that name.
            ReservedProject: secrets of that owner are the tenant's own. Delete those one by one.
            LedgerDown: part of it may be gone; say it again.
        """
        if not PROJECT_PATTERN.fullmatch(project):
            raise InvalidProject(project)
        if project == TENANT_ITSELF:
            raise ReservedProject(project)
        older_than = self._clock.wall_s() - FRESH_S
        calls = still_open = 0
        named: set[str] = set()
        after: int | None = 0
        while after is not None:
            erased = await self._books.erase(principal.tenant, project, after, SLICE_ROWS)
            calls, still_open, after = calls + erased.calls, still_open + erased.open, erased.after
            named |= erased.blobs
            await asyncio.sleep(self._pause_s if after is not None else 0)
        blobs = await self._forget(named, older_than) if named else 0
        secrets = await self._secrets.listing(principal, project)
        for one in secrets:
            await self._secrets.delete(one.owner, one.name, principal)
        log.info("project_erased", project=project, tenant=principal.tenant, by=principal.id, calls=calls, blobs=blobs)
        return ErasureView(
            project=project, calls=calls, blobs=blobs, secrets=len(secrets), still_open=still_open, kept=KEPT
        )

    async def _forget(self, named: set[str], older_than: float) -> int:
        referred: set[str] = set()
        after: int | None = 0
        while after is not None:
            digests, after = await self._books.blob_references(after=after, limit=REFERENCES_PAGE)
            referred.update(named.intersection(digests))
        return await self._blobs.forget(
            older_than=older_than, is_kept=lambda digest: digest not in named or digest in referred
        )
