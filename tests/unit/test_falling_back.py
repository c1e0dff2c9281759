"""When a run goes to another sidecar of its node, whose run it may be, and what holds where neither can."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.errors import SettingsError
from tasks.outcome import SPENT_MIDWAY, ErrorInfo, Failure
from tasks.testing.clock import FakeClock
from worker.sidecars.bill import Bill
from worker.sidecars.capsule import Capsule, Environment, Used, sealed
from worker.sidecars.credential import Credential
from worker.sidecars.falling_back import STAYS_S, Asked, FallsBack
from worker.sidecars.run_arguments import RunArguments
from worker.sidecars.sidecar import Ending, Fault, Result
from worker.sidecars.sidecars_file import parse_sidecars, policy_of_fall
from worker.sidecars.standing import SPENT, Ran, Standing
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Ask

AFTER_S = 300.0
TOOL = "claude.run"


@dataclass
class Other:
    """The sidecar that is fallen back on."""

    name: str = "glm"
    tool: str = "glm.run"
    wall_s: float = 60.0
    able: bool = True
    fault: UpstreamError | None = None
    asked: list[Asked] = field(default_factory=list)

    def is_able(self) -> bool:
        """As the test says."""
        return self.able

    async def stand_in(self, asked: Asked) -> str:
        """Done, or not."""
        self.asked.append(asked)
        if self.fault is not None:
            raise self.fault
        return "there"


@dataclass
class Here:
    """A sidecar with one credential."""

    other: Other = field(default_factory=Other)
    clock: FakeClock = field(default_factory=FakeClock)
    lines: list[str] = field(default_factory=list)
    fault: UpstreamError | None = None

    def __post_init__(self) -> None:
        """Its credential is good."""
        self.credential = Credential("claude", lambda: "not-a-secret", self.clock)
        self.standing = Standing("claude", self.credential, lambda: None, learns=False)
        self.falls = FallsBack(self.other, AFTER_S)

    async def run(self, asked: Asked) -> str:
        """The run here."""
        del asked
        self.standing.check()
        if self.fault is not None:
            raise self.fault
        return "here"

    async def call(self, keeping: Any = None, **said: Any) -> str:
        """Wherever it goes."""
        ask = Ask("inv-1", None, None, lambda _done, _of, line: self.lines.append(line or ""), keeping=keeping)
        arguments = {"prompt": "do it"} | said
        asked = Asked(RunArguments.model_validate(arguments), arguments, ask, Bill())
        return await self.falls.either(self.run, asked, self.standing, TOOL)


async def test_a_refused_credential_falls_back_at_once() -> None:
    """It has no end to wait for; whoever watches is told, and the run says whose it is."""
    here = Here()
    here.credential.heard(401, {})
    assert here.falls.is_due(here.standing)
    assert await here.call() == "there"
    (asked,) = here.other.asked
    assert asked.instead is not None
    assert (asked.instead.of, asked.arguments) == (TOOL, {"prompt": "do it"})
    assert "is refused" in asked.instead.why
    (line,) = here.lines
    assert line.startswith("falls back to glm: claude: credential claude is refused")


@pytest.mark.parametrize(("wait_s", "goes"), [(AFTER_S, False), (AFTER_S + 1, True)])
async def test_only_a_long_wait_falls_back(wait_s: float, goes: bool) -> None:
    """What passes sooner is waited for, as ever, and the node says that it is spent."""
    here = Here()
    here.credential.heard(429, {"retry-after": str(wait_s)})
    assert here.falls.is_due(here.standing) is goes
    if goes:
        assert await here.call() == "there"
        return
    with pytest.raises(UpstreamError) as waits:
        await here.call()
    assert (waits.value.info.code, here.other.asked) == (SPENT, [])


async def test_an_overload_that_is_named_anew_counts_from_its_first_answer() -> None:
    """Fifteen seconds at a time would be waited for without an end; once something went well it is over."""
    here = Here()
    for _ in range(21):
        here.credential.heard(529, {})
        assert here.falls.is_due(here.standing) is (here.standing.out_s() > AFTER_S)
        here.clock.advance(15.0)
    here.credential.heard(529, {})
    assert await here.call() == "there"
    here.credential.heard(200, {})
    here.credential.heard(529, {})
    assert here.standing.out_s() == pytest.approx(15.0)


async def test_an_overload_of_yesterday_is_another_one() -> None:
    """Nobody asked since: that is no day of trouble."""
    here = Here()
    here.credential.heard(529, {})
    here.clock.advance(86_400.0)
    here.credential.heard(529, {})
    assert here.standing.out_s() == pytest.approx(15.0)


@pytest.mark.parametrize("said", [{"model": "opus"}, {"session": "s1"}, {"session": "s1", "fork": True}])
async def test_a_run_that_is_the_first_ones_stays_and_waits(said: dict[str, Any]) -> None:
    """At no cost in tries, though the key is refused: this node is offered for the sake of others."""
    here = Here()
    here.credential.heard(401, {})
    with pytest.raises(UpstreamError, match="does not fall back to glm: it") as stays:
        await here.call(**said)
    info = stays.value.info
    assert (info.code, info.failure, info.retry_after_s) == ("credential_refused", Failure.WAIT_UNTIL, STAYS_S)
    here.credential.heard(200, {})
    assert await here.call(**said) == "here"
    assert here.other.asked == []


async def test_a_caller_may_refuse() -> None:
    """Not every code may go to every provider; a spent one is waited for as long as it takes."""
    here = Here()
    here.credential.heard(429, {"retry-after": "1800"})
    with pytest.raises(UpstreamError, match="fallback=false") as stays:
        await here.call(fallback=False)
    assert stays.value.info.retry_after_s == pytest.approx(1800)
    assert await here.call() == "there"


@pytest.mark.parametrize(("fault", "goes"), [(Fault.PROVIDER_FAILED, False), (Fault.OVERLOADED, True)])
async def test_a_server_error_does_not_fall_back(fault: Fault, goes: bool) -> None:
    """However short the wait that the operator allows: it says nothing of the credential."""
    here = Here()
    here.falls = FallsBack(here.other, 0.0)
    here.fault = here.standing.no_answer(Ran(Result(Ending.FAILED, "it failed", fault), used_tools=False))
    if goes:
        assert await here.call() == "there"
        return
    with pytest.raises(UpstreamError) as stays:
        await here.call()
    assert (stays.value.info.failure, here.other.asked) == (Failure.NOT_STARTED, [])


@pytest.mark.parametrize("code", [SPENT_MIDWAY, "agent_unreachable", "project_unknown"])
async def test_what_is_no_credentials_trouble_stays(code: str) -> None:
    """A run in its middle above all: its session is the first model's."""
    here = Here(fault=UpstreamError(ErrorInfo(code, "so", Failure.WAIT_UNTIL, 9999.0)))
    with pytest.raises(UpstreamError) as stays:
        await here.call()
    assert (stays.value, here.other.asked) == (here.fault, [])


async def test_where_the_other_cannot_either_it_is_as_without_it() -> None:
    """Known before, or found out by the run."""
    here = Here(other=Other(able=False))
    here.credential.heard(401, {})
    assert not here.falls.is_due(here.standing)
    with pytest.raises(UpstreamError) as refused:
        await here.call(model="opus")
    assert (refused.value.info.failure, here.other.asked) == (Failure.NOT_STARTED, [])
    here.other.able = True
    here.other.fault = UpstreamError(ErrorInfo("agent_auth", "glm: no", Failure.NOT_STARTED))
    with pytest.raises(UpstreamError, match="credential claude is refused"):
        await here.call()


@pytest.mark.parametrize(
    ("first", "second_s", "whose"), [("401", 900.0, "glm"), ("1800", 900.0, "glm"), ("1800", 3600.0, "claude")]
)
async def test_of_two_waits_the_shorter_one_holds(first: str, second_s: float, whose: str) -> None:
    """And one that ends holds before one that does not."""
    here = Here()
    here.credential.heard(401 if first == "401" else 429, {"retry-after": first})
    here.other.fault = UpstreamError(ErrorInfo(SPENT, "glm: spent", Failure.WAIT_UNTIL, second_s))
    with pytest.raises(UpstreamError, match=whose):
        await here.call()


@dataclass
class Kept:
    """What an earlier attempt saved."""

    data: bytes
    node: str = "a1"
    fence: int = 2
    limit_bytes: int = 10**6
    left: str | None = "digest"
    until: float | None = None

    async def fetch(self) -> bytes:
        """That."""
        return self.data

    async def save(self, number: int, data: bytes) -> None:
        """Nothing more."""


def _kept(tool: str) -> Kept:
    environment = Environment(tool=tool, project="shop", runtime="agent 1", model="m", arguments="0" * 64)
    return Kept(sealed(Capsule("inv-1", 1, 1, "s1", environment, Used(), ("b1",), "said\n", "a" * 40)))


async def test_a_run_goes_on_where_it_was_begun() -> None:
    """Whatever became of the credentials meanwhile; the first one's waits for its own."""
    here = Here()
    assert await here.call(_kept("glm.run")) == "there"
    assert await here.call(_kept(TOOL)) == "here"
    here.credential.heard(401, {})
    with pytest.raises(UpstreamError, match="in the middle of its work") as stays:
        await here.call(_kept(TOOL))
    assert stays.value.info.failure is Failure.WAIT_UNTIL
    with pytest.raises(UpstreamError) as broken:
        await here.call(Kept(b"junk"))
    assert broken.value.info.code == "capsule_broken"


@pytest.mark.parametrize("code", ["credential_refused", "server_unavailable", "agent_setup"])
async def test_a_run_that_fell_back_and_cannot_go_on_keeps_its_tries(code: str) -> None:
    """Its session would be lost with them in minutes; what is wrong with the other one may take somebody hours."""
    here = Here()
    here.other.fault = UpstreamError(ErrorInfo(code, "glm: so", Failure.NOT_STARTED))
    with pytest.raises(UpstreamError) as waits:
        await here.call(_kept("glm.run"))
    assert waits.value.info == ErrorInfo(
        code, "glm: so; its session is of glm, and goes on there", Failure.WAIT_UNTIL, STAYS_S
    )
    here.other.fault = UpstreamError(ErrorInfo("capsule_broken", "glm: so", Failure.PERMANENT))
    with pytest.raises(UpstreamError) as ends:
        await here.call(_kept("glm.run"))
    assert ends.value is here.other.fault


def _entry(**more: Any) -> dict[str, Any]:
    said = {"kind": "claude_code", "binary": "/opt/claude", "version": "1", "key_file": "/etc/key", "model": "glm-5"}
    return said | {"prices": {"glm": {"input": 1, "output": 2}}} | more


CHAT = {"kind": "openai_chat", "url": "http://127.0.0.1:1/v1", "model": "glm-5"}


@pytest.mark.parametrize(
    ("others", "policy", "wrong"),
    [
        ({"glm": _entry()}, {"to": "gml"}, "to: 'gml' is no other sidecar of this node; known are glm"),
        ({}, {"to": "claude"}, "'claude' is no other sidecar of this node; known are none"),
        ({"glm": CHAT}, {"to": "glm"}, "'glm' is of the kind openai_chat"),
        ({"glm": _entry(falls_back={"to": "claude"})}, {"to": "glm"}, "'glm' falls back itself, to 'claude'"),
        ({"glm": _entry(model=None)}, {"to": "glm"}, "'glm' names no model"),
        ({"glm": _entry(prices={"glm-4": {"input": 1, "output": 1}})}, {"to": "glm"}, "no price for its model 'glm-5'"),
        ({"glm": _entry()}, {"to": "glm", "after_wait_s": -1}, "falls_back.after_wait_s"),
        ({"glm": _entry()}, {"to": "glm", "afer": 1}, "falls_back.afer"),
        ({"glm": _entry()}, {}, "falls_back.to"),
    ],
)
def test_what_is_wrong_with_a_policy_is_named_at_the_start(
    others: dict[str, Any], policy: dict[str, Any], wrong: str
) -> None:
    """No chain and no loop; nobody is asked for what it has no words, model or price for."""
    with pytest.raises(SettingsError, match="here: claude") as refused:
        parse_sidecars({"claude": _entry(falls_back=policy)} | others, "here")
    assert wrong in refused.value.message


def test_a_good_policy_is_read_and_only_claude_code_has_one() -> None:
    """Its wait has a default; the order of the file is nobody's."""
    entries = parse_sidecars(json.loads(json.dumps({"claude": _entry(falls_back={"to": "glm"}), "glm": _entry()})), "h")
    policy = policy_of_fall(entries["claude"])
    assert policy is not None
    assert policy.after_wait_s == AFTER_S
    with pytest.raises(SettingsError, match="falls_back: Extra inputs"):
        parse_sidecars({"chat": CHAT | {"falls_back": {"to": "glm"}}, "glm": _entry()}, "here")
