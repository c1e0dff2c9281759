"""API keys: their text, their life, and who may give what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.identity import key_text, keys
from orchestrator.identity.key_errors import (
    KeyElsewhere,
    KeyExpired,
    KeyReplaced,
    KeyTooYoung,
    MoreThanOwn,
    NoSuchKey,
    TooManyKeys,
)
from orchestrator.identity.keys import OVERLAP_S, Keys
from orchestrator.ledger.key_values import IssuedKey, WantedKey
from orchestrator.presented import Presented
from orchestrator.testing.doors import MemoryKeys
from tasks.errors import LedgerDown
from tasks.invocation import Principal
from tasks.scopes import Role, Scope, ScopeMissing
from tasks.testing.clock import FakeClock

DAY_S = 86_400.0
ADMIN = Principal("root", roles=frozenset({Role.ADMIN}))
ACME_ADMIN = Principal("boss", "acme", frozenset({Role.ADMIN}))
WANTED = WantedKey("ci", "ci-bot", "default", frozenset({Role.AGENT}), None, lifetime_s=30 * DAY_S)


class Desk:
    """Keys, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock, self.store = FakeClock(), MemoryKeys()
        self.keys = Keys(store=self.store, clock=self.clock)

    async def issued(self, by: Principal = ADMIN, **changes: object) -> IssuedKey:
        """A key."""
        return await self.keys.issue(replace(WANTED, **changes), by)  # type: ignore[arg-type]

    async def who(self, key: str | None, peer: str = "192.0.2.7") -> Principal | None:
        """Whoever shows this."""
        return await self.keys.principal(Presented(key or "", peer))


@pytest.fixture
def desk() -> Desk:
    """A desk."""
    return Desk()


def test_a_key_names_itself_and_checks_itself() -> None:
    """A mistyped key, or one of another form, is refused without a look-up."""
    key_id = key_text.new_id()
    key = key_text.new_key(key_id)
    assert key_text.id_of(key) == key_id
    for at in range(len(key)):
        other = key[:at] + ("x" if key[at] != "x" else "y") + key[at + 1 :]
        assert key_text.id_of(other) is None
    for junk in ("", key[:-1], f"{key}\n", f" {key}", key.upper(), "mcf_live_"):
        assert key_text.id_of(junk) is None


async def test_a_key_is_who_it_was_made_for(desk: Desk) -> None:
    """And the ledger has a digest only."""
    issued = await desk.issued(scopes=frozenset({Scope.TOOLS_READ}), groups=frozenset({"ml"}))
    who = await desk.who(issued.key)
    assert who == Principal(
        "ci-bot",
        "default",
        frozenset({"agent"}),
        frozenset({"tools:read"}),
        frozenset({"ml"}),
        credential=f"key:{issued.row.id}",
    )
    assert issued.key is not None
    assert issued.key not in str(desk.store.rows)
    assert issued.key.split("_")[3] not in str(desk.store.rows)


async def test_another_secret_under_a_known_id_is_nobody(desk: Desk) -> None:
    """The id is no secret."""
    issued = await desk.issued()
    assert await desk.who(key_text.new_key(issued.row.id)) is None
    assert await desk.who(key_text.new_key(key_text.new_id())) is None


async def test_a_restart_knows_the_same_keys(desk: Desk) -> None:
    """All of it is in the ledger; a key revoked elsewhere is gone."""
    kept, gone = await desk.issued(), await desk.issued()
    await desk.keys.revoke(gone.row.id, ADMIN)
    again = Keys(store=desk.store, clock=desk.clock)
    again.restore(desk.store.rows.values())
    assert (await again.principal(Presented(kept.key or ""))) is not None
    assert (await again.principal(Presented(gone.key or ""))) is None


async def test_an_expired_key_says_so(desk: Desk) -> None:
    """Its holder should know what to mend."""
    issued = await desk.issued()
    desk.clock.advance(30 * DAY_S)
    with pytest.raises(KeyExpired, match="use its successor"):
        await desk.who(issued.key)


async def test_a_holder_rotates_when_it_is_due(desk: Desk) -> None:
    """Both work for a while, then the successor alone; day 27 of 30, and at most three days of both."""
    issued = await desk.issued()
    desk.clock.advance(26.9 * DAY_S)
    with pytest.raises(KeyTooYoung):
        await desk.keys.rotate(issued.row.id, ADMIN, is_own=True)
    desk.clock.advance(0.2 * DAY_S)
    successor = await desk.keys.rotate(issued.row.id, ADMIN, is_own=True)
    assert await desk.who(issued.key) == replace(
        await desk.who(successor.key) or ADMIN, credential=f"key:{issued.row.id}"
    )
    desk.clock.advance(2.95 * DAY_S)
    with pytest.raises(KeyExpired):
        await desk.who(issued.key)
    assert await desk.who(successor.key) is not None


async def test_a_lost_answer_leaves_one_successor(desk: Desk) -> None:
    """Asked again, the successor that nobody ever used is replaced; a used one stays."""
    issued = await desk.issued()
    first = await desk.keys.rotate(issued.row.id, ADMIN)
    second = await desk.keys.rotate(issued.row.id, ADMIN)
    assert await desk.who(first.key) is None
    assert await desk.who(second.key) is not None
    third = await desk.keys.rotate(issued.row.id, ADMIN)
    assert None not in {await desk.who(second.key), await desk.who(third.key)}


async def test_a_rotation_ends_a_key_that_had_no_end(desk: Desk) -> None:
    """The overlap bounds it."""
    issued = await desk.issued(lifetime_s=None)
    await desk.keys.rotate(issued.row.id, ADMIN)
    desk.clock.advance(OVERLAP_S)
    with pytest.raises(KeyExpired):
        await desk.who(issued.key)


@pytest.mark.parametrize(
    ("peer", "is_in"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.1.2.3", False), ("", False), ("2001:db8::1", True)],
)
async def test_a_key_may_be_used_from_its_networks_only(desk: Desk, peer: str, is_in: bool) -> None:
    """By the address of the connection; an IPv4 address in IPv6's form is the IPv4 address."""
    issued = await desk.issued(networks=("10.0.0.0/8", "2001:db8::/32"))
    if is_in:
        assert await desk.who(issued.key, peer) is not None
    else:
        with pytest.raises(KeyElsewhere):
            await desk.who(issued.key, peer)


async def test_nobody_gives_more_than_he_has(desk: Desk) -> None:
    """Not another tenant's keys, not what runs the fleet, not a role above his own."""
    with pytest.raises(MoreThanOwn, match="keys of tenant 'default'"):
        await desk.issued(ACME_ADMIN)
    narrow = replace(ADMIN, scopes=frozenset({Scope.KEYS_WRITE, Scope.TOOLS_READ}))
    with pytest.raises(MoreThanOwn, match="invocations:write"):
        await desk.issued(narrow)
    assert (await desk.issued(ACME_ADMIN, tenant="acme", roles=frozenset({Role.ADMIN}))).key


async def test_another_tenants_key_does_not_exist(desk: Desk) -> None:
    """Not to be seen, rotated or revoked."""
    ours = await desk.issued()
    theirs = await desk.issued(ADMIN, tenant="acme")
    assert [row.id for row in desk.keys.listing(ACME_ADMIN)] == [theirs.row.id]
    for act in (desk.keys.rotate, desk.keys.revoke):
        with pytest.raises(NoSuchKey) as caught:
            await act(ours.row.id, ACME_ADMIN)
        assert ours.row.id not in caught.value.message.replace(repr(ours.row.id), "", 1)
    with pytest.raises(ScopeMissing):
        await desk.keys.rotate(theirs.row.id, Principal("dev", "acme", frozenset({Role.DEVELOPER})))


async def test_a_ledger_that_is_down_leaves_a_revoked_key_void(desk: Desk) -> None:
    """Whoever revokes does not trust it any more: void here at once, and named to be revoked again."""
    issued = await desk.issued()

    async def down(_: str) -> None:
        raise LedgerDown("away")

    desk.store.forget = down  # type: ignore[method-assign]
    with pytest.raises(LedgerDown):
        await desk.keys.revoke(issued.row.id, ADMIN)
    with pytest.raises(KeyExpired):
        await desk.who(issued.key)
    assert desk.keys.get(issued.row.id, ADMIN)


async def test_a_use_is_written_down_later(desk: Desk) -> None:
    """No call waits for it."""
    issued = await desk.issued()
    await desk.who(issued.key, "192.0.2.9")
    assert desk.store.rows[issued.row.id].used_at is None
    await desk.keys.save_uses()
    assert desk.store.rows[issued.row.id].used_from == "192.0.2.9"


async def test_revoking_a_key_ends_what_its_holder_made_of_it(desk: Desk) -> None:
    """A thief who rotated it is out too; what an admin made stays."""
    issued = await desk.issued(lifetime_s=None)
    own = await desk.keys.rotate(issued.row.id, ADMIN, is_own=True)
    assert await desk.who(own.key) is not None
    next_one = await desk.keys.rotate(own.row.id, ADMIN, is_own=True)
    by_admin = await desk.keys.rotate(issued.row.id, ADMIN)
    gone = await desk.keys.revoke(issued.row.id, ADMIN)
    assert [row.id for row in gone] == [issued.row.id, own.row.id, next_one.row.id]
    assert [await desk.who(one.key) for one in (issued, own, next_one)] == [None] * 3
    assert await desk.who(by_admin.key) is not None


async def test_a_holder_has_one_successor_that_works(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor can he fill the ledger with them."""
    issued = await desk.issued(lifetime_s=None)
    own = await desk.keys.rotate(issued.row.id, ADMIN, is_own=True)
    await desk.who(own.key)
    with pytest.raises(KeyReplaced):
        await desk.keys.rotate(issued.row.id, ADMIN, is_own=True)
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    with pytest.raises(TooManyKeys):
        await desk.keys.rotate(own.row.id, ADMIN, is_own=True)


async def test_groups_are_the_givers_own(desk: Desk) -> None:
    """Policies rest on them; the fleet's own tenant may give any."""
    wanted = {"tenant": "acme", "groups": frozenset({"ml"})}
    with pytest.raises(MoreThanOwn, match="the groups ml"):
        await desk.issued(ACME_ADMIN, **wanted)
    assert await desk.issued(replace(ACME_ADMIN, groups=frozenset({"ml"})), **wanted)
    assert await desk.issued(ADMIN, **wanted)


async def test_a_long_expired_key_is_forgotten(desk: Desk) -> None:
    """A month after its end, when another is made."""
    issued = await desk.issued(lifetime_s=60.0)
    desk.clock.advance(31 * DAY_S)
    await desk.issued()
    assert issued.row.id not in desk.store.rows
