"""Paths of identity: API keys, challenges, and who one is."""

from __future__ import annotations

from typing import Any

from orchestrator.api.auditing import Audit, entry_of
from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Challenges, Keys
from orchestrator.api.problems import InvalidBody, NotYours
from orchestrator.api.reply import Reply, listing, model
from orchestrator.ledger.audit_values import Decision
from orchestrator.ledger.key_values import IssuedKey, KeyRow, WantedKey
from tasks.identity_wire import (
    ChallengeRequest,
    ChallengeView,
    IssuedKeyView,
    KeyRequest,
    KeyView,
    SessionRequest,
    SessionView,
    WhoAmIView,
)
from tasks.scopes import Scope, beyond, scopes_of
from tasks.wire import Page

SHOWN_AS = "key:"
"""Before the id, in a principal's `credential`."""


class KeyDoor:
    """API keys, and what they are traded for."""

    def __init__(self, keys: Keys, challenges: Challenges, audit: Audit) -> None:
        self._keys, self._challenges, self._audit = keys, challenges, audit

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        one = "/v1/keys/{id}"
        return (
            Operation("GET", "/v1/whoami", "whoami", Scope.TOOLS_READ, "Who the caller is, and may do", self.whoami,
                      {200: Answer("the caller", WhoAmIView)}, tag="identity"),
            Operation("GET", "/v1/keys", "list_keys", Scope.KEYS_READ, "API keys, oldest first", self.list,
                      {200: Answer("all of them", Page[KeyView])}, tag="identity"),
            Operation("POST", "/v1/keys", "create_key", Scope.KEYS_WRITE, "Make an API key", self.create,
                      {201: Answer("the key; it is shown once", IssuedKeyView)}, body=KeyRequest, errors=(409,),
                      tag="identity"),
            Operation("GET", one, "show_key", Scope.KEYS_READ, "One API key, without the key", self.show,
                      {200: Answer("what is known of it", KeyView)}, errors=(404,), tag="identity"),
            Operation("DELETE", one, "revoke_key", Scope.KEYS_WRITE, "Void an API key at once", self.revoke,
                      {200: Answer("all that are void: it, and successors that its holder made", Page[KeyView])},
                      errors=(404,), tag="identity"),
            Operation("POST", one + "/rotate", "rotate_key", Scope.KEYS_WRITE,
                      "Make its successor; both work for up to three days", self.rotate,
                      {201: Answer("the successor; it is shown once", IssuedKeyView)}, errors=(404, 409),
                      tag="identity"),
            Operation("POST", "/v1/keys:rotate", "rotate_own_key", Scope.TOOLS_READ,
                      "Make the successor of the key that this request showed, when it is due", self.rotate_own,
                      {201: Answer("the successor; it is shown once", IssuedKeyView)}, errors=(409,),
                      tag="identity"),
            Operation("POST", "/v1/auth/challenges", "challenge", None, "A nonce to be signed", self.challenge,
                      {201: Answer("good once, for a minute", ChallengeView)}, body=ChallengeRequest, tag="identity"),
            Operation("POST", "/v1/auth/sessions", "open_session", None, "Trade a signed nonce for a session token",
                      self.session, {201: Answer("a bearer token for minutes", SessionView)}, body=SessionRequest,
                      errors=(401,), tag="identity"),
        )  # fmt: skip

    async def whoami(self, ask: Ask) -> Reply:
        """GET /v1/whoami."""
        by = ask.principal
        return model(
            WhoAmIView(
                id=by.id,
                tenant=by.tenant,
                roles=sorted(by.roles),
                scopes=sorted(scopes_of(by)),
                groups=sorted(by.groups),
                credential=by.credential,
            )
        )

    async def list(self, ask: Ask) -> Reply:
        """GET /v1/keys."""
        return listing([_view(row) for row in self._keys.listing(ask.principal)])

    async def show(self, ask: Ask) -> Reply:
        """GET /v1/keys/{id}."""
        return model(_view(self._keys.get(ask.path["id"], ask.principal)))

    async def create(self, ask: Ask) -> Reply:
        """POST /v1/keys."""
        request = ask.body(KeyRequest)
        if request.scopes is not None and not request.scopes:
            raise InvalidBody([("scopes", "an empty list would allow nothing; leave it out for all that the roles do")])
        if more := beyond(request.roles, request.scopes):
            has = f"{' and '.join(request.roles)} has no {', '.join(more)}"
            raise InvalidBody([("scopes", f"they only narrow what roles allow, and {has}")])
        wanted = WantedKey(
            name=request.name,
            principal=request.principal,
            tenant=request.tenant or ask.principal.tenant,
            roles=frozenset(request.roles),
            scopes=None if request.scopes is None else frozenset(request.scopes),
            groups=frozenset(request.groups),
            networks=tuple(request.networks),
            public_key=request.public_key,
            lifetime_s=request.lifetime_s,
        )
        return _issued(await self._keys.issue(wanted, ask.principal))

    async def rotate(self, ask: Ask) -> Reply:
        """POST /v1/keys/{id}/rotate."""
        return _issued(await self._keys.rotate(ask.path["id"], ask.principal))

    async def rotate_own(self, ask: Ask) -> Reply:
        """POST /v1/keys:rotate."""
        kind, _, key_id = ask.principal.credential.partition(":")
        if f"{kind}:" != SHOWN_AS:
            raise NotYours("this request did not show an API key, so there is none to rotate; show the key itself")
        return _issued(await self._keys.rotate(key_id, ask.principal, is_own=True))

    async def revoke(self, ask: Ask) -> Reply:
        """DELETE /v1/keys/{id}."""
        return listing([_view(row) for row in await self._keys.revoke(ask.path["id"], ask.principal)])

    async def challenge(self, ask: Ask) -> Reply:
        """POST /v1/auth/challenges."""
        nonce, expires_at = self._challenges.challenge(ask.body(ChallengeRequest).key)
        return model(ChallengeView(nonce=nonce, expires_at=expires_at), 201)

    async def session(self, ask: Ask) -> Reply:
        """POST /v1/auth/sessions."""
        said = ask.body(SessionRequest)
        server = ask.header(b"host") or ""
        opened = self._challenges.session(said.key, said.nonce, said.signature, server=server, peer=ask.presented.peer)
        await self._audit.acted(
            entry_of("open_session", Decision.ALLOWED, opened.principal, ask.presented, ask.trace_id)
        )
        return model(SessionView(token=opened.token, expires_at=opened.expires_at), 201)


def _view(row: KeyRow) -> KeyView:
    return KeyView(**_fields(row))


def _issued(issued: IssuedKey) -> Reply:
    return model(IssuedKeyView(**_fields(issued.row), key=issued.key), 201)


def _fields(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "principal": row.principal,
        "roles": row.roles.split(),
        "scopes": None if row.scopes is None else row.scopes.split(),
        "groups": row.groups.split(),
        "networks": row.networks.split(),
        "signs": row.public_key is not None,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "due_at": row.due_at,
        "succeeds": row.succeeds,
        "used_at": row.used_at,
        "used_from": row.used_from,
    }
