"""Challenge and response: a nonce is good once, for its key, on its server."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.identity import challenges
from orchestrator.identity.challenges import NONCE_TTL_S, SESSION_TTL_S, Challenges, SessionOver, signed
from orchestrator.identity.key_errors import KeyExpired
from orchestrator.identity.keys import Keys
from orchestrator.ledger.key_values import WantedKey
from orchestrator.presented import Presented
from orchestrator.testing.doors import MemoryKeys
from tasks.errors import NotAllowed
from tasks.invocation import Principal
from tasks.scopes import Role
from tasks.testing.clock import FakeClock

ADMIN = Principal("root", roles=frozenset({Role.ADMIN}))
HERE = "fleet.example:8700"


def b64(raw: bytes) -> str:
    """As it is sent."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Agent:
    """A private key, and the fleet's end."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.keys = Keys(store=MemoryKeys(), clock=self.clock)
        self.desk = Challenges(keys=self.keys, clock=self.clock, names=("fleet.example",))
        self.private = Ed25519PrivateKey.generate()
        self.id = ""

    async def registered(self) -> Agent:
        """With its public key known."""
        public = b64(self.private.public_key().public_bytes_raw())
        wanted = WantedKey("agent", "bot", "acme", frozenset({Role.AGENT}), None, public_key=public, lifetime_s=3600.0)
        self.id = (await self.keys.issue(wanted, ADMIN)).row.id
        return self

    def answer(self, nonce: str, server: str = HERE) -> str:
        """The signature."""
        return b64(self.private.sign(signed(server, self.id, nonce)))

    def open(self, nonce: str, signature: str | None = None, server: str = HERE, key: str | None = None) -> str:
        """A session's token."""
        said = self.answer(nonce) if signature is None else signature
        return self.desk.session(key or self.id, nonce, said, server=server, peer=None).token

    async def who(self, token: str) -> Principal | None:
        """Whoever shows it."""
        return await self.desk.principal(Presented(token))


@pytest.fixture
async def agent() -> Agent:
    """One that is registered."""
    return await Agent().registered()


async def test_a_signed_nonce_opens_a_session(agent: Agent) -> None:
    """As whom the key stands for."""
    token = agent.open(agent.desk.challenge(agent.id)[0])
    assert await agent.who(token) == Principal("bot", "acme", frozenset({"agent"}), credential=f"key:{agent.id}")


async def test_a_nonce_is_good_once(agent: Agent) -> None:
    """Of twenty who race with the same signed nonce, one wins."""
    nonce, _ = agent.desk.challenge(agent.id)

    async def race() -> bool:
        try:
            return bool(agent.open(nonce))
        except NotAllowed:
            return False

    assert sum(await asyncio.gather(*(race() for _ in range(20)))) == 1


async def test_a_wrong_answer_uses_the_nonce_up(agent: Agent) -> None:
    """Nobody tries twice on one."""
    nonce, _ = agent.desk.challenge(agent.id)
    with pytest.raises(NotAllowed):
        agent.open(nonce, signature=b64(bytes(64)))
    with pytest.raises(NotAllowed):
        agent.open(nonce)


@pytest.mark.parametrize("what", ["another server", "another key", "made up", "old", "junk", "foreign signer"])
async def test_what_was_not_signed_for_this_opens_nothing(agent: Agent, what: str) -> None:
    """Server, key and nonce are all in what is signed."""
    nonce, _ = agent.desk.challenge(agent.id)
    other = await Agent().registered()
    tries = {
        "another server": lambda: agent.open(nonce, signature=agent.answer(nonce, "evil.example:8700")),
        "another key": lambda: agent.open(agent.desk.challenge("0" * 10)[0]),
        "made up": lambda: agent.open("made-up"),
        "old": lambda: (agent.clock.advance(NONCE_TTL_S), agent.open(nonce)),
        "junk": lambda: agent.open(nonce, signature="ü!"),
        "foreign signer": lambda: agent.open(nonce, signature=b64(other.private.sign(signed(HERE, agent.id, nonce)))),
    }
    with pytest.raises(NotAllowed):
        tries[what]()


async def test_an_answer_that_another_server_was_given_opens_nothing(agent: Agent) -> None:
    """Who stands in between may write whatever Host: this fleet knows its own names."""
    nonce, _ = agent.desk.challenge(agent.id)
    for evil in ("evil.example:8700", "evil.example", "", "fleet.example.evil.example", "evil.example@x", "[::1"):
        with pytest.raises(NotAllowed, match="no name of this fleet"):
            agent.open(nonce, signature=agent.answer(nonce, evil), server=evil)
    assert agent.open(nonce)


async def test_an_unknown_key_gets_a_nonce_too(agent: Agent) -> None:
    """So nobody learns which keys there are; a bearer's key signs nothing."""
    bearer = await agent.keys.issue(WantedKey("b", "b", "default", frozenset({Role.AGENT}), None), ADMIN)
    for key in ("0123456789", bearer.row.id):
        nonce, _ = agent.desk.challenge(key)
        with pytest.raises(NotAllowed):
            agent.open(nonce, key=key)


async def test_a_session_ends_with_its_time_or_its_key(agent: Agent) -> None:
    """Revoking the key ends what it opened, at once."""
    token = agent.open(agent.desk.challenge(agent.id)[0])
    agent.clock.advance(SESSION_TTL_S)
    with pytest.raises(SessionOver):
        await agent.who(token)
    token = agent.open(agent.desk.challenge(agent.id)[0])
    await agent.keys.revoke(agent.id, ADMIN)
    with pytest.raises(SessionOver):
        await agent.who(token)


async def test_an_expired_key_opens_nothing(agent: Agent) -> None:
    """However well it signs."""
    agent.clock.advance(3600.0)
    with pytest.raises(KeyExpired):
        agent.open(agent.desk.challenge(agent.id)[0])


async def test_nonces_and_sessions_are_bounded(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may ask for one: the oldest goes."""
    monkeypatch.setattr(challenges, "NONCES_MAX", 3)
    nonces = [agent.desk.challenge(agent.id)[0] for _ in range(4)]
    with pytest.raises(NotAllowed):
        agent.open(nonces[0])
    assert agent.open(nonces[3])


async def test_other_tokens_are_none_of_its_business(agent: Agent) -> None:
    """It is asked in turn with others."""
    assert await agent.who("mcf_live_x") is None
    assert await agent.who("") is None
    assert replace(Presented("secret"), peer="x").__repr__().find("secret") == -1
