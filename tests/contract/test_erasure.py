"""Forgetting a project: all that has ended of it, nothing of its neighbours, and a word about what is left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.blobs.disk import DiskBlobs
from orchestrator.erasure import FRESH_S, Erasure
from orchestrator.ledger.erase import ErasedRows
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import HOLDER, failure, new, release_of, success
from orchestrator.testing.secrets import memory_secrets
from tasks.clock import SystemClock
from tasks.errors import InvalidProject, NotFound, ReservedProject
from tasks.invocation import Principal
from tasks.outcome import Outcome
from tasks.secret_wire import SecretRequest
from tasks.testing.clock import FakeClock

ANN, EVE = Principal(id="ann", tenant="default"), Principal(id="eve", tenant="evil")


class Field:
    """A ledger, a store, secrets, and the eraser of all three."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        clock = FakeClock()
        self.ledger, self.blobs, self.secrets = ledger, DiskBlobs(folder), memory_secrets()
        self.eraser = Erasure(
            books=ErasedRows(ledger), blobs=self.blobs, secrets=self.secrets, clock=clock, pause_s=0.0
        )
        self.now, self.old = clock.wall_s(), clock.wall_s() - 2 * FRESH_S
        self.folder = folder

    async def blob(self, text: str) -> str:
        """One that was stored a while ago."""
        digest = await self.blobs.put(text.encode())
        os.utime(self.folder / digest[:2] / digest[2:], (self.old, self.old))
        return digest

    async def ended(self, name: str, *, project: str = "shop", tenant: str = "default", blob: str) -> None:
        """A call with a result in the store."""
        await self.ledger.accept([new(invocation_id=name, project=project, tenant=tenant)])
        epoch = await self.ledger.take_epoch(HOLDER, 60.0)
        await self.ledger.release([release_of(name)], epoch or 0)
        outcome = Outcome("succeeded", result_blob=await self.blob(blob))
        await self.ledger.settle([replace(success(name), outcome=outcome)])

    async def has(self, text: str) -> bool:
        """Whether that blob is there."""
        try:
            await self.blobs.get(hashlib.sha256(text.encode()).hexdigest())
        except NotFound:
            return False
        return True

    async def knows(self, name: str) -> bool:
        """Whether that call is there."""
        try:
            await self.ledger.get(name)
        except NotFound:
            return False
        return True


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    """On SQLite."""
    ledger = await Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock=SystemClock())
    yield Field(ledger, tmp_path / "blobs")
    await ledger.close()


async def test_a_project_is_gone_and_its_neighbours_are_not(field: Field) -> None:
    """Another project's, another tenant's of the same name, and a blob that one of them has too."""
    await field.ended("a", blob="own")
    await field.ended("b", blob="shared")
    await field.ended("c", project="other", blob="shared")
    await field.ended("d", tenant="evil", blob="evil's")
    view = await field.eraser.erase("shop", ANN)
    assert (view.calls, view.blobs, view.still_open) == (2, 1, 0)
    assert [await field.knows(name) for name in "abcd"] == [False, False, True, True]
    assert [await field.has(text) for text in ("own", "shared", "evil's")] == [False, True, True]
    assert any("money" in one for one in view.kept)
    assert (await field.eraser.erase("shop", ANN)).calls == 0


async def test_what_has_not_ended_stays_and_is_said(field: Field) -> None:
    """Its node still has it; dead letters of what ended badly go."""
    await field.ended("a", blob="own")
    await field.ledger.accept([new(invocation_id="w", project="shop"), new(invocation_id="f", project="shop")])
    epoch = await field.ledger.take_epoch(HOLDER, 60.0)
    await field.ledger.release([release_of("f")], epoch or 0)
    await field.ledger.settle([failure("f")])
    view = await field.eraser.erase("shop", ANN)
    assert (view.calls, view.still_open) == (2, 1)
    assert await field.knows("w")
    assert (await field.ledger.dead_letters(tenant="default"))[0] == []


async def test_more_than_one_slice_is_erased(field: Field) -> None:
    """Hundreds of calls, a slice at a time."""
    ids = [f"n{number:03}" for number in range(450)]
    await field.ledger.accept([new(invocation_id=one, project="shop", expires_at=1.0) for one in ids])
    await field.ledger.expire(ids, 2.0)
    assert (await field.eraser.erase("shop", ANN)).calls == 450


async def test_its_secrets_go_and_another_tenant_s_stay(field: Field) -> None:
    """Of the owner with the project's name."""
    wanted = SecretRequest.model_validate({"value": "x", "nodes": ("n1",)})
    for who in (ANN, EVE):
        await field.secrets.put("shop", "key", wanted, who)
    await field.secrets.put("other", "key", wanted, ANN)
    assert (await field.eraser.erase("shop", ANN)).secrets == 1
    assert [one.owner for one in await field.secrets.listing(ANN)] == ["other"]
    assert len(await field.secrets.listing(EVE)) == 1


async def test_a_blob_that_was_just_stored_stays_for_the_daily_sweep(field: Field) -> None:
    """It may be another call's, whose row is not there yet."""
    await field.ended("a", blob="own")
    digest = hashlib.sha256(b"own").hexdigest()
    os.utime(field.folder / digest[:2] / digest[2:], (field.now, field.now))
    assert (await field.eraser.erase("shop", ANN)).blobs == 0
    assert await field.has("own")


async def test_a_name_that_is_none_is_refused(field: Field) -> None:
    """Before anything is looked for."""
    with pytest.raises(InvalidProject):
        await field.eraser.erase("Shop/..", ANN)


async def test_the_tenants_own_secrets_are_no_projects(field: Field) -> None:
    """A project of that name would take them with it."""
    await field.secrets.put("tenant", "key", SecretRequest.model_validate({"value": "x", "nodes": ("n1",)}), ANN)
    with pytest.raises(ReservedProject, match="the tenant's own"):
        await field.eraser.erase("tenant", ANN)
    assert len(await field.secrets.listing(ANN)) == 1
