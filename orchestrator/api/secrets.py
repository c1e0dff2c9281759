"""Secrets' paths: set, shown without their value, deleted; and given to a node that starts what needs them.

Owns forms. Refuses to answer with a value to anybody but the node that the secret's own rule names.
"""

from __future__ import annotations

from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Secrets
from orchestrator.api.reply import Reply, listing, model
from orchestrator.ledger.secret_values import Resealed
from tasks.scopes import Scope
from tasks.secret_wire import RewrapView, SecretRequest, SecretsReply, SecretsRequest, SecretView
from tasks.wire import Page

ONE = "/v1/secrets/{owner}/{name}"
TAG = "secrets"


class SecretDoor:
    """Of the caller's own tenant."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def operations(self) -> tuple[Operation, ...]:
        """Their declarations."""
        return (
            Operation("GET", "/v1/secrets", "list_secrets", Scope.SECRETS_READ,
                      "Secrets, without their values", self.all,
                      {200: Answer("by owner and name", Page[SecretView])}, tag=TAG),
            Operation("GET", ONE, "show_secret", Scope.SECRETS_READ,
                      "What is known of a secret, but its value", self.show,
                      {200: Answer("the secret", SecretView)}, errors=(404,), tag=TAG),
            Operation("PUT", ONE, "set_secret", Scope.SECRETS_WRITE,
                      "Set a secret, or a new version of one", self.put,
                      {200: Answer("as it is now", SecretView)}, body=SecretRequest, errors=(409,), tag=TAG),
            Operation("DELETE", ONE, "delete_secret", Scope.SECRETS_WRITE, "Forget a secret", self.delete,
                      {204: Answer("gone")}, errors=(404,), tag=TAG),
            Operation("POST", "/v1/secret-rewraps", "rewrap_secrets", Scope.FLEET_WRITE,
                      "Seal every secret under the newest key", self.rewrap,
                      {200: Answer("how many", RewrapView)}, errors=(409,), tag=TAG),
            Operation("GET", "/v1/secret-rewraps", "show_rewrap", Scope.FLEET_WRITE,
                      "How far the ledger's rows are", self.rewrapped,
                      {200: Answer("since it was asked for last", RewrapView)}, errors=(409,), tag=TAG),
            Operation("POST", "/v1/nodes/{name}/secrets", "give_secrets", Scope.NODE,
                      "Secrets of a server that the node starts", self.give,
                      {200: Answer("those that it may have", SecretsReply)}, body=SecretsRequest, is_for_itself=True,
                      tag="node protocol"),
        )  # fmt: skip

    async def all(self, ask: Ask) -> Reply:
        """GET /v1/secrets."""
        return listing(await self._secrets.listing(ask.principal))

    async def show(self, ask: Ask) -> Reply:
        """GET /v1/secrets/{owner}/{name}."""
        return model(await self._secrets.show(ask.path["owner"], ask.path["name"], ask.principal))

    async def put(self, ask: Ask) -> Reply:
        """PUT /v1/secrets/{owner}/{name}."""
        wanted = ask.body(SecretRequest)
        return model(await self._secrets.put(ask.path["owner"], ask.path["name"], wanted, ask.principal))

    async def delete(self, ask: Ask) -> Reply:
        """DELETE /v1/secrets/{owner}/{name}."""
        await self._secrets.delete(ask.path["owner"], ask.path["name"], ask.principal)
        return Reply(b"", 204)

    async def rewrap(self, _ask: Ask) -> Reply:
        """POST /v1/secret-rewraps."""
        key, secrets, blobs = await self._secrets.rewrap()
        return model(_view(key, self._secrets.resealed()[1], secrets, blobs))

    async def rewrapped(self, _ask: Ask) -> Reply:
        """GET /v1/secret-rewraps."""
        return model(_view(*self._secrets.resealed()))

    async def give(self, ask: Ask) -> Reply:
        """POST /v1/nodes/{name}/secrets."""
        wanted = ask.body(SecretsRequest)
        give = self._secrets.give(ask.path["name"], wanted.server, wanted.refs, with_values=wanted.with_values)
        return model(await give)


def _view(key: str, rows: Resealed, secrets: int = 0, blobs: int = 0) -> RewrapView:
    return RewrapView(
        key=key,
        secrets=secrets,
        blobs=blobs,
        texts=rows.texts,
        unopened=rows.unopened,
        is_running=rows.is_running,
        stopped=rows.stopped,
    )
