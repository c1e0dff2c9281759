"""Copying a blob store beside a ledger's copy, and looking whether every byte of it is still there.

Blobs are whole or absent and never change, so they are copied while others are stored; only the wrapping of a sealed
one may be renewed meanwhile, and either form opens. Sealed ones stay sealed. Refuses to know who refers to a blob.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEALED = ".s"
SUMS = "blobs.sha256"


@dataclass(frozen=True, slots=True)
class Copied:
    """How many, how large, and their digests."""

    files: int
    size_bytes: int
    digests: frozenset[str]


def copy_blobs(store: Path, folder: Path) -> Copied:
    """Into `folder/blobs`, with a list of sums for `sha256sum --check`. What is deleted meanwhile is passed over."""
    digests, size_bytes = set(), 0
    target = folder / "blobs"
    target.mkdir(mode=0o700)
    with (folder / SUMS).open("w") as sums:
        for path in _files(store):
            place = target / path.parent.name / path.name
            place.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                shutil.copyfile(path, place)
            except FileNotFoundError:
                continue
            _sync(place)
            sums.write(f"{_sum_of(place)}  blobs/{path.parent.name}/{path.name}\n")
            digests.add(_digest_of(path))
            size_bytes += place.stat().st_size
        sums.flush()
        os.fsync(sums.fileno())
    return Copied(len(digests), size_bytes, frozenset(digests))


def broken_blobs(folder: Path) -> tuple[int, list[str]]:
    """How many there are, and which are not what was copied."""
    broken, known = [], 0
    for line in (folder / SUMS).read_text().splitlines():
        wanted, _, name = line.partition("  ")
        path, known = folder / name, known + 1
        if not path.is_file() or _sum_of(path) != wanted or _is_other(path):
            broken.append(name)
    return known, broken


def put_blobs_back(folder: Path, store: Path) -> int:
    """Into the store, where they are not there already; how many. They count as stored now, so nobody forgets them."""
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = 0
    for path in _files(folder / "blobs"):
        place = store / path.parent.name / path.name
        if place.exists():
            os.utime(place)
            continue
        place.parent.mkdir(mode=0o700, exist_ok=True)
        aside = place.with_name(f"{place.name}.restoring")
        shutil.copyfile(path, aside)
        aside.chmod(0o600)
        _sync(aside)
        aside.replace(place)
        new += 1
    return new


def _files(store: Path) -> Iterator[Path]:
    """Blobs, not drafts: two hex digits a shelf."""
    found = sorted(store.glob("[0-9a-f][0-9a-f]/*"))
    return (path for path in found if path.suffix in {"", SEALED} and path.is_file())


def _digest_of(path: Path) -> str:
    return path.parent.name + path.name.removesuffix(SEALED)


def _is_other(path: Path) -> bool:
    """A plain one is named after its bytes."""
    return path.suffix != SEALED and _sum_of(path) != _digest_of(path)


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
