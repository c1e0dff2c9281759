"""`mcpfleet oauth`: what it shows once, what it sends, and what it says of keys."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.cli.main import run

ENVIRON = {"MCPFLEET_URL": "http://fleet", "MCPFLEET_TOKEN": "t", "COLUMNS": "200"}
VIEW = {
    "client_id": "client-1",
    "name": "ci",
    "tenant": "acme",
    "roles": ["agent"],
    "scopes": None,
    "groups": [],
    "authentication": "client_secret",
    "created_at": 1.0,
    "created_by": "operator",
    "revoked_at": None,
}


class Api:
    """Plays the API, and keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """One answer."""
        path = request.url.path.removeprefix("/v1/oauth")
        self.asked.append((request.method, path, json.loads(request.content or b"null")))
        if request.method == "DELETE":
            return httpx.Response(204)
        if path == "/keys/rotate":
            return httpx.Response(200, json={"kid": "k9"})
        if request.method == "GET":
            return httpx.Response(200, json={"items": [VIEW], "next": None})
        return httpx.Response(200, json=VIEW | {"client_secret": "s3"})

    def run(self, *words: str) -> tuple[int, str, str]:
        """One command; status, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        status = run(
            ["oauth", *words],
            environ=ENVIRON,
            out=out,
            err=err,
            stdin=io.BytesIO(),
            transport=httpx.MockTransport(self),
        )
        return status, out.getvalue(), err.getvalue()


def test_create_shows_the_secret_once() -> None:
    """Standard output has the id and the secret, and the request what was asked for."""
    api = Api()
    status, out, _ = api.run("client", "create", "ci", "--role", "agent", "--tenant", "acme", "--scope", "tools:read")
    assert status == 0
    assert out.split() == ["client_id", "client-1", "client_secret", "s3"]
    body = {"name": "ci", "tenant": "acme", "roles": ["agent"], "scopes": ["tools:read"], "groups": [], "jwk": None}
    assert api.asked == [("POST", "/clients", body)]


def test_create_with_a_public_key(tmp_path: Path) -> None:
    """The key's file is sent as it is; one that cannot be read says so."""
    api = Api()
    key = tmp_path / "key.json"
    key.write_text('{"kty": "EC"}')
    assert api.run("client", "create", "ci", "--role", "agent", "--key", str(key))[0] == 0
    assert api.asked[0][2]["jwk"] == {"kty": "EC"}
    key.write_text("no")
    status, _, err = api.run("client", "create", "ci", "--role", "agent", "--key", str(key))
    assert status != 0
    assert "cannot be read as JSON" in err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("client", "revoke", "client-1"), ("DELETE", "/clients/client-1", None)),
        (
            ("client", "rotate", "client-1", "--overlap", "1h"),
            ("POST", "/clients/client-1/rotate", {"overlap_s": 3600.0, "jwk": None}),
        ),
        (("keys", "rotate", "--withdraw"), ("POST", "/keys/rotate", {"withdraw": True})),
        (("client", "list"), ("GET", "/clients", None)),
    ],
)
def test_what_is_asked(words: tuple[str, ...], asked: tuple[str, str, Any]) -> None:
    """Each command is one request."""
    api = Api()
    assert api.run(*words)[0] == 0
    assert api.asked == [asked]
