"""Which client a request to the authorization server is from.

Three ways, one at a time: RFC 6749, section 2.3.1 (basic, post) and RFC 7523, section 2.2 (private_key_jwt).
An assertion is taken once: its `jti` is spent in the ledger, so no replica takes it again either.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote_plus

from orchestrator.identity.oauth import claims as checked
from orchestrator.identity.oauth.clients import Clients
from orchestrator.identity.oauth.errors import BadToken, OAuthError
from orchestrator.identity.oauth.jose import Parsed, check_signature, parse
from orchestrator.ledger.oauth_values import ASSERTION, ClientRow, SpentRow
from tasks.clock import Clock

METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_MAX_S = 300.0
"""An assertion good for longer is refused, so that a stolen one is of little use."""
_UNKNOWN = "unknown client, or wrong credentials"


class SpentStore(Protocol):
    """The ledger."""

    async def spend(self, row: SpentRow) -> bool: ...


class ClientAuth:
    """Authenticates clients."""

    def __init__(self, *, clients: Clients, spent: SpentStore, issuer: str, clock: Clock) -> None:
        self._clients, self._spent, self._issuer, self._clock = clients, spent, issuer, clock

    async def client(self, form: Mapping[str, str], authorization: str) -> ClientRow:
        """The client that this request is from.

        Args:
            form: the request's parameters.
            authorization: its header of that name; empty without one.

        Raises:
            OAuthError: invalid_client, or invalid_request where it uses two ways at once.
        """
        ways = [bool(authorization), "client_secret" in form, "client_assertion" in form]
        if sum(ways) > 1:
            raise OAuthError("invalid_request", "use one way of client authentication, not several")
        if ways[0]:
            return self._basic(form, authorization)
        if ways[1]:
            return self._secret(form.get("client_id", ""), form["client_secret"], is_basic=False)
        if ways[2]:
            return await self._assertion(form)
        raise OAuthError("invalid_client", f"authenticate the client: {', '.join(METHODS)}", status=401, is_basic=True)

    def _basic(self, form: Mapping[str, str], authorization: str) -> ClientRow:
        scheme, _, value = authorization.partition(" ")
        try:
            text = b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            text = ""
        name, _, secret = text.partition(":")
        client_id = unquote_plus(name)
        if scheme.lower() != "basic" or form.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_client", _UNKNOWN, status=401, is_basic=True)
        return self._secret(client_id, unquote_plus(secret), is_basic=True)

    def _secret(self, client_id: str, secret: str, *, is_basic: bool) -> ClientRow:
        row = self._clients.active(client_id)
        if not self._clients.has_secret(row, secret) or row is None:
            raise OAuthError("invalid_client", _UNKNOWN, status=401, is_basic=is_basic)
        return row

    async def _assertion(self, form: Mapping[str, str]) -> ClientRow:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise OAuthError("invalid_request", f"client_assertion_type must be {ASSERTION_TYPE}")
        try:
            parsed = parse(form["client_assertion"], needs_kid=False)
            row = self._signer(parsed, form)
            jti, expires_s = self._check(parsed.claims)
        except BadToken as error:
            raise OAuthError("invalid_client", error.message, status=401) from error
        spent = SpentRow(ASSERTION, f"{row.id} {jti}", expires_s + checked.LEEWAY_S)
        if not await self._spent.spend(spent):
            raise OAuthError("invalid_client", "this assertion was used before (jti)", status=401)
        return row

    def _signer(self, parsed: Parsed, form: Mapping[str, str]) -> ClientRow:
        """Source: RFC 7523, section 3: `iss` and `sub` are the client."""
        client_id = checked.text(parsed.claims, "sub")
        row, key = self._clients.active(client_id), self._clients.key_of(client_id)
        if row is None or key is None:
            raise OAuthError("invalid_client", _UNKNOWN, status=401)
        if parsed.claims.get("iss") != client_id or form.get("client_id", client_id) != client_id:
            raise BadToken("its iss, its sub and client_id are not one client")
        if parsed.header.get("kid", key.kid) != key.kid and key.kid is not None:
            raise BadToken("it names another key (kid) than the one that is registered")
        check_signature(parsed, key)
        return row

    def _check(self, claims: Mapping[str, Any]) -> tuple[str, float]:
        """Its `jti` and its end. The audience is this server's issuer and nothing else: RFC 7523bis, section 4."""
        if claims.get("aud") not in (self._issuer, [self._issuer]):
            raise BadToken("it is for another authorization server (aud)", f"set aud to {self._issuer}")
        checked.check_times(claims, now_s=self._clock.wall_s(), lifetime_max_s=ASSERTION_MAX_S)
        return checked.text(claims, "jti"), float(claims["exp"])
