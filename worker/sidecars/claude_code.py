"""Claude Code as a sidecar: one pinned binary, driven by claude-agent-sdk, inside a sandbox.

Owns the life of its processes and the translation of its messages. Refuses to find out what a run may
use (`RunLimits`, the egress) and where its files come from. Facts that shaped it: a failed request ends
with `subtype: success` and `is_error`; what a resumed session cost is cumulative; cancelling the SDK's
task takes seconds, interrupting does not; signals reach the sandbox, not the agent in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import shlex
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from tasks.errors import SettingsError
from worker.sidecars import claude_permissions, claude_words, way_out
from worker.sidecars.bill import Bill
from worker.sidecars.egress import Egress
from worker.sidecars.lent import Lend
from worker.sidecars.process import OneProcess
from worker.sidecars.sidecar import (
    AgentTask,
    Ending,
    Event,
    Fault,
    Health,
    Result,
    SessionMode,
)
from worker.sidecars.spend import Prices
from worker.sidecars.transcripts import Transcripts
from worker.workspaces import sandbox

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, McpSdkServerConfig

BINARY = "/opt/claude"
MANAGED = "/etc/claude-code/managed-settings.json"
INTERRUPT_S = 5.0
"""From asking it to stop to ending its world."""
CLOSE_S = 10.0
KILL_EVERY_S = 0.1
VERSION_S = 20.0
_log = structlog.get_logger()

ENVIRON = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
    "CLAUDE_CODE_MAX_RETRIES": "2",  # long waits are the fleet's: they free the slot
    "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "60000",
    "DISABLE_AUTOUPDATER": "1",
}


@dataclass(frozen=True, slots=True)
class ClaudeSettings:
    """What this node's Claude Code is."""

    binary: Path
    """The native program of the npm package."""
    version: str
    """The one that was asked for; another one is refused at start."""
    runs: Path
    """A folder for wrappers; this node's own."""
    egress: Path
    """The unix socket that `Egress` listens on."""
    lend: Lend
    """Makes the node's servers the run's. Their calls travel over standard input and output, as all control does."""
    model: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    """Beside `ENVIRON`; for models of others, their names and limits."""
    prices: Prices = field(default_factory=Prices)
    """Claude Code counts with them too: what it has no price for it counts as dear, and stops too early."""


class ClaudeCode:
    """The sidecar. `egress` is served on `settings.egress` by whoever makes both."""

    def __init__(self, settings: ClaudeSettings, egress: Egress, transcripts: Transcripts) -> None:
        self._settings, self._egress, self._transcripts = settings, egress, transcripts
        self._running: dict[str, _Run] = {}
        self._health = Health(is_ready=False, why_not="not started")
        self._bwrap = self._interpreter = ""

    async def start(self) -> Health:
        """Find bubblewrap and the binary, and ask the binary for its version. Starts no agent."""
        self._health = await self._examined()
        if not self._health.is_ready:
            _log.warning("sidecar_not_ready", sidecar="claude_code", why=self._health.why_not)
        return self._health

    async def health(self) -> Health:
        """As found at the start."""
        return self._health

    async def run(self, task: AgentTask) -> AsyncGenerator[Event]:
        """See `Sidecar.run`."""
        if not self._health.is_ready:
            yield Result(Ending.FAILED, f"Claude Code cannot run here: {self._health.why_not}", Fault.SETUP)
            return
        session = task.session.id
        if session is not None and not await asyncio.to_thread(self._put, session, task):
            why = f"no session {session} of this project is kept on this node; begin a new one"
            yield Result(Ending.FAILED, why, Fault.SESSION)
            return
        if task.run in self._running:
            yield Result(Ending.FAILED, f"a run named {task.run} is at work already", Fault.SETUP)
            return
        run = self._running[task.run] = _Run(task, self._settings, self._egress, (self._bwrap, self._interpreter))
        result = None
        try:
            async for event in run.events():
                if isinstance(event, Result):
                    result = event
                else:
                    yield event
            await run.over()  # it writes the end of its session when it is told that nothing more comes
        finally:
            self._running.pop(task.run, None)
            await run.end()
        if result is not None:
            if result.session_id is not None:
                await asyncio.to_thread(self._transcripts.keep, result.session_id, task)
            yield result

    def runtime(self) -> str:
        """See `Portable`."""
        return f"claude_code {self._settings.version}"

    def model_of(self, asked: str | None) -> str | None:
        """The caller's, or the node's."""
        return asked or self._settings.model

    def session_now(self, session: str, task: AgentTask) -> str | None:
        """It is written a line at a time, soon after what it tells."""
        return self._transcripts.now(session, task)

    def has_answers(self, transcript: str, tools: Iterable[str]) -> bool:
        """As lines of their own."""
        return all(f'"tool_use_id":"{tool}"' in transcript for tool in tools)

    def begins_a_tool(self, transcript: str) -> bool:
        """Written before it runs."""
        return '"type":"tool_use"' in transcript

    def _put(self, session: str, task: AgentTask) -> bool:
        if task.brought is not None:
            return self._transcripts.place(session, task.brought, task)
        return self._transcripts.put(session, task)

    async def cancel(self, run: str) -> None:
        """Ask, and end its world where it does not heed."""
        if run in self._running:
            await self._running[run].cancel()

    async def close(self) -> None:
        """End all runs."""
        await asyncio.gather(*(run.end() for run in list(self._running.values())))

    async def _examined(self) -> Health:
        try:
            await asyncio.to_thread(importlib.import_module, "claude_agent_sdk")  # seconds: not in a run's time
        except ImportError as error:
            return Health(is_ready=False, why_not=f"{error}; install mcpfleet with its extra: mcpfleet[agents]")
        logging.getLogger("claude_agent_sdk").setLevel(logging.CRITICAL)  # it calls each run that we end a fatal error
        try:
            self._bwrap = sandbox.find_bwrap()
            self._interpreter = sandbox.find_python()
            said = await _version(self._settings.binary)
        except (SettingsError, OSError, TimeoutError) as error:
            why = str(error) or f"{self._settings.binary} did not say its version"
            return Health(is_ready=False, why_not=f"{why}; npm install @anthropic-ai/claude-code installs it")
        if said != self._settings.version:
            why = f"{self._settings.binary} is version {said or 'unknown'}, wanted is {self._settings.version}"
            return Health(is_ready=False, version=said, why_not=why)
        return Health(is_ready=True, version=said)


async def _version(binary: Path) -> str:
    """As the program says it; empty where it says none."""
    program = await asyncio.create_subprocess_exec(binary, "--version", stdout=asyncio.subprocess.PIPE, env={})
    try:
        async with asyncio.timeout(VERSION_S):
            said, _ = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    return said.decode(errors="replace").partition(" ")[0].strip()


class _Run:
    """One run: its wrapper, its process, its client."""

    def __init__(self, task: AgentTask, settings: ClaudeSettings, egress: Egress, found: tuple[str, str]) -> None:
        """`found`: bubblewrap, and Python as it is called inside."""
        self._task, self._settings, self._egress = task, settings, egress
        self._bwrap, self._interpreter = found
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        limit_usd = task.limits.cost_usd
        left_usd = None if limit_usd is None else max(0.0, limit_usd - task.spent_usd)
        self._bill = task.bill or Bill()
        self._token = egress.admit(left_usd, self._bill)
        self._process = OneProcess(settings.runs / f"{task.run}.pid")
        self._client: ClaudeSDKClient | None = None
        self._talking: asyncio.Task[None] | None = None
        self._is_cancelled = False

    async def events(self) -> AsyncGenerator[Event]:
        """As they come. The SDK lives in a task of its own: cancelling it would take seconds."""
        self._talking = asyncio.create_task(self._talk())
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, Result):
                return

    async def cancel(self) -> None:
        """Interrupt, so that it says what it did; then the sandbox is ended."""
        self._is_cancelled = True
        with contextlib.suppress(Exception):  # it may have ended by itself meanwhile, in any way
            async with asyncio.timeout(INTERRUPT_S):
                if self._client is not None:
                    await self._client.interrupt()
                    await self.over()
        self._process.kill()

    async def over(self) -> None:
        """Until the SDK has said good-bye, or took too long for it."""
        if self._talking is not None:
            await asyncio.wait({self._talking}, timeout=CLOSE_S)

    async def end(self) -> None:
        """Nothing of it is left after this: the sandbox dies with all that is in it.

        Killed until the SDK has noticed: the process may be so young that nobody knows its id yet.
        """
        self._egress.dismiss(self._token)
        if self._talking is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    while not self._talking.done():
                        self._process.kill()
                        await asyncio.wait({self._talking}, timeout=KILL_EVERY_S)
            self._talking.cancel()
        self._process.kill()
        self._process.forget()
        for path in (*self._wrappers(), self._settings.runs / f"{self._task.run}.json"):
            path.unlink(missing_ok=True)

    async def _talk(self) -> None:
        from claude_agent_sdk import ClaudeSDKClient, ClaudeSDKError

        try:
            self._write_wrapper()
            async with contextlib.AsyncExitStack() as stack:
                client = ClaudeSDKClient(self._options())
                await client.connect()
                stack.push_async_callback(client.disconnect)
                self._client = client
                if self._is_cancelled:
                    self._events.put_nowait(claude_words.broken(OSError(), cancelled=True))
                    return
                await client.query(self._task.prompt)
                async for message in client.receive_response():
                    for event in claude_words.events_of(message, self._bill, cancelled=self._is_cancelled):
                        self._events.put_nowait(event)
        except (ClaudeSDKError, OSError) as error:
            self._events.put_nowait(claude_words.broken(error, cancelled=self._is_cancelled))
        except Exception as error:  # noqa: BLE001 - the top of a run, in a task of its own
            _log.exception("claude_code_broke", run=self._task.run)
            self._events.put_nowait(Result(Ending.FAILED, f"the SDK broke: {error}", Fault.PROTOCOL))
        finally:
            self._events.put_nowait(None)

    def _managed(self) -> Path:
        """Its settings that no project can change. Prices are believed from there alone."""
        path = self._settings.runs / f"{self._task.run}.json"
        path.write_bytes(orjson.dumps({"modelPricing": {"overrides": claude_words.pricing(self._settings.prices)}}))
        return path

    def _wrappers(self) -> tuple[Path, Path]:
        return self._settings.runs / self._task.run, self._settings.runs / f"{self._task.run}.inner"

    def _write_wrapper(self) -> None:
        """What the SDK starts in place of the binary: it notes its process id and becomes the sandbox.

        The SDK hands on the node's whole environment, and bubblewrap's own can be read inside: so all of it is
        dropped first, and what the run needs comes from a file that nobody else may read.
        """
        reach = self._task.reach
        inside = way_out.led(self._interpreter, (BINARY,), model="ANTHROPIC_BASE_URL", reach=reach)
        ours = {self._settings.binary: BINARY, **way_out.SCRIPT}
        world = sandbox.Sandbox(
            workspace=self._task.workspace,
            home=self._task.home,
            egress=self._settings.egress,
            read_only={**self._task.read_only, **ours, self._managed(): MANAGED},
            environ={**ENVIRON, **self._settings.environ, **way_out.environ(reach), "ANTHROPIC_API_KEY": self._token},
            entering=self._task.entering,
            reach=reach,
        )
        outer, inner = self._wrappers()
        words = shlex.join(sandbox.command(self._bwrap, world, inside))
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sandbox.environ(world).items())
        for path in (outer, inner):
            path.touch(mode=0o700)
        inner.write_text(f'echo $$ > {shlex.quote(str(self._process.path))}\n{exports}exec {words} "$@"\n')
        outer.write_text(f'#!/bin/sh\nexec /usr/bin/env -i /bin/sh {shlex.quote(str(inner))} "$@"\n')

    def _lent(self, name: str) -> McpSdkServerConfig:
        assert self._task.borrower is not None
        return {"type": "sdk", "name": name, "instance": self._settings.lend(name, self._task.borrower)}

    def _options(self) -> ClaudeAgentOptions:
        from claude_agent_sdk import ClaudeAgentOptions

        task, session = self._task, self._task.session
        chosen: dict[str, Any] = {}
        if session.mode is not SessionMode.NEW:
            chosen |= {"resume": session.id, "fork_session": session.mode is SessionMode.FORK}
        if task.output_schema is not None:
            chosen["output_format"] = {"type": "json_schema", "schema": dict(task.output_schema)}
        if task.ask is not None:
            chosen |= claude_permissions.asking(task.ask)
        elif task.permission_mode is not None:
            chosen["permission_mode"] = task.permission_mode
        return ClaudeAgentOptions(
            cli_path=self._wrappers()[0],
            cwd=task.workspace,
            model=task.model or self._settings.model,
            allowed_tools=list(task.allowed_tools),
            disallowed_tools=list(task.denied_tools),
            mcp_servers={name: self._lent(name) for name in task.servers},
            strict_mcp_config=True,
            setting_sources=[] if task.ask is not None else ["project"],  # a project's hook allows what it likes
            max_turns=task.limits.turns,
            max_budget_usd=task.limits.cost_usd,
            include_partial_messages=True,
            stderr=lambda line: _log.debug("claude_code_said", run=task.run, line=line[:500]),
            **chosen,
        )
