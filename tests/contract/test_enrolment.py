"""Enrolment over real HTTP, on a real ledger: the worker's own code on one side, the core's on the other."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.testing.core_app import app_of
from orchestrator.testing.protocol import SAFE, Story
from orchestrator.testing.serving import serving
from tasks.errors import NotAllowed, SettingsError
from tasks.invocation import Lane, State
from tasks.node import JoinReply, JoinRequest, NodeState, Offer, RenewRequest
from tasks.testing.clock import FakeClock
from worker.door import Door, Refused
from worker.enrol import Credentials, Given

OPERATOR, JOIN = "fleet-token-not-a-secret", "join-token-not-a-secret"
NAME, POOL = "east-7", "east"
DIGEST, OTHER_DIGEST = "ab" * 32, "cd" * 32


class Crashed(BaseException):
    """The node's process ended here."""


class Unlucky(httpx.AsyncHTTPTransport):
    """Real HTTP; what happens before a request leaves, and after its answer came, is up to the test."""

    def __init__(self, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._before, self._after = before, after

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As sent."""
        if self._before is not None:
            self._before()
        answer = await super().handle_async_request(request)
        if self._after is not None:
            await answer.aread()
            self._after()
        return answer


@dataclass
class Fleet:
    """An orchestrator that answers at `url`."""

    url: str
    story: Story
    http: httpx.AsyncClient

    async def token(self, name: str = NAME, pool: str = POOL, ttl_s: float = 60.0) -> str:
        """As an operator asks for one."""
        answer = await self.http.post("/v1/enrolments", json={"name": name, "pool": pool, "ttl_s": ttl_s})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def enrol(self, token: str, credential_digest: str = DIGEST, name: str = NAME) -> httpx.Response:
        """As a node, without one."""
        headers = {"Authorization": f"Bearer {token}"}
        body = {"credential_digest": credential_digest}
        return await self.http.post(f"/v1/enrolments/{name}", json=body, headers=headers)

    async def revoke(self, name: str = NAME) -> int:
        """As an operator."""
        return (await self.http.delete(f"/v1/enrolments/{name}")).status_code


@asynccontextmanager
async def fleet_in(folder: Path, clock: FakeClock) -> AsyncIterator[Fleet]:
    """A leader on the ledger of this folder, and its HTTP API on a free port."""
    story = await Story.begin(folder, clock)
    core = story.core
    app = app_of(core, OPERATOR, JOIN)
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with serving(app) as url, httpx.AsyncClient(base_url=url, headers=headers) as http:
        yield Fleet(url, story, http)
    await story.end()


@pytest.fixture
async def fleet(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Fleet]:
    """One fleet."""
    async with fleet_in(tmp_path, clock) as made:
        yield made


async def start(
    fleet: Fleet,
    folder: Path,
    token: str = "",
    *,
    join_token: str = "",
    name: str = NAME,
    pool: str = POOL,
    transport: httpx.AsyncBaseTransport | None = None,
    before_join: Callable[[], None] | None = None,
) -> JoinReply:
    """A node's process begins, up to its join."""
    folder.mkdir(exist_ok=True)
    door = Door(fleet.url, transport)
    offer = Offer(name=name, pool=pool, slots={Lane.TOOLS: 2})

    async def attempt() -> JoinReply:
        if before_join is not None:
            before_join()
        return await door.join(JoinRequest(incarnation=f"{name}/1", offer=offer))

    try:
        return await Credentials(folder, name, Given(token, join_token), lambda: 0.0).enter(door, attempt)
    finally:
        await door.close()


def crash() -> None:
    """Here."""
    raise Crashed


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, str(answer.json()["code"])


async def test_a_one_time_token_becomes_a_credential_that_never_leaves_the_node(fleet: Fleet, tmp_path: Path) -> None:
    """It joins, again after a restart without any token, and ledger and folder hold what they should."""
    token, home = await fleet.token(), tmp_path / "node"
    assert (await start(fleet, home, token)).node == NAME
    [file] = home.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await start(fleet, home)).node == NAME
    [row] = await fleet.story.core.stores.ledger.enrolments()
    secret = Credentials(home, NAME, Given("", ""), lambda: 0.0)._secrets()[0]
    assert row.credential_digest == hashlib.sha256(secret.encode()).hexdigest()
    for path in tmp_path.glob("ledger.db*"):
        assert not any(word.encode() in path.read_bytes() for word in (token, secret))


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"token": "mcf_enrol_nobody-made-this"}, (401, "not_allowed")),
        ({"token": OPERATOR}, (403, "forbidden")),
        ({"token": JOIN}, (403, "forbidden")),
        ({"name": "east-8"}, (403, "forbidden")),
        ({"credential_digest": "short"}, (422, "invalid_call")),
    ],
)
async def test_a_wrong_enrolment_is_refused(fleet: Fleet, change: dict[str, Any], refused: tuple[int, str]) -> None:
    """Only this token, for this name, with a digest; afterwards the right one still works."""
    token = await fleet.token()
    assert code(await fleet.enrol(**({"token": token} | change))) == refused
    assert (await fleet.enrol(token)).json() == {"node": NAME, "pool": POOL, "certificate": "", "roots": ""}


async def test_an_expired_token_is_refused_and_says_so(fleet: Fleet, clock: FakeClock) -> None:
    """Whoever reads the node's log learns what to type."""
    token = await fleet.token(ttl_s=60.0)
    clock.advance(61.0)
    answer = await fleet.enrol(token)
    assert code(answer) == (401, "enrolment_expired")
    assert f"mcpfleet node enrol {NAME} --pool {POOL}" in answer.json()["detail"]


async def test_a_used_token_is_good_for_the_same_credential_only(fleet: Fleet, clock: FakeClock) -> None:
    """The same digest again is the same as once, however late; another is refused."""
    token = await fleet.token(ttl_s=60.0)
    assert (await fleet.enrol(token)).status_code == 200
    assert code(await fleet.enrol(token, OTHER_DIGEST)) == (409, "enrolment_spent")
    clock.advance(61.0)
    assert (await fleet.enrol(token)).status_code == 200


async def test_a_lost_answer_costs_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """The node asks again with the same digest, and is in."""
    losses = iter([True])

    def lose() -> None:
        if next(losses, False):
            raise httpx.ReadError("the connection broke after the request was served")

    reply = await start(fleet, tmp_path / "node", await fleet.token(), transport=Unlucky(after=lose))
    assert reply.node == NAME


@pytest.mark.parametrize("step", ["before the request", "after the answer", "before the join", "after the join"])
@pytest.mark.parametrize("again_with_token", [True, False])
async def test_a_node_that_died_while_it_enrolled_starts_again(
    fleet: Fleet, tmp_path: Path, step: str, again_with_token: bool
) -> None:
    """At every step, with the token still in its environment or not, as long as it can have been heard."""
    token, home = await fleet.token(), tmp_path / "node"
    fate: dict[str, Callable[..., Awaitable[JoinReply]]] = {
        "before the request": partial(start, transport=Unlucky(before=crash)),
        "after the answer": partial(start, transport=Unlucky(after=crash)),
        "before the join": partial(start, before_join=crash),
        "after the join": partial(start, transport=Unlucky(after=_second(crash))),
    }
    with pytest.raises(Crashed):
        await fate[step](fleet, home, token)
    (home / f"{NAME}.credential.next.draft").write_text('{"secret": "half of')
    if step == "before the request" and not again_with_token:
        with pytest.raises(NotAllowed):
            await start(fleet, home)
        return
    assert (await start(fleet, home, token if again_with_token else "")).node == NAME
    assert (await start(fleet, home)).node == NAME


def _second(act: Callable[[], None]) -> Callable[[], None]:
    calls = iter([False, True])
    return lambda: act() if next(calls, False) else None


@pytest.mark.parametrize(("name", "pool"), [("east-8", POOL), (NAME, "west")])
async def test_a_credential_joins_under_its_name_and_pool_only(
    fleet: Fleet, tmp_path: Path, name: str, pool: str
) -> None:
    """A node that was taken over cannot pass for another one, and cannot call tools."""
    home = tmp_path / "node"
    await start(fleet, home, await fleet.token())
    secret = Credentials(home, NAME, Given("", ""), lambda: 0.0)._secrets()[0]
    headers = {"Authorization": f"Bearer {secret}"}
    offer = {"name": name, "pool": pool, "slots": {"tools": 1}}
    answer = await fleet.http.post("/v1/nodes", json={"incarnation": "x", "offer": offer}, headers=headers)
    assert code(answer) == (403, "forbidden")
    assert "MCPFLEET_NODE_POOL" in answer.json()["detail"]
    assert (await fleet.http.get("/v1/tools", headers=headers)).status_code == 403


async def test_the_fleet_wide_token_joins_as_ever(fleet: Fleet, tmp_path: Path) -> None:
    """Any name and pool, enrolled or not; a node called `join token` cannot be enrolled."""
    for name in ("east-8", "join"):
        assert (await start(fleet, tmp_path / name, join_token=JOIN, name=name)).node == name
    answer = await fleet.http.post("/v1/enrolments", json={"name": "join token", "pool": POOL})
    assert answer.status_code == 422


async def test_rotation_leaves_the_old_credential_until_the_new_token_is_used(fleet: Fleet, tmp_path: Path) -> None:
    """No moment without a credential that works, and none with two once the new one is there."""
    old, home = tmp_path / "old", tmp_path / "node"
    await start(fleet, home, await fleet.token())
    old.mkdir()
    (old / f"{NAME}.credential").write_bytes((home / f"{NAME}.credential").read_bytes())
    token = await fleet.token()
    assert (await start(fleet, old)).node == NAME
    assert (await start(fleet, home, token)).node == NAME
    with pytest.raises(NotAllowed):
        await start(fleet, old)
    assert (await start(fleet, home)).node == NAME


async def test_a_node_goes_on_with_its_credential_where_a_new_token_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    """A stale token in a unit file must not stop a node that works."""
    home = tmp_path / "node"
    await start(fleet, home, await fleet.token())
    assert (await start(fleet, home, "mcf_enrol_stale")).node == NAME
    assert (await start(fleet, tmp_path / "fresh", "mcf_enrol_stale", join_token=JOIN, name="east-9")).node == "east-9"


async def test_another_pool_needs_a_revocation_first(fleet: Fleet) -> None:
    """A credential that works must not change what it is good for."""
    await fleet.enrol(await fleet.token())
    answer = await fleet.http.post("/v1/enrolments", json={"name": NAME, "pool": "west"})
    assert code(answer) == (409, "enrolled_elsewhere")
    assert await fleet.revoke() == 204
    assert (await fleet.enrol(await fleet.token(pool="west"))).json()["pool"] == "west"


async def test_a_revoked_node_is_out_at_once(fleet: Fleet, tmp_path: Path) -> None:
    """It cannot renew or join, gets nothing more, and what was released to it goes out again elsewhere."""
    story, home = fleet.story, tmp_path / "node"
    await start(fleet, home, await fleet.token())
    node = await story.join(NAME)  # the same name, so that a test may speak for it
    call = await story.accept(SAFE)
    await story.release()
    bystander = await story.join("east-1")
    assert await fleet.revoke() == 204
    headers = {"Authorization": f"Bearer {node.reply.node_token}"}
    renewal = RenewRequest(incarnation=node.incarnation).model_dump(mode="json")
    answer = await fleet.http.post(f"/v1/nodes/{NAME}/renewals", json=renewal, headers=headers)
    assert answer.status_code == 401
    assert not (await story.renew(node)).granted
    with pytest.raises(NotAllowed):
        await start(fleet, home)
    assert story.core.roster.get(NAME).state is NodeState.LOST
    await story.core.desk.lapse()
    assert (await story.get(call.id)).state is State.WAITING
    assert (await story.renew(bystander)).granted
    assert await fleet.revoke() == 404


async def test_a_join_that_was_under_way_when_its_node_was_revoked_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    """The credential is looked at again when it is this join's turn."""
    story, home = fleet.story, tmp_path / "node"
    await start(fleet, home, await fleet.token())
    principal = story.core.enroller.principal((await story.core.stores.ledger.enrolments())[0].credential_digest or "")
    assert principal is not None
    check = partial(story.core.enroller.check, principal, NAME, POOL)
    await fleet.revoke()
    offer = Offer(name=NAME, pool=POOL, slots={Lane.TOOLS: 1})
    with pytest.raises(NotAllowed):
        await story.core.desk.join(JoinRequest(incarnation="late", offer=offer), check)


async def test_the_next_leader_knows_every_token_and_every_revocation(tmp_path: Path, clock: FakeClock) -> None:
    """Durable before it is answered."""
    home, gone = tmp_path / "node", tmp_path / "gone"
    async with fleet_in(tmp_path, clock) as fleet:
        await start(fleet, home, await fleet.token())
        await start(fleet, gone, await fleet.token("east-6"), name="east-6")
        unused = await fleet.token("east-8")
        await fleet.revoke("east-6")
    async with fleet_in(tmp_path, clock) as fleet:
        assert (await start(fleet, home)).node == NAME
        assert (await start(fleet, tmp_path / "new", unused, name="east-8")).node == "east-8"
        with pytest.raises(NotAllowed):
            await start(fleet, gone, name="east-6")


async def test_a_machine_ordered_twice_may_use_either_token_once(fleet: Fleet) -> None:
    """Whoever asks the cloud again after a crash does not know which of its tokens the machine has."""
    enroller = fleet.story.core.enroller
    first, second = [await enroller.token(NAME, POOL, 60.0) for _ in range(2)]
    assert (await fleet.enrol(first)).status_code == 200
    assert code(await fleet.enrol(second, OTHER_DIGEST)) == (409, "enrolment_spent")
    third = await enroller.token(NAME, POOL, 60.0)  # asked again although the machine has enrolled
    assert (await fleet.enrol(first)).status_code == 200
    assert code(await fleet.enrol(first, OTHER_DIGEST)) == (409, "enrolment_spent")
    assert (await fleet.enrol(third, OTHER_DIGEST)).status_code == 200


async def test_an_operators_new_token_voids_the_one_before(fleet: Fleet) -> None:
    """Somebody may have read it over a shoulder."""
    first, second = await fleet.token(), await fleet.token()
    assert code(await fleet.enrol(first)) == (401, "not_allowed")
    assert (await fleet.enrol(second)).status_code == 200


async def test_what_expired_unused_is_forgotten(fleet: Fleet, clock: FakeClock) -> None:
    """Tokens nobody used do not pile up; a credential stays."""
    await fleet.token("east-8")
    await fleet.enrol(await fleet.token())
    clock.advance(2 * 3600.0)
    await fleet.token("east-9")
    assert {row.name for row in await fleet.story.core.stores.ledger.enrolments()} == {NAME, "east-9"}


async def test_a_credential_file_of_somebody_else_stops_the_start(fleet: Fleet, tmp_path: Path) -> None:
    """What to do is said; nothing is overwritten."""
    (tmp_path / f"{NAME}.credential").write_text("not ours")
    with pytest.raises(SettingsError, match=r"east-7\.credential cannot be read .*mcpfleet node enrol"):
        await start(fleet, tmp_path, "mcf_enrol_x")
    assert (tmp_path / f"{NAME}.credential").read_text() == "not ours"


async def test_an_older_orchestrator_without_enrolment_is_a_clear_refusal(tmp_path: Path) -> None:
    """404 is no reason to ask for ever."""

    async def no_such_path(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b'{"detail": "nothing is here"}'})

    async with serving(no_such_path) as url, httpx.AsyncClient() as http:
        with pytest.raises(Refused, match="nothing is here"):
            await start(Fleet(url, None, http), tmp_path / "node", "mcf_enrol_x")  # type: ignore[arg-type]
