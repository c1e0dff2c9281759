"""OAuth at a real orchestrator: a client by the command line, a token by discovery's word, its end over a restart."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

WITHIN_S = 120.0
ASK_EVERY_S = 0.1


@dataclass
class Orchestrator:
    """Its folder, and how it is reached."""

    folder: Path
    redis_url: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    join_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    url: str = ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the end; the second time on the same port, which its tokens are bound to."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        settings = {
            "MCPFLEET_DATABASE_URL": f"sqlite:///{self.folder / 'ledger.db'}",
            "MCPFLEET_REDIS_URL": self.redis_url,
            "MCPFLEET_BLOB_DIR": str(self.folder / "blobs"),
            "MCPFLEET_TOKEN": self.token,
            "MCPFLEET_JOIN_TOKEN": self.join_token,
            "MCPFLEET_PORT": self.url.rpartition(":")[2] or "0",
            "MCPFLEET_READY_FILE": str(ready),
            "MCPFLEET_LEADER_TTL_S": "2",
            "MCPFLEET_OAUTH_SERVER": "true",
        }
        log = self.folder / "orchestrator.log"
        with log.open("ab") as out:
            words = [sys.executable, "-m", "orchestrator.cli.main", "serve"]
            process = subprocess.Popen(words, env=self.environ | settings, cwd=self.folder, stdout=out, stderr=out)
        try:
            ends_s = time.monotonic() + WITHIN_S
            while not ready.exists():
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < ends_s, log.read_text()[-3000:]
                time.sleep(ASK_EVERY_S)
            self.url = ready.read_text().strip()
            yield
        finally:
            process.kill()
            process.wait(WITHIN_S)

    @property
    def environ(self) -> dict[str, str]:
        """Without a fleet of its own."""
        return {key: value for key, value in os.environ.items() if not key.startswith("MCPFLEET_")}

    def mcpfleet(self, *words: str) -> Any:
        """A command's JSON."""
        ours = {"MCPFLEET_URL": self.url, "MCPFLEET_TOKEN": self.token}
        line = [sys.executable, "-m", "orchestrator.cli.main", *words, "--json"]
        ran = subprocess.run(
            line, env=self.environ | ours, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def get(self, path: str, token: str = "") -> httpx.Response:
        """One answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.get(self.url + path, headers=headers, timeout=WITHIN_S, trust_env=False)

    def token_of(self, client: dict[str, Any]) -> str:
        """From where the door's metadata leads."""
        challenge = self.get("/v1/tools").headers["www-authenticate"]
        metadata = challenge.partition('resource_metadata="')[2].partition('"')[0]
        door = self.get(metadata.removeprefix(self.url)).json()
        (issuer,) = door["authorization_servers"]
        server = self.get(issuer.removeprefix(self.url) + "/.well-known/oauth-authorization-server").json()
        answer = httpx.post(
            server["token_endpoint"],
            data={"grant_type": "client_credentials", "resource": door["resource"]},
            auth=(client["client_id"], client["client_secret"]),
            timeout=WITHIN_S,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@pytest.fixture
def orchestrator(tmp_path: Path, redis_url: str) -> Orchestrator:
    """Not started yet."""
    return Orchestrator(tmp_path, redis_url)


def test_a_client_gets_in_and_is_put_out_over_a_restart(orchestrator: Orchestrator) -> None:
    """Clients are durable; signing keys, without a key ring, are not: clients fetch another token and go on."""
    it = orchestrator
    with it.running():
        client = it.mcpfleet("oauth", "client", "create", "ci", "--role", "developer", "--tenant", "acme")
        token = it.token_of(client)
        me = it.get("/v1/whoami", token).json()
        assert (me["id"], me["tenant"], me["roles"]) == (client["client_id"], "acme", ["developer"])
        kid = it.mcpfleet("oauth", "keys", "rotate")["kid"]
        assert [key["kid"] == kid for key in it.get("/oauth/jwks").json()["keys"]].count(True) == 1
        assert it.get("/v1/tools", token).status_code == 200  # of the key before
    with it.running():
        assert it.get("/v1/tools", token).status_code == 401
        token = it.token_of(client)
        assert it.get("/v1/tools", token).status_code == 200
        it.mcpfleet("oauth", "client", "revoke", client["client_id"])
        refused = it.get("/v1/tools", token)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    log = (it.folder / "orchestrator.log").read_text()
    assert "oauth_keys_in_memory" in log
    assert client["client_secret"] not in log
    assert token not in log
