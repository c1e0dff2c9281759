"""What the kernel does by itself while a machine's network is taken away."""

from __future__ import annotations

import pytest

from orchestrator.autoscaler.cloud.nspawn import network
from orchestrator.autoscaler.cloud.nspawn.command import CommandFailed


def _kernel(monkeypatch: pytest.MonkeyPatch, *looks: set[str]) -> None:
    """It lists these links, look after look, and refuses to delete any."""
    left = list(looks)

    async def links() -> set[str]:
        return left.pop(0)

    async def refused(*words: str) -> str:
        raise CommandFailed(words, "Cannot find device")

    monkeypatch.setattr(network, "_links", links)
    monkeypatch.setattr(network, "run", refused)


async def test_a_cable_that_went_with_its_namespace_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was listed, and gone before it could be deleted: that is what was wanted."""
    _kernel(monkeypatch, {"cable"}, set())
    await network._remove("cable")


async def test_a_cable_that_stays_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked hears that it is still there."""
    _kernel(monkeypatch, {"cable"}, {"cable"})
    with pytest.raises(CommandFailed):
        await network._remove("cable")
