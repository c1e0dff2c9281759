"""What every agent runtime is to the node: a small Protocol, and the values that go through it.

Owns the words. Refuses to know any runtime, and to start anything. See docs/adr/0013-agents.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from worker.sidecars.bill import Bill
    from worker.sidecars.guard_line import Borrower

from tasks.approval import Permission, Question
from tasks.invocation import FLEET_TENANT

ASK = "ask"
"""The permission mode in which a person is asked."""
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Permission]]
"""A tool and its exact arguments, to a person; the answer binds to just these."""


class SessionMode(StrEnum):
    """How a run begins."""

    NEW = "new"
    RESUME = "resume"
    """Goes on where the session ended, under the same id."""
    FORK = "fork"
    """Goes on from a copy: the session itself stays as it is."""


@dataclass(frozen=True, slots=True)
class Session:
    """The conversation that a run begins or continues."""

    mode: SessionMode = SessionMode.NEW
    id: str | None = None
    """The runtime's own id; with `RESUME` and `FORK`."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What a run may use. None and 0 are no limit."""

    wall_s: float
    """From the start of the runtime to its Result."""
    silence_s: float
    """Without any event: a stream that stalls, a tool that hangs."""
    turns: int | None = None
    """Requests to the model."""
    cost_usd: float | None = None
    """Money. The runtime's own limit is checked after a request; the egress refuses the next one."""


@dataclass(frozen=True, slots=True)
class AgentTask:
    """One run, as a sidecar gets it."""

    run: str
    """Names the run on this node: its processes, folders and token."""
    prompt: str = field(repr=False)
    workspace: Path
    """The run's own files; the agent's working directory."""
    home: Path
    """The run's own HOME: settings and transcripts of the runtime."""
    limits: RunLimits
    project: str | None = None
    read_only: Mapping[Path, str] = field(default_factory=dict)
    """Of the node, to where it is inside the sandbox."""
    tenant: str = FLEET_TENANT
    """Whose run it is: nobody else goes on with its session."""
    entering: tuple[str, ...] = ()
    """Words to start each of its processes with, so that the run's limits hold for it."""
    session: Session = field(default_factory=Session)
    model: str | None = None
    allowed_tools: tuple[str, ...] = ()
    """Of the runtime, in its own words, that need no permission."""
    denied_tools: tuple[str, ...] = ()
    permission_mode: str | None = None
    servers: tuple[str, ...] = ()
    """MCP servers of the node that the project lends to its runs."""
    borrower: Borrower | None = None
    """Who calls them."""
    brought: str | None = field(default=None, repr=False)
    """The transcript of the session that it resumes, where it comes from another node."""
    spent_usd: float = 0.0
    """Of `limits.cost_usd`, before it was interrupted."""
    output_schema: Mapping[str, Any] | None = None
    """JSON schema that the answer is to fit."""
    bill: Bill | None = field(default=None, repr=False, compare=False)
    """Where every request to a model is counted; the Result's usage and cost are its."""
    ask: Ask | None = None
    """Asked for a tool that is neither allowed nor denied; None where the permission mode alone decides."""
    reach: Path | None = None
    """The unix socket that leads to what its project lists; None where it lists nothing. See `way_out.py`."""


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Began:
    """The runtime is up; nothing was asked of the model yet."""

    session_id: str
    model: str
    mcp_servers: Mapping[str, str] = field(default_factory=dict)
    """How each that it was given is doing; one that failed is no failure of the run."""


@dataclass(frozen=True, slots=True)
class Said:
    """Text of the agent, whole or a part as it comes."""

    text: str
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning of the model as it comes: a sign of life, and no part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolBegan:
    """The agent uses a tool of its own."""

    id: str
    name: str
    about: str
    """What it does, for a line on a screen."""


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """What came of it."""

    id: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Retrying:
    """The provider refused a request, and the runtime asks again by itself."""

    attempt: int
    after_s: float
    status: int | None
    """Of HTTP; None where no answer came."""


@dataclass(frozen=True, slots=True)
class Asked:
    """It waits for a person: neither its silence nor its wall time count until `Answered`."""

    question: Question


@dataclass(frozen=True, slots=True)
class Answered:
    """It goes on."""

    id: str
    tool: str
    permission: Permission


# ---------------------------------------------------------------- the end


class Ending(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LIMIT = "limit"
    """One of its limits stopped it; what it did until then is there."""


class Fault(StrEnum):
    """Why a run did not succeed, by who has to do something."""

    AUTH = "auth"
    """The credential is refused: an operator's."""
    QUOTA = "quota"
    """The credential has nothing left until a named time."""
    OVERLOADED = "overloaded"
    """The provider says that it cannot now, and that asking later helps."""
    PROVIDER_FAILED = "provider_failed"
    """A server error that says nothing of the credential, nor that it passes."""
    UNREACHABLE = "unreachable"
    """Nobody answers at the endpoint."""
    CONTEXT = "context"
    """More than the model reads at once: the caller's."""
    REFUSED = "refused"
    """The provider does not take the request as it is."""
    SETUP = "setup"
    """Binary missing, wrong version, sandbox not possible: an operator's."""
    SESSION = "session"
    """No such session here."""
    PROTOCOL = "protocol"
    """The runtime ended without a Result, or said what nobody understands."""
    TURNS = "turns"
    MONEY = "money"
    WALL = "wall"
    SILENCE = "silence"
    ROOM = "room"
    """Its files take more of the disk than they may."""
    MEMORY = "memory"
    """Its processes wanted more memory than they may have together."""
    PROCESSES = "processes"
    """It had as many as it may, and its agent broke for want of another."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider counts them."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    is_estimated: bool = False
    """Some of it was counted by us, roughly: the provider said nothing."""

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.is_estimated or other.is_estimated,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The last event of every run, exactly once."""

    ending: Ending
    text: str
    """The agent's answer, or what went wrong and what to do."""
    fault: Fault | None = None
    session_id: str | None = None
    structured: Any = None
    """Fits `AgentTask.output_schema`; None where none was asked for."""
    turns: int = 0
    usage: Usage = field(default_factory=Usage)
    """Of this run alone, also where a session was resumed."""
    cost_usd: float | None = None
    """Of this run alone; None where nobody knows a price."""
    denials: tuple[str, ...] = ()
    """Tools that it asked for and was not given: a success may lack what they would have done."""
    retry_after_s: float | None = None
    """What the provider asked to wait, with `QUOTA` and `OVERLOADED`."""


Event = Began | Said | Thought | ToolBegan | ToolEnded | Retrying | Asked | Answered | Result


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a sidecar can take a run."""

    is_ready: bool
    version: str | None = None
    why_not: str | None = None
    """And what to do."""


class Sidecar(Protocol):
    """One agent runtime beside the node's MCP server."""

    async def start(self) -> Health:
        """Find what it needs; starts no agent."""
        ...

    async def health(self) -> Health:
        """As last found out."""
        ...

    def run(self, task: AgentTask) -> AsyncGenerator[Event]:
        """Events as they come; the last one is the Result, and there is exactly one.

        Closing the iterator, or cancelling who waits on it, ends everything that the run started.
        """
        ...

    async def cancel(self, run: str) -> None:
        """Ask the run to end; its Result says `cancelled`. Unknown runs are no error."""
        ...

    async def close(self) -> None:
        """End all runs."""
        ...


def kept_under(task: AgentTask) -> str:
    """Folder of the sessions that a run may go on with: of its tenant, and of its project or of none."""
    name = "none" if task.project is None else f"p-{task.project}"
    return name if task.tenant == FLEET_TENANT else f"{task.tenant}@{name}"
