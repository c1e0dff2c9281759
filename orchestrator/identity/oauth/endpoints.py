"""The authorization server's HTTP: metadata, keys, tokens, revocation. Source: RFC 8414, 7517, 6749 and 7009.

Owns the forms of requests and answers. Bounded: a request has at most `BODY_MAX_BYTES`. There is no endpoint for
people to log in at; the one in the metadata is there because MCP's client does not read metadata without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from orchestrator.identity.oauth.client_auth import METHODS, ClientAuth
from orchestrator.identity.oauth.errors import BadToken, OAuthError
from orchestrator.identity.oauth.grant import Server, Wanted, grant
from orchestrator.identity.oauth.jose import ALGORITHMS, parse
from orchestrator.identity.oauth.own import OwnTokens
from orchestrator.identity.oauth.resource import Resource
from orchestrator.identity.oauth.revoked import Revoked
from orchestrator.identity.oauth.signing import SigningKeys
from orchestrator.identity.watched import NOBODY
from orchestrator.ledger.audit_values import AuditEntry, Decision
from orchestrator.ledger.oauth_values import ClientRow
from tasks.clock import Clock
from tasks.errors import FleetError

log = structlog.get_logger("mcpfleet.oauth")
BODY_MAX_BYTES = 64 * 1024
FIELDS_MAX = 50
METADATA_PATH = "/.well-known/oauth-authorization-server"
KEYS_S = 300
"""How long others may keep our key set; a new key is published far longer before it signs."""
JWKS, TOKEN, REVOKE, AUTHORIZE = "/oauth/jwks", "/oauth/token", "/oauth/revoke", "/oauth/authorize"
Certificate = Callable[[Scope], str | None]
"""Thumbprint of the caller's certificate."""
Told = Callable[[AuditEntry], Awaitable[object]]
"""The audit log: counts, so that a flood is a few rows a minute."""


async def unaudited(_entry: AuditEntry) -> None:
    """Where there is no audit log."""


def resource_routes(resources: tuple[Resource, ...]) -> list[BaseRoute]:
    """The metadata of our doors."""
    return [Route(one.path, _document(one.metadata()), methods=["GET"]) for one in resources if one.issuers]


class Endpoints:
    """The routes of the built-in authorization server."""

    def __init__(
        self,
        *,
        server: Server,
        auth: ClientAuth,
        keys: SigningKeys,
        own: OwnTokens,
        revoked: Revoked,
        certificate: Certificate,
        clock: Clock,
        refused: Told = unaudited,
        granted: Told = unaudited,
    ) -> None:
        self._server, self._auth, self._keys, self._own = server, auth, keys, own
        self._revoked, self._certificate, self._clock = revoked, certificate, clock
        self._refused, self._granted = refused, granted

    def routes(self) -> list[BaseRoute]:
        """To be added to the API's."""
        return [
            Route(METADATA_PATH, _document(self.metadata()), methods=["GET"]),
            Route(JWKS, self._jwks, methods=["GET"]),
            Route(TOKEN, self._guarded("oauth_token", self._token), methods=["POST"]),
            Route(REVOKE, self._guarded("oauth_revoke", self._revoke), methods=["POST"]),
            Route(AUTHORIZE, self._authorize, methods=["GET", "POST"]),
        ]

    def metadata(self) -> dict[str, Any]:
        """Source: RFC 8414, section 2."""
        base = self._server.issuer
        ways = {"token_endpoint_auth_methods_supported": list(METHODS)}
        return {
            "issuer": base,
            "authorization_endpoint": base + AUTHORIZE,
            "token_endpoint": base + TOKEN,
            "jwks_uri": base + JWKS,
            "revocation_endpoint": base + REVOKE,
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            **ways,
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "revocation_endpoint_auth_methods_supported": list(METHODS),
            "revocation_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "tls_client_certificate_bound_access_tokens": True,
        }

    async def _jwks(self, _request: Request) -> Response:
        return _json(self._keys.jwks(), cached_s=KEYS_S)

    async def _authorize(self, _request: Request) -> Response:
        return _refusal(OAuthError("unsupported_response_type", "nobody logs in here; use client_credentials"))

    async def _token(self, request: Request, form: Mapping[str, str], resources: list[str]) -> Response:
        kind = form.get("grant_type")
        if kind is None:
            raise OAuthError("invalid_request", "grant_type is missing")
        client = await self._auth.client(form, request.headers.get("authorization", ""))
        if kind != "client_credentials":
            raise OAuthError("unsupported_grant_type", "only client_credentials is served here")
        now_s, certificate = self._clock.wall_s(), self._certificate(request.scope)
        wanted = Wanted(resources, form.get("scope"))
        made = grant(self._server, client, wanted, certificate=certificate, now_s=now_s)
        await self._granted(_grant_entry(request, client, made))
        log.info("access_token_granted", client=client.id, tenant=client.tenant, jti=made["jti"], audience=made["aud"])
        answer = {
            "access_token": self._keys.sign(made),
            "token_type": "Bearer",
            "expires_in": made["exp"] - made["iat"],
        }
        return _json(answer | ({"scope": made["scope"]} if "scope" in made else {}))

    async def _revoke(self, request: Request, form: Mapping[str, str], _resources: list[str]) -> Response:
        client = await self._auth.client(form, request.headers.get("authorization", ""))
        if "token" not in form:
            raise OAuthError("invalid_request", "token is missing")
        try:
            parsed = parse(form["token"])
            self._own.verify(parsed)
        except BadToken:
            return _json({})  # what is not good needs no revoking: RFC 7009, section 2.2
        if parsed.claims.get("client_id") != client.id:
            raise OAuthError("invalid_request", "this token is another client's")
        await self._revoked.add(str(parsed.claims["jti"]), float(parsed.claims["exp"]))
        log.info("access_token_revoked", client=client.id, jti=parsed.claims["jti"])
        return _json({})

    def _guarded(self, action: str, answer: Callable[..., Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            try:
                form, resources = await _form(request)
                response: Response = await answer(request, form, resources)
            except OAuthError as error:
                log.info("oauth_refused", path=request.url.path, error=error.error, detail=error.description)
                await self._refused(_entry(action, request, error))
                return _refusal(error)
            except FleetError as error:  # the ledger
                log.warning("oauth_unavailable", path=request.url.path, detail=error.message)
                return _json({"error": "temporarily_unavailable", "error_description": "ask again"}, status=503)
            return response

        return guarded


def _grant_entry(request: Request, client: ClientRow, made: Mapping[str, Any]) -> AuditEntry:
    """Durable before the token is given. The token's name, never the token."""
    audience = made["aud"]
    details = {
        "jti": made["jti"],
        "audience": audience if isinstance(audience, str) else " ".join(audience),
        "scopes": made.get("scope", ""),
        "roles": " ".join(made["roles"]),
        "expires_at": made["exp"],
    }
    peer = request.scope.get("client")
    return AuditEntry(
        action="oauth_token",
        decision=Decision.ALLOWED,
        actor=client.id,
        tenant=client.tenant,
        credential=f"oauth client:{client.id}",
        peer=peer[0] if peer else "",
        target=client.name,
        details=details,
    )


def _entry(action: str, request: Request, error: OAuthError) -> AuditEntry:
    """Nothing that was sent: who could not show who they are may have sent a secret in any of it."""
    client = request.scope.get("client")
    return AuditEntry(
        action=action,
        decision=Decision.REFUSED,
        actor=NOBODY,
        peer=client[0] if client else "",
        reason=f"{error.error}: {error.description}",
    )


async def _form(request: Request) -> tuple[dict[str, str], list[str]]:
    """The parameters, and `resource`, which may be there more than once (RFC 8707, section 2)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise OAuthError("invalid_request", f"the request is over {BODY_MAX_BYTES} bytes", status=413)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", "the parameters cannot be read") from None
    form: dict[str, str] = {}
    resources = [value for name, value in pairs if name == "resource"]
    for name, value in pairs:
        if name in form and name != "resource":
            raise OAuthError("invalid_request", "a parameter is there twice")
        form[name] = value
    return form, resources


def _document(content: Mapping[str, Any]) -> Callable[[Request], Any]:
    async def answer(_request: Request) -> Response:
        return _json(content, cached_s=KEYS_S)

    return answer


def _refusal(error: OAuthError) -> Response:
    response = _json({"error": error.error, "error_description": error.description}, status=error.status)
    if error.is_basic:
        response.headers["www-authenticate"] = 'Basic realm="mcpfleet"'
    return response


def _json(content: Mapping[str, Any], *, status: int = 200, cached_s: int = 0) -> Response:
    keep = f"public, max-age={cached_s}" if cached_s else "no-store"
    headers = {"cache-control": keep, "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
