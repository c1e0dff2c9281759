"""Values of secrets in HashiCorp Vault or OpenBao: the KV engine, version 2, with an AppRole or a token.

    <mount>/data/<prefix>/<tenant>/<owner>/<name>, the key `value`

The path is made from the secret's own name, so that nobody who may set secrets can point one at another path of
the vault: the orchestrator's token may read more than they may. Owns the three requests that this takes; `hvac` is
synchronous, and a thread for each would be all that it adds. Refuses redirects, and to log a body.
Source: developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2, .../auth/approle (OpenBao's are the same).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from orchestrator.secrets.sources import Found, SecretMisplaced, SecretUnavailable, usable
from tasks.secretref import SecretRef

ANSWER_S = 10.0
SAID_CHARS = 200


@dataclass(frozen=True, slots=True)
class VaultPlace:
    """Where it is, and what opens it. Files are read at each login, so that new ones count at once."""

    url: str
    mount: str = "secret"
    prefix: str = "mcpfleet"
    namespace: str = ""
    token_file: Path | None = None
    role_id: str = ""
    secret_id_file: Path | None = None
    ca_file: Path | None = None


class VaultSource:
    """Satisfies `ValueSource`."""

    def __init__(self, place: VaultPlace, make: Callable[[], httpx.AsyncClient] | None = None) -> None:
        self._place, self._make = place, make or self._client
        self._http: httpx.AsyncClient | None = None
        self._token = ""
        self._login = asyncio.Lock()

    async def read(self, ref: SecretRef) -> Found:
        """As `ValueSource`. A token that is refused is taken anew, once."""
        for is_last in (False, True):
            used = self._token or await self._new_token("")
            answer = await self._ask("GET", self._path(ref), used)
            if answer.status_code != HTTPStatus.FORBIDDEN:
                return self._found(ref, answer)
            if is_last:
                break
            await self._new_token(used)
        raise self._away("permission denied; its policy has to allow reading below the prefix")

    def _found(self, ref: SecretRef, answer: httpx.Response) -> Found:
        if answer.status_code == HTTPStatus.NOT_FOUND:
            where = f"{self._place.mount}/{self._place.prefix}/{ref.tenant}/{ref.owner}/{ref.name}"
            raise SecretMisplaced(ref, f"the vault has nothing at {where}; write it there, under the key `value`")
        if answer.status_code != HTTPStatus.OK:
            raise self._away(_why(answer))
        try:
            body = answer.json()["data"]
            value, version, made = body["data"]["value"], body["metadata"]["version"], body["metadata"]["created_time"]
        except (ValueError, KeyError, TypeError):
            raise SecretMisplaced(ref, "what the vault has there has no key `value` (KV version 2)") from None
        if not isinstance(value, str):
            raise SecretMisplaced(ref, "its `value` in the vault is not a string")
        return Found(usable(ref, value.encode()), f"vault-{version}-{made}")

    async def _new_token(self, refused: str) -> str:
        """Another one than was refused; many that ask at once log in once."""
        async with self._login:
            if self._token and self._token != refused:
                return self._token
            self._token = await self._log_in()
            return self._token

    async def _log_in(self) -> str:
        place = self._place
        if place.token_file is not None:
            return await asyncio.to_thread(self._file, place.token_file)
        secret = "" if place.secret_id_file is None else await asyncio.to_thread(self._file, place.secret_id_file)
        form = {"role_id": place.role_id, "secret_id": secret}
        answer = await self._ask("POST", "auth/approle/login", "", form)
        if answer.status_code != HTTPStatus.OK:
            raise self._away(f"the AppRole was not let in ({_why(answer)})")
        try:
            return str(answer.json()["auth"]["client_token"])
        except (ValueError, KeyError, TypeError):
            raise self._away("its answer to the login is not understood") from None

    async def _ask(self, method: str, path: str, token: str, form: dict[str, Any] | None = None) -> httpx.Response:
        if self._http is None:
            self._http = self._make()
        headers = {"X-Vault-Request": "true"}
        headers |= {"X-Vault-Token": token} if token else {}
        headers |= {"X-Vault-Namespace": self._place.namespace} if self._place.namespace else {}
        try:
            url = f"{self._place.url.rstrip('/')}/v1/{path}"
            return await self._http.request(method, url, headers=headers, json=form)
        except httpx.HTTPError as error:
            raise self._away(str(error) or type(error).__name__) from None

    def _client(self) -> httpx.AsyncClient:
        tls = ssl.create_default_context(cafile=self._place.ca_file)
        return httpx.AsyncClient(timeout=ANSWER_S, verify=tls, trust_env=False, follow_redirects=False)

    def _path(self, ref: SecretRef) -> str:
        return f"{self._place.mount}/data/{self._place.prefix}/{ref.tenant}/{ref.owner}/{ref.name}"

    def _file(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise self._away(f"{path} cannot be read: {error.strerror}") from None

    def _away(self, detail: str) -> SecretUnavailable:
        return SecretUnavailable(f"the vault at {self._place.url}", detail)


def _why(answer: httpx.Response) -> str:
    """Its own words: `errors` of its JSON."""
    try:
        said = "; ".join(str(one) for one in answer.json()["errors"])
    except (ValueError, KeyError, TypeError):
        said = ""
    return f"HTTP {answer.status_code}{': ' if said else ''}{said[:SAID_CHARS]}"
