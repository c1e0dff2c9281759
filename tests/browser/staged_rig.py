"""A console with something on every page: a real core and its doors, behind a real server, with nodes played by hand.

What takes hours on a real fleet (decisions, a run that asks, a circuit that opened) is there at once, and stays as it
is while a browser looks. The core runs in a loop of its own thread; `Stage.do` runs a step of the story there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from orchestrator.happenings import Progressed
from orchestrator.ledger.values import Booking
from orchestrator.testing.protocol import TOOLS, PlayedNode, held
from orchestrator.testing.serving import serving
from tasks.approval import Question, canonical, digest
from tasks.envelope import Delivery
from tasks.invocation import Lane
from tasks.ledger_events import Asked
from tasks.node import Phase
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.spend import Spend
from tasks.testing.clock import FakeClock
from tasks.tool import ToolSpec
from tests.contract.console_rig import OPERATOR, Field, opened

T = TypeVar("T")
WITHIN_S = 60.0
RUN = "claude_code.run"
AGENT = ToolSpec(server="claude_code", definition={"name": "run"})
GIT = ToolSpec(server="git", definition={"name": "git_push"})
COMMAND = "git push origin HEAD:refs/heads/mend-the-till\n# and then the tests:\npytest -q tests/till"
SAID = (
    "session 5e1b7c2a with claude-sonnet-4-5",
    "Read: src/till/rounding.py",
    "The cents are rounded before they are summed; the sum is a cent off for 3 of 10 receipts.",
    "Edit: src/till/rounding.py",
    "Bash: pytest -q tests/till",
)
SPENT = "credential anthropic is spent until 2027-01-15 11:40 UTC"
CRASHED = ErrorInfo("connection_lost", "git's MCP server ended: exit status 139", Failure.MAYBE_STARTED)
LETTERS = (
    (
        "files.write",
        "shop",
        ErrorInfo("tool_error", "Permission denied: /srv/shop/ledger.csv is read-only", Failure.TOOL_ERROR),
    ),
    (
        "files.read",
        "bank",
        ErrorInfo("server_error", "HTTP 502 from https://crm.example/mcp: closed", Failure.PERMANENT),
    ),
    (
        "git.git_push",
        "shop",
        ErrorInfo("connection_lost", "the connection to 'git' ended during the call", Failure.MAYBE_STARTED),
    ),
)
RUNS = (("bank", "claude-haiku-4-5", 0.0412), ("shop", "claude-sonnet-4-5", 1.73), ("shop", "glm-4.6", None))
ACTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/pauses", {"kind": "project", "name": "bank", "is_paused": True}),
    ("/v1/pauses", {"kind": "project", "name": "bank", "is_paused": False}),
    ("/v1/nodes/desk-9/state", {"state": "draining"}),
)


@dataclass
class Stage:
    """The fleet behind the console, for a test that is not in its loop."""

    url: str
    token: str
    loop: asyncio.AbstractEventLoop
    it: Field
    runs: list[Delivery] = field(default_factory=list)

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        """A step of the story, in the core's own loop."""
        return asyncio.run_coroutine_threadsafe(step, self.loop).result(WITHIN_S)

    async def says(self, *lines: str, first: int = 1) -> None:
        """The first run says something."""
        run = self.runs[0]
        for number, line in enumerate(lines, first):
            said = Progressed(run.invocation, run.fence, number, None, line, self.it.story.clock.wall_s())
            self.it.story.core.happenings.tell(said)

    async def bad(self, tool: str, project: str, error: ErrorInfo = LETTERS[1][2]) -> str:
        """One more call that ended badly; its id."""
        made = await self.it.call(tool, project=project)
        delivery = next(one for one in await self.it.story.release() if one.invocation == made)
        node = (await self.it.story.get(made)).attempts[-1].node
        await self.it.story.finish(node or "desk-1", delivery, Outcome("failed", error=error))
        return made

    async def asks(self, approval: str = "0199f2a4-7c51-7d0e-b6aa-2f0c5c1d9e11") -> Question:
        """The first run asks for a push."""
        run, now = self.runs[0], self.it.story.clock.wall_s()
        text = canonical({"command": COMMAND, "description": "Push the branch and run its tests", "timeout": 600_000})
        question = Question(approval, "Bash", text, digest(text), now - 40, now + 1400)
        await self.it.story.core.approvals.asked([("desk-1", Asked(run.invocation, run.fence, question))])
        return question


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """All of it, until the end of the block."""
    ready: threading.Event = threading.Event()
    made: list[Stage | BaseException] = []
    stop: list[Callable[[], None]] = []

    async def run() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(over.set))
        async with opened(folder, FakeClock()) as it, serving(it.app) as url:
            stage = Stage(url, OPERATOR, loop, it)
            await Filler(stage).fill()
            made.append(stage)
            ready.set()
            await over.wait()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            made.append(error)
            ready.set()

    thread = threading.Thread(target=main, name="staged-console")
    thread.start()
    try:
        assert ready.wait(WITHIN_S), "the stage was not set in time"
        if isinstance(made[0], BaseException):
            raise made[0]
        yield made[0]
    finally:
        for one in stop:
            one()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


class Filler:
    """Plays the nodes."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.it, self.story = stage, stage.it, stage.it.story
        self.nodes: list[PlayedNode] = []
        self.going: list[Delivery] = []

    async def fill(self) -> None:
        """Two nodes, letters of three kinds, runs, money, a circuit that opened, rows of the audit log."""
        join = self.story.join
        self.nodes += [await join("desk-1", tools=(*TOOLS, AGENT, GIT), slots=4, pool="builders")]
        self.nodes += [await join("desk-2", tools=(*TOOLS, GIT), slots=4, pool="builders")]
        await self.letters()
        await self.runs()
        desk = self.story.core.roster.get("desk-1")
        desk.offer = desk.offer.model_copy(update={"notes": {"claude_code": SPENT}})
        for path, body in ACTS:
            await self.it.api("POST", path, json=body)
            await self.pass_s(20.0)
        await self.circuit()

    async def pass_s(self, seconds: float) -> None:
        """Time goes on, and nodes stay."""
        self.story.clock.advance(seconds)
        for node in self.nodes:
            goes_on = [held(one, Phase.RUNNING) for one in self.going if node.name == "desk-1"]
            await self.story.renew(node, *goes_on)

    async def end(self, outcome: Outcome) -> None:
        """Whatever is waiting runs, and ends so."""
        for delivery in await self.story.release():
            node = (await self.story.get(delivery.invocation)).attempts[-1].node
            await self.story.finish(node or "desk-1", delivery, outcome)

    async def letters(self) -> None:
        """Of three kinds; the oldest was replayed."""
        for number in range(7):
            for tool, project, error in LETTERS[: 1 + number % 3]:
                await self.it.call(tool, project=project)
                await self.end(Outcome("failed", error=error))
                await self.pass_s(25.0)
        letters = (await self.it.api("GET", "/v1/dead-letters")).json()["items"]
        await self.it.api("POST", "/v1/dead-letters:replay", json={"ids": [letters[-1]["id"]]})
        await self.end(Outcome("succeeded", '{"content":[]}'))
        await self.pass_s(300.0)

    async def circuit(self) -> None:
        """`git` fails on desk-2 until its circuit opens; of these no letters are kept."""
        await self.it.api("POST", "/v1/nodes/desk-1/state", json={"state": "cordoned"})
        for _ in range(5):
            made = await self.it.call("git.git_push", project="shop")
            await self.end(Outcome("failed", error=CRASHED))
            await self.pass_s(2.0)
            await self.it.api("POST", "/v1/dead-letters:discard", json={"ids": [made]})
        await self.it.api("POST", "/v1/nodes/desk-1/state", json={"state": "active"})

    async def runs(self) -> None:
        """Three that ended, one that goes on, one that waits."""
        for number, (project, model, cost) in enumerate(RUNS):
            delivery = await self.run(project, Spend(model, 9 + 14 * number, 21_400, 6_100, 180_000, 22_000, cost))
            answer = {"content": [], "structuredContent": {"session_id": f"ses_{number}"}, "isError": False}
            self.going.remove(delivery)
            await self.story.finish("desk-1", delivery, Outcome("succeeded", orjson.dumps(answer).decode()))
            await self.pass_s(240.0)
        goes_on = Spend("claude-sonnet-4-5", 11, 14_200, 2_900, 96_000, 8_000, 0.2184)
        self.stage.runs.append(await self.run("shop", goes_on))
        await self.it.call(RUN, lane=Lane.AGENTS, project="bank")

    async def run(self, project: str, money: Spend) -> Delivery:
        """One that goes on, and what it spent."""
        await self.it.call(RUN, lane=Lane.AGENTS, project=project)
        (delivery,) = await self.story.release()
        self.going.append(delivery)
        booking = Booking(delivery.invocation, delivery.fence, "desk-1", self.story.clock.wall_s(), (money,))
        await self.story.core.stores.ledger.book([booking])
        await self.pass_s(30.0)
        return delivery
