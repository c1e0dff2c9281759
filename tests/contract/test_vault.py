"""Secrets in a vault, over a socket: read, renewed, refused, away; and none of it beyond its own path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from orchestrator.secrets.sources import SecretMisplaced, SecretUnavailable
from orchestrator.secrets.vault import VaultPlace, VaultSource
from orchestrator.testing.serving import serving
from orchestrator.testing.vault_double import VaultDouble
from tasks.secretref import SecretRef

REF = SecretRef("default", "shop", "stripe")
PATH = "mcpfleet/default/shop/stripe"


@dataclass(frozen=True)
class Field:
    """A vault, a client of it, and where its secret id is."""

    vault: VaultDouble
    source: VaultSource
    place: VaultPlace

    async def value(self, ref: SecretRef = REF) -> str:
        """As it is read."""
        return (await self.source.read(ref)).value.reveal()


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    """With an AppRole."""
    vault = VaultDouble()
    (tmp_path / "id").write_text(vault.secret_id + "\n")
    async with serving(vault.app) as url:
        place = VaultPlace(url, role_id=vault.role_id, secret_id_file=tmp_path / "id")
        vault.write(PATH, value="from the vault")
        yield Field(vault, VaultSource(place), place)


async def test_a_value_is_read_with_one_login_and_its_version(field: Field) -> None:
    """One path for each secret, made from its own name."""
    first = await field.source.read(REF)
    assert first.value.reveal() == "from the vault"
    field.vault.write(PATH, value="a new one")
    second = await field.source.read(REF)
    assert second.value.reveal() == "a new one"
    assert first.version != second.version
    assert field.vault.logins == 1
    assert set(field.vault.heard) == {f"/v1/secret/data/{PATH}"}


async def test_a_token_that_ended_is_taken_anew(field: Field) -> None:
    """A vault says 403 to it: one more login, and the value."""
    assert await field.value() == "from the vault"
    field.vault.tokens.clear()
    assert await field.value() == "from the vault"
    assert field.vault.logins == 2


async def test_what_is_forbidden_stays_so_after_one_more_login(field: Field) -> None:
    """No loop of logins."""
    field.vault.is_forbidden = True
    with pytest.raises(SecretUnavailable, match="permission denied"):
        await field.value()
    assert field.vault.logins == 2


async def test_a_sealed_vault_and_one_that_came_back(field: Field) -> None:
    """Its own words; the next try works."""
    field.vault.is_sealed = True
    with pytest.raises(SecretUnavailable, match="Vault is sealed"):
        await field.value()
    field.vault.is_sealed = False
    assert await field.value() == "from the vault"


async def test_what_is_not_there_or_no_value_is_said(field: Field) -> None:
    """With the path where it should be."""
    with pytest.raises(SecretMisplaced, match="mcpfleet/acme/shop/stripe"):
        await field.value(SecretRef("acme", "shop", "stripe"))
    for data in ({"other": "x"}, {"value": 3}, {"value": ""}):
        field.vault.write(PATH, **data)
        with pytest.raises(SecretMisplaced):
            await field.value()


async def test_a_vault_that_does_not_answer_or_is_not_there(field: Field, tmp_path: Path) -> None:
    """Bounded, and said; so is a secret id that nobody put there, or that is refused."""
    await field.value()
    deaf = VaultSource(field.place, lambda: httpx.AsyncClient(timeout=0.2))
    field.vault.is_deaf = True
    with pytest.raises(SecretUnavailable):
        await deaf.read(REF)
    field.vault.is_deaf = False
    with pytest.raises(SecretUnavailable):
        await VaultSource(VaultPlace("http://127.0.0.1:1", role_id="x", secret_id_file=tmp_path / "id")).read(REF)
    with pytest.raises(SecretUnavailable, match="cannot be read"):
        await VaultSource(VaultPlace(field.place.url, secret_id_file=tmp_path / "none")).read(REF)
    with pytest.raises(SecretUnavailable, match="invalid role"):
        await VaultSource(VaultPlace(field.place.url, role_id="x", secret_id_file=tmp_path / "id")).read(REF)


async def test_a_token_from_a_file_is_read_again_when_it_is_refused(field: Field, tmp_path: Path) -> None:
    """As an agent beside us renews it."""
    (tmp_path / "token").write_text("old")
    source = VaultSource(VaultPlace(field.place.url, token_file=tmp_path / "token"))
    with pytest.raises(SecretUnavailable):
        await source.read(REF)
    field.vault.tokens.add("new")
    (tmp_path / "token").write_text("new\n")
    assert (await source.read(REF)).value.reveal() == "from the vault"
