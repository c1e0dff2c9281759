"""A vault's part that we use, over a socket: AppRole logins, tokens that end, KV version 2, and every way to fail.

It shows that our client speaks the protocol as its documents have it, not that a real server does.
"""

from __future__ import annotations

import asyncio
import secrets

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class VaultDouble:
    """One vault. Members are what the next requests meet."""

    def __init__(self) -> None:
        self.role_id, self.secret_id = "role-" + secrets.token_hex(4), "id-" + secrets.token_hex(8)
        self.kept: dict[str, tuple[int, dict[str, object]]] = {}
        """Path below the mount → version and data."""
        self.tokens: set[str] = set()
        self.logins = 0
        self.is_sealed = self.is_deaf = self.is_forbidden = False
        self.heard: list[str] = []
        routes = [
            Route("/v1/auth/approle/login", self._login, methods=["POST"]),
            Route("/v1/secret/data/{path:path}", self._read, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes)

    def write(self, path: str, **data: object) -> None:
        """A new version."""
        self.kept[path] = (self.kept.get(path, (0, {}))[0] + 1, data)

    async def _login(self, request: Request) -> Response:
        if (refusal := await self._refusal()) is not None:
            return refusal
        form = await request.json()
        if (form["role_id"], form["secret_id"]) != (self.role_id, self.secret_id):
            return JSONResponse({"errors": ["invalid role or secret ID"]}, 400)
        self.logins += 1
        token = "hvs." + secrets.token_urlsafe(16)
        self.tokens.add(token)
        auth = {"client_token": token, "lease_duration": 1200, "renewable": True}
        return JSONResponse({"auth": auth, "data": None})

    async def _read(self, request: Request) -> Response:
        self.heard.append(request.url.path)
        if (refusal := await self._refusal()) is not None:
            return refusal
        if request.headers.get("x-vault-token") not in self.tokens or self.is_forbidden:
            return JSONResponse({"errors": ["1 error occurred:\n\t* permission denied\n\n"]}, 403)
        found = self.kept.get(request.path_params["path"])
        if found is None:
            return JSONResponse({"errors": []}, 404)
        metadata = {"version": found[0], "created_time": "2026-11-22T00:00:00Z", "destroyed": False}
        return JSONResponse({"data": {"data": found[1], "metadata": metadata}})

    async def _refusal(self) -> Response | None:
        if self.is_deaf:
            await asyncio.Event().wait()
        return JSONResponse({"errors": ["Vault is sealed"]}, 503) if self.is_sealed else None
