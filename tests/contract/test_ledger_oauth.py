"""What the ledger keeps for the authorization server, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.oauth_values import ASSERTION, TOKEN, ClientRow, SigningKeyRow, SpentRow
from orchestrator.ledger.testing import AT
from tasks.testing.clock import FakeClock

CLIENT = ClientRow(
    id="client-1",
    name="ci",
    tenant="acme",
    roles="agent",
    scopes=None,
    groups="",
    secret_digest="d",
    previous_digest=None,
    previous_until=None,
    jwk_json=None,
    created_at=AT,
    created_by="operator",
    revoked_at=None,
)


async def test_clients_come_back_as_they_were_saved(ledger: Ledger) -> None:
    """Saved again, the newest word stands."""
    await ledger.oauth.save_client(CLIENT)
    changed = replace(CLIENT, scopes="tools:read", secret_digest=None, revoked_at=AT + 1)
    await ledger.oauth.save_client(changed)
    assert await ledger.oauth.clients() == [changed]


async def test_keys_are_added_and_forgotten_together(ledger: Ledger) -> None:
    """A rotation that withdraws leaves one key, never none."""
    first, second = SigningKeyRow("k1", AT, AT, "sealed"), SigningKeyRow("k2", AT, AT + 1, "sealed")
    await ledger.oauth.save_key(first)
    await ledger.oauth.save_key(second, ["k1"])
    assert await ledger.oauth.keys() == [second]
    await ledger.oauth.forget_keys(["k2"])
    assert await ledger.oauth.keys() == []


async def test_an_id_is_spent_once_among_racers(ledger: Ledger, clock: FakeClock) -> None:
    """Twenty at once: one wins. Of another kind it is another id; when its time is over it is forgotten."""
    row = SpentRow(ASSERTION, "client-1 a", clock.wall_s() + 60)
    won = await asyncio.gather(*(ledger.oauth.spend(row) for _ in range(20)))
    assert sorted(won) == [False] * 19 + [True]
    assert await ledger.oauth.spend(replace(row, kind=TOKEN))
    assert [one.id for one in await ledger.oauth.spent(TOKEN)] == ["client-1 a"]
    clock.advance(61)
    assert await ledger.oauth.spend(SpentRow(ASSERTION, "other", clock.wall_s() + 60))
    assert await ledger.oauth.spent(TOKEN) == []
