"""Large results between this node's disk and the orchestrator's store."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tasks.errors import OrchestratorDown
from worker.blobs import Blobs

TEXT = "a large result " * 1_000
NAME = sha256(TEXT.encode()).hexdigest()


@dataclass
class Store:
    """The orchestrator's; away for a while."""

    away: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)

    async def get_blob(self, sha256: str) -> bytes | None:
        """What it has."""
        return self.kept.get(sha256)

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """Once it is there."""
        if self.away:
            self.away -= 1
            raise OrchestratorDown("http://fleet", "away")
        self.kept[sha256] = data


async def test_a_kept_result_is_a_file_until_it_is_dropped(tmp_path: Path) -> None:
    """Neither a crash nor an orchestrator that is away loses it."""
    store = Store()
    blobs = Blobs(tmp_path / "results", store)
    assert await blobs.keep(TEXT) == NAME
    assert store.kept == {}
    await blobs.upload(NAME)
    assert store.kept == {NAME: TEXT.encode()}
    blobs.drop(NAME)
    assert list((tmp_path / "results").iterdir()) == []


async def test_a_result_the_disk_has_no_room_for_is_brought_to_the_store_at_once(tmp_path: Path) -> None:
    """What a tool did is not thrown away because the node's disk is full; the store may be away for a moment."""
    store = Store(away=1)
    blobs = Blobs(tmp_path / "results", store)
    (tmp_path / "results").rmdir()  # the disk refuses every write, as root too
    assert await blobs.keep(TEXT) == NAME
    assert store.kept == {NAME: TEXT.encode()}
    await blobs.upload(NAME)
