"""The authorization server's own keys: made, sealed, published, used and forgotten.

Each private key is in the ledger only under the key ring. What does not open is not used, so whoever can write
to the database cannot add a key that signs. Without a key ring there is nothing in the ledger at all: keys are
in memory, and a restart or another leader has new ones. Tokens are good for minutes, so clients hardly notice.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from joserfc import jws
from joserfc.jwk import ECKey

from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.jose import PublicKey, public_key
from orchestrator.identity.oauth.schedule import Terms, plan, signer
from orchestrator.ledger.oauth_values import SigningKeyRow, aad_of_signing_key
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.oauth")
ALGORITHM = "ES256"
"""For what reads our tokens elsewhere: every library has it."""


class Sealer(Protocol):
    """`orchestrator.secrets.keyring.KeyRing`."""

    def seal(self, plain: bytes, *, aad: bytes) -> str: ...
    def open(self, sealed: str, *, aad: bytes) -> bytes: ...


class KeyStore(Protocol):
    """The ledger."""

    async def keys(self) -> list[SigningKeyRow]: ...
    async def save_key(self, row: SigningKeyRow, forget: Sequence[str] = ()) -> None: ...
    async def forget_keys(self, kids: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    created_at: float
    signs_from: float
    private: ECKey
    public: PublicKey


class SigningKeys:
    """Every key that signs, will sign, or has signed what is still good."""

    def __init__(self, *, store: KeyStore, sealer: Sealer | None, clock: Clock, terms: Terms | None = None) -> None:
        self._store, self._sealer, self._clock, self._terms = store, sealer, clock, terms or Terms()
        self._keys: dict[str, _Key] = {}
        self._turn = asyncio.Lock()

    async def restore(self) -> None:
        """This orchestrator leads now: what the ledger has that opens, and a key that signs.

        Raises:
            LedgerDown, EpochLost: as the ledger says.
        """
        if self._sealer is None:
            log.warning(
                "oauth_keys_in_memory", why="no key file is set, so no signing key is kept; set MCPFLEET_KEY_FILE"
            )
        else:
            self._keys = {key.kid: key for row in await self._store.keys() if (key := self._opened(row)) is not None}
        await self.tend()

    async def tend(self) -> None:
        """What the schedule asks for: called now and then by whoever leads."""
        async with self._turn:
            wanted = plan(list(self._keys.values()), self._clock.wall_s(), self._terms)
            if wanted.make_from is not None:
                await self._make(wanted.make_from, wanted.forget)
            elif wanted.forget:
                await self._forget(wanted.forget)

    async def rotate(self, *, withdraw: bool) -> str:
        """A new key signs from now on; its kid.

        Args:
            withdraw: forget every other key at once, and with it every token that they signed.
        """
        async with self._turn:
            now_s = self._clock.wall_s()
            old = tuple(kid for kid, key in self._keys.items() if withdraw or key.signs_from > now_s)
            kid = await self._make(now_s, old)
        log.info("oauth_key_rotated", kid=kid, withdrawn=len(old) if withdraw else 0)
        return kid

    def sign(self, claims: Mapping[str, Any]) -> str:
        """An access token. Source: RFC 9068, section 2.1: `typ` is `at+jwt`."""
        key = signer(list(self._keys.values()), self._clock.wall_s())
        assert isinstance(key, _Key)  # `tend` made one before a door opened
        header = {"alg": ALGORITHM, "typ": "at+jwt", "kid": key.kid}
        return jws.serialize_compact(header, json.dumps(claims).encode(), key.private, algorithms=[ALGORITHM])

    def key(self, kid: str) -> PublicKey:
        """The public half. Raises BadToken: there is none of that id, or none any more."""
        found = self._keys.get(kid)
        if found is None:
            raise BadToken("its key is not, or no longer, one of this server's (kid)")
        return found.public

    def jwks(self) -> dict[str, Any]:
        """The public halves. Source: RFC 7517, section 5."""
        return {
            "keys": [
                {**key.private.as_dict(private=False), "kid": key.kid, "use": "sig", "alg": ALGORITHM}
                for key in self._keys.values()
            ]
        }

    async def _make(self, signs_from: float, forget: Sequence[str]) -> str:
        kid, now_s = secrets.token_hex(8), self._clock.wall_s()
        private = ECKey.generate_key("P-256", private=True)
        if self._sealer is not None:
            sealed = self._sealer.seal(json.dumps(private.as_dict(private=True)).encode(), aad=aad_of_signing_key(kid))
            await self._store.save_key(SigningKeyRow(kid, now_s, signs_from, sealed), forget)
        self._keys = {old: key for old, key in self._keys.items() if old not in forget}
        self._keys[kid] = _key(kid, now_s, signs_from, private)
        log.info("oauth_key_made", kid=kid, signs_in_s=round(signs_from - now_s))
        return kid

    async def _forget(self, kids: Sequence[str]) -> None:
        if self._sealer is not None:
            await self._store.forget_keys(kids)
        self._keys = {kid: key for kid, key in self._keys.items() if kid not in kids}

    def _opened(self, row: SigningKeyRow) -> _Key | None:
        assert self._sealer is not None
        try:
            plain = self._sealer.open(row.sealed, aad=aad_of_signing_key(row.kid))
            return _key(row.kid, row.created_at, row.signs_from, ECKey.import_key(json.loads(plain)))
        except (FleetError, ValueError) as error:  # another key ring's, or changed: it is never used
            log.error("oauth_key_not_opened", kid=row.kid, detail=str(error))  # noqa: TRY400 - the reason is whole
            return None


def _key(kid: str, created_at: float, signs_from: float, private: ECKey) -> _Key:
    public = public_key({**private.as_dict(private=False), "kid": kid, "alg": ALGORITHM})
    assert public is not None
    return _Key(kid, created_at, signs_from, private, public)
