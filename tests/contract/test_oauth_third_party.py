"""An OpenID server that we did not write (npm `oidc-provider`) as our issuer: its tokens, and its key rotation."""

from __future__ import annotations

import json
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey

from orchestrator.identity.oauth.remote_keys import COOL_DOWN_S, KEPT_S
from orchestrator.oauth import OAuth
from orchestrator.testing.oauth import BASE, api_of, http_of, oauth_under_test
from tasks.testing.clock import FakeClock
from tests.conftest import ROOT, end, tool

pytestmark = pytest.mark.live("oidc-provider")
PACKAGES = ROOT / ".cache/oidc/node_modules"
WITHIN_S = 60.0


@dataclass
class ThirdParty:
    """The running server."""

    process: subprocess.Popen[str]
    lines: queue.Queue[str]
    secret: str
    url: str = ""

    def sign_with(self, *keys: ECKey) -> None:
        """From now on it has these keys, and signs with the first."""
        assert self.process.stdin is not None
        keyset = [{**key.as_dict(private=True), "use": "sig", "alg": "ES256"} for key in keys]
        self.process.stdin.write(json.dumps({"keys": keyset}) + "\n")
        self.process.stdin.flush()
        self.url = self.lines.get(timeout=WITHIN_S).strip()

    def token(self, **form: str) -> str:
        """By client credentials, as any client would."""
        answer = httpx.post(
            f"{self.url}/token",
            data={"grant_type": "client_credentials"} | form,
            auth=("ci", self.secret),
            timeout=WITHIN_S,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@contextmanager
def third_party() -> Iterator[ThirdParty]:
    """Running until the end."""
    node, secret = tool("node"), secrets.token_hex(16)
    assert node is not None
    process = subprocess.Popen(
        [node, str(ROOT / "tests/oidc/issuer.mjs"), str(PACKAGES), secret],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("http://"):  # it also tells what it thinks of this Node.js
                lines.put(line)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield ThirdParty(process, lines, secret)
    finally:
        end(process)
        reading.join(WITHIN_S)


def key(kid: str) -> ECKey:
    """A signing key of that id."""
    return ECKey.generate_key("P-256", {"kid": kid}, private=True)


async def status(oauth: OAuth, token: str) -> int:
    """What the API answers whoever shows it."""
    async with http_of(api_of(oauth), token) as http:
        return (await http.get("/v1/tools")).status_code


async def test_its_tokens_open_the_api_through_a_key_rotation(tmp_path: Path) -> None:
    """Accepted; a new key's at once; a withdrawn one's until the age limit and no longer; away: 503 and then again."""
    clock = FakeClock(wall_s=time.time())
    first, second = key("k1"), key("k2")
    with third_party() as it:
        it.sign_with(first)
        oauth = await _trusting(it, clock, tmp_path)
        try:
            old = it.token()
            assert await status(oauth, old) == 200
            assert await status(oauth, it.token(scope="invocations:read")) == 403  # its scope has no tools
            it.sign_with(second)  # the first is withdrawn
            new = it.token()
            clock.advance(COOL_DOWN_S)
            assert await status(oauth, new) == 200
            assert await status(oauth, old) == 401
        finally:
            await oauth.close()


async def test_a_withdrawn_key_is_refused_after_the_age_limit(tmp_path: Path) -> None:
    """Nobody shows a token of the new key, so nothing tells us: five minutes later the old one is refused all the same.

    And when the server is gone, what it signed is neither accepted nor called wrong.
    """
    clock = FakeClock(wall_s=time.time())
    with third_party() as it:
        it.sign_with(key("k1"))
        oauth = await _trusting(it, clock, tmp_path)
        try:
            old = it.token()
            assert await status(oauth, old) == 200
            it.sign_with(key("k2"))
            assert await status(oauth, old) == 200  # kept
            clock.advance(KEPT_S)
            assert await status(oauth, old) == 401
            new = it.token()
            end(it.process)
            clock.advance(KEPT_S)
            assert await status(oauth, new) == 503
        finally:
            await oauth.close()


async def _trusting(it: ThirdParty, clock: FakeClock, folder: Path) -> OAuth:
    """Our side, told of it as an operator would."""
    path = folder / "oauth.toml"
    path.write_text(f'[issuers.third]\nissuer = "{it.url}"\naudiences = ["mcpfleet"]\n')
    oauth = await oauth_under_test(clock, oauth_file=path)
    assert oauth.api.issuers == (BASE, it.url)
    return oauth
