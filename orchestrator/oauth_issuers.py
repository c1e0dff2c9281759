"""The operator's file of OAuth issuers: `[issuers.NAME]`, each field one of `identity.oauth.issuer.Issuer`.

A key nobody knows stops the start, as does an issuer whose keys could not be fetched safely.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from orchestrator.identity.oauth.fetch import is_safe
from orchestrator.identity.oauth.issuer import Issuer
from orchestrator.identity.oauth.jose import ALGORITHMS
from orchestrator.pools_table import Place, built, check_keys, table_of
from tasks.errors import SettingsError
from tasks.invocation import TENANT_PATTERN
from tasks.scopes import GIVEN

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def read_issuers(path: Path | None) -> tuple[Issuer, ...]:
    """Read the file; no file is no issuer.

    Raises:
        SettingsError: the file cannot be read, or something in it is unknown or wrong.
    """
    if path is None:
        return ()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"MCPFLEET_OAUTH_FILE: {path} cannot be read: {error}") from error
    root = Place(path)
    check_keys(root, document, ("issuers",))
    place = root.at("issuers")
    found = tuple(
        _issuer(place.at(name), name, value) for name, value in table_of(place, document.get("issuers", {})).items()
    )
    if len({one.issuer for one in found}) != len(found):
        place.wrong("has one issuer twice: write each once")
    return found


def _issuer(place: Place, name: str, value: object) -> Issuer:
    table = table_of(place, value)
    if not NAME.fullmatch(name):
        place.wrong("is no name: write [a-z0-9_-], at most 32 characters")
    check_keys(place, table, [field.name for field in fields(Issuer) if field.name != "name"])
    issuer = built(place, Issuer, table, name=name)
    if not is_safe(issuer.issuer):
        place.at("issuer").wrong(f"is {issuer.issuer!r}: write its https URL, as its metadata says it")
    if wrong := [one for one in issuer.algorithms if one not in ALGORITHMS]:
        place.at("algorithms").wrong(f"has {wrong[0]!r}: there are {', '.join(ALGORITHMS)}")
    if wrong := [one for one in issuer.roles.values() if one not in GIVEN]:
        place.at("roles").wrong(f"has {wrong[0]!r}: our roles are {', '.join(sorted(GIVEN))}")
    tenants = [*issuer.tenants, *([issuer.tenant] if issuer.tenant else [])]
    if wrong := [one for one in tenants if not TENANT_PATTERN.fullmatch(one)]:
        place.at("tenant").wrong(f"is {wrong[0]!r}: write [a-z0-9][a-z0-9_-]*, at most 63 characters")
    return issuer
