"""Makes one sidecar and what belongs to it, of its lines in the servers file. Starts nothing yet."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import uvicorn

from tasks.clock import Clock
from tasks.secretref import SecretRef
from tasks.tool import ToolPolicy
from worker.confines.confines import Confines
from worker.confines.groups import Allowance
from worker.confines.janitor import Janitor
from worker.sidecars import openai_chat_session
from worker.sidecars.acp import Acp
from worker.sidecars.acp_config import AcpSettings
from worker.sidecars.acp_sessions import SessionFiles
from worker.sidecars.agent_answers import RUN
from worker.sidecars.agent_server import AgentServer, Extras
from worker.sidecars.asking import Terms
from worker.sidecars.bounded_http import BACKLOG, BoundedHttp
from worker.sidecars.capsules import Capsules
from worker.sidecars.chat_tools import ChatTools
from worker.sidecars.claude_code import ClaudeCode, ClaudeSettings
from worker.sidecars.credential import Credential
from worker.sidecars.egress import Egress, Endpoint
from worker.sidecars.falling_back import FallsBack
from worker.sidecars.lent import Lend
from worker.sidecars.openai_chat import OpenAIChat
from worker.sidecars.openai_chat_backend import ChatBackend, ChatEndpoint
from worker.sidecars.places import Places
from worker.sidecars.sidecar import RunLimits, Sidecar
from worker.sidecars.sidecars_file import (
    AcpEntry,
    ClaudeCodeEntry,
    OpenAIChatEntry,
    SidecarEntry,
    key_ref,
    policy_of_fall,
)
from worker.sidecars.spend import Price, Prices
from worker.sidecars.transcripts import Transcripts
from worker.sidecars.unix_socket import listening
from worker.workspaces.names import Project
from worker.workspaces.quota import WorkspaceLimits

KEY_MAX_BYTES = 10_000
CLAUDE_SESSION = ".claude/projects/-workspace/{}.jsonl"
"""Where Claude Code has a session of the working directory /workspace."""
CHAT = "/chat/completions"
"""Below the address of an OpenAI-compatible endpoint."""
NO_KEY = "none"
"""Of an endpoint that wants no key: the credential is never missing."""
STARTS_WITHIN_S = 10.0
Hold = Callable[[str, SecretRef], Callable[[], str]]
"""(sidecar, its key) → what reads the newest value; it raises OSError where there is none."""


def agent_server(
    name: str,
    entry: SidecarEntry,
    on_change: Callable[[], None],
    *,
    state: Path,
    projects: Mapping[str, Project],
    policy_of: Callable[[str], ToolPolicy],
    clock: Clock,
    lend: Lend,
    hold: Hold | None = None,
    falls_back: FallsBack | None = None,
) -> AgentServer:
    """The sidecar as an upstream. `state` is this node's own folder."""
    home = state / "sidecars" / name
    for folder in (state.parent, state, home.parent, home):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    credential = Credential(name, _reader(name, entry.key_file, hold), clock)
    prices = Prices({model: Price(**price.model_dump()) for model, price in entry.prices.items()})
    if isinstance(entry, ClaudeCodeEntry):
        behind = _claude_code(name, entry, home, credential, prices, clock, lend)
    elif isinstance(entry, AcpEntry):
        behind = _acp(entry, home, credential, prices)
    else:
        behind = _openai_chat(entry, home, credential, prices, clock)
    confines = _confines(name, entry, home)
    return AgentServer(
        name,
        behind.sidecar,
        confines=confines,
        janitor=Janitor(name, home, confines),
        limits=RunLimits(entry.wall_s, entry.silence_s, cost_usd=entry.cost_usd),
        credential=credential,
        places=Places(home, WorkspaceLimits(), projects, clock),
        serving=behind.serving,
        policy_of=policy_of,
        on_change=on_change,
        clock=clock,
        extras=behind.extras,
        learns=behind.learns,
        capsules=behind.capsules,
        terms=_terms(entry),
        falls_back=falls_back,
    )


def agent_servers(
    entries: Mapping[str, SidecarEntry],
    add: Callable[[Callable[[Callable[[], None]], AgentServer]], AgentServer],
    make: Callable[..., AgentServer],
) -> None:
    """All of one node: who is fallen back on before who falls back. `make` is `agent_server` with the rest said."""
    made: dict[str, AgentServer] = {}
    for name, entry in sorted(entries.items(), key=lambda item: policy_of_fall(item[1]) is not None):
        policy = policy_of_fall(entry)
        falls_back = None if policy is None else FallsBack(made[policy.to], policy.after_wait_s)
        made[name] = add(partial(make, name, entry, falls_back=falls_back))


@dataclass(frozen=True, slots=True)
class _Behind:
    """What differs between the kinds."""

    sidecar: Sidecar
    serving: Callable[[], AbstractAsyncContextManager[None]]
    extras: Extras | None = None
    learns: bool = True
    capsules: Capsules | None = None


def _terms(entry: SidecarEntry) -> Terms:
    return Terms(entry.approvals.wait_s, entry.approvals.mode == "free")


def _confines(name: str, entry: SidecarEntry, home: Path) -> Confines:
    share = Allowance(entry.memory_bytes, entry.cpus, entry.processes)
    mine = Path("/proc/self")
    return Confines(name, home, share, mountinfo=(mine / "mountinfo").read_text(), own=(mine / "cgroup").read_text())


def _claude_code(  # noqa: PLR0917 - one sidecar, and all that it is made of
    name: str, entry: ClaudeCodeEntry, home: Path, credential: Credential, prices: Prices, clock: Clock, lend: Lend
) -> _Behind:
    endpoint = Endpoint(entry.url, partial(_headers, credential, bearer=entry.bearer))
    egress = Egress(endpoint, prices, on_answer=lambda answer: credential.heard(answer.status_code, answer.headers))
    settings = ClaudeSettings(
        binary=entry.binary,
        version=entry.version,
        runs=home / "runs",
        egress=home / "egress.sock",
        model=entry.model,
        environ=entry.environ,
        prices=prices,
        lend=lend,
    )
    sidecar = ClaudeCode(settings, egress, Transcripts(home / "sessions", CLAUDE_SESSION))
    saves = Capsules(sidecar, f"{name}.{RUN}", clock, entry.capsule_every_s) if entry.capsule_every_s else None
    return _Behind(sidecar, partial(_served, egress, settings.egress, settings.runs), learns=False, capsules=saves)


def _acp(entry: AcpEntry, home: Path, credential: Credential, prices: Prices) -> _Behind:
    is_openai = entry.api == "openai"
    headers = partial(_headers, credential, bearer=is_openai or entry.bearer)
    endpoint = Endpoint(entry.url, headers)
    if is_openai:
        endpoint = replace(endpoint, asks=CHAT, paths=frozenset({CHAT, "/models"}))
    egress = Egress(endpoint, prices, on_answer=lambda answer: credential.heard(answer.status_code, answer.headers))
    settings = AcpSettings(
        command=entry.command,
        egress=home / "egress.sock",
        read_only=entry.read_only,
        environ=entry.environ,
        files=entry.files,
        version=entry.version,
        auth_method=entry.auth_method,
        model=entry.model,
    )
    sidecar = Acp(settings, egress, SessionFiles(home / "sessions", entry.sessions))
    return _Behind(sidecar, partial(_served, egress, settings.egress), learns=False)


def _openai_chat(entry: OpenAIChatEntry, home: Path, credential: Credential, prices: Prices, clock: Clock) -> _Behind:
    backend = ChatBackend(
        name=credential.name,
        base_url=entry.url,
        model=entry.model,
        key=(lambda: "") if entry.key_file is None else credential.secret,
        context_tokens=entry.context_tokens,
        output_tokens=entry.output_tokens,
        prices=prices,
        extra_body=entry.extra_body,
        can_call_tools=entry.can_call_tools,
        returns_reasoning=entry.returns_reasoning,
        asks_usage=entry.asks_usage,
        stall_s=entry.stall_s,
    )
    endpoint = ChatEndpoint(backend, clock)
    sidecar = OpenAIChat(endpoint, Transcripts(home / "sessions", openai_chat_session.path_of("{}")))
    saves = (
        Capsules(sidecar, f"{credential.name}.{RUN}", clock, entry.capsule_every_s) if entry.capsule_every_s else None
    )
    return _Behind(sidecar, _nothing_served, ChatTools(endpoint), capsules=saves)


@contextlib.asynccontextmanager
async def _nothing_served() -> AsyncIterator[None]:
    """The loop runs in the node: nobody in a sandbox needs a way out."""
    yield


@contextlib.asynccontextmanager
async def _served(egress: Egress, at: Path, *runs: Path) -> AsyncIterator[None]:
    """The egress, while the node runs; what a killed node left of its runs is removed first."""
    for folder in runs:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        await asyncio.to_thread(folder.mkdir, mode=0o700)
    with listening(at) as listener:
        config = uvicorn.Config(
            egress.app, http=BoundedHttp, backlog=BACKLOG, log_level="warning", access_log=False, lifespan="off"
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn offers no event
                    await asyncio.sleep(0.01)
            yield
        finally:
            server.should_exit = server.force_exit = True
            await serving
            await egress.close()


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to the node."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as uvicorn declares it
        yield


def _reader(name: str, key_file: Path | None, hold: Hold | None) -> Callable[[], str]:
    if key_file is None:
        return lambda: NO_KEY
    ref = key_ref(key_file)
    if ref is None or hold is None:
        return partial(_secret, key_file)
    return hold(name, ref)


def _secret(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(KEY_MAX_BYTES).strip()


def _headers(credential: Credential, *, bearer: bool) -> dict[str, str]:
    secret = credential.secret()
    return {"authorization": f"Bearer {secret}"} if bearer else {"x-api-key": secret}
