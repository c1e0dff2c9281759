"""Any agent that speaks the Agent Client Protocol as a sidecar: a command, in the sandbox that every agent gets.

Owns the life of its runs. Refuses what the protocol has no words for, rather than to do without: a fork of a
session, an answer by a schema. Which variables and files tell an agent of its model is the node's configuration.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import structlog

from tasks.errors import SettingsError
from worker.sidecars.acp_config import AcpSettings
from worker.sidecars.acp_process import Found
from worker.sidecars.acp_run import AcpRun
from worker.sidecars.acp_sessions import SessionFiles
from worker.sidecars.egress import Egress
from worker.sidecars.sidecar import AgentTask, Ending, Event, Fault, Health, Result, SessionMode
from worker.workspaces import sandbox

_log = structlog.get_logger()


class Acp:
    """The sidecar. `egress` is served on `settings.egress` by whoever makes both."""

    def __init__(self, settings: AcpSettings, egress: Egress, sessions: SessionFiles) -> None:
        self._settings, self._egress, self._sessions = settings, egress, sessions
        self._running: dict[str, AcpRun] = {}
        self._health = Health(is_ready=False, why_not="not started")
        self._found = Found("", "")

    async def start(self) -> Health:
        """Find bubblewrap, the SDK and the agent's program. Starts no agent: which version it is, a run finds out."""
        self._health = await asyncio.to_thread(self._examined)
        if not self._health.is_ready:
            _log.warning("sidecar_not_ready", sidecar="acp", why=self._health.why_not)
        return self._health

    async def health(self) -> Health:
        """As found at the start."""
        return self._health

    async def run(self, task: AgentTask) -> AsyncGenerator[Event]:
        """See `Sidecar.run`."""
        if (refused := self._refused(task)) is not None:
            yield refused
            return
        run = self._running[task.run] = AcpRun(task, self._settings, self._egress, self._found)
        result = None
        try:
            session = task.session.id
            if session is not None and not await asyncio.to_thread(self._sessions.put, session, task):
                why = f"no session {session} of this project is kept on this node; begin a new one"
                result = Result(Ending.FAILED, why, Fault.SESSION)
                yield result
                return
            async for event in run.events():
                if isinstance(event, Result):
                    result = event
                else:
                    yield event
            await run.leave()  # it writes the end of its session when it is told that nothing more comes
        finally:
            self._running.pop(task.run, None)
            await run.end()
        if result is not None:
            yield await self._kept(result, task)

    async def cancel(self, run: str) -> None:
        """Ask, and end its world where it does not heed."""
        if run in self._running:
            await self._running[run].cancel()

    async def close(self) -> None:
        """End all runs."""
        await asyncio.gather(*(run.end() for run in list(self._running.values())))

    async def _kept(self, result: Result, task: AgentTask) -> Result:
        """A session that could not be kept has no name: nobody is to ask for it."""
        session = result.session_id
        if session is not None and not await asyncio.to_thread(self._sessions.keep, session, task):
            return replace(result, session_id=None)
        return result

    def _refused(self, task: AgentTask) -> Result | None:
        if not self._health.is_ready:
            return Result(Ending.FAILED, f"the agent cannot run here: {self._health.why_not}", Fault.SETUP)
        if task.run in self._running:
            return Result(Ending.FAILED, f"a run named {task.run} is at work already", Fault.SETUP)
        if task.session.mode is SessionMode.FORK:
            why = "agents of this kind cannot fork a session: continue it without fork, or begin a new one"
            return Result(Ending.FAILED, why, Fault.REFUSED)
        if task.session.id is not None and not self._sessions.is_kept:
            why = "sessions of this agent are not kept: the node's configuration names no `sessions` of its HOME"
            return Result(Ending.FAILED, why, Fault.SESSION)
        if task.output_schema is not None:
            why = "agents of this kind give no answer by a schema: ask for JSON in the prompt"
            return Result(Ending.FAILED, why, Fault.REFUSED)
        return None

    def _examined(self) -> Health:
        try:
            importlib.import_module("acp.connection")  # takes a while: not in a run's time
        except ImportError as error:
            return Health(is_ready=False, why_not=f"{error}; install mcpfleet with its extra: mcpfleet[agents]")
        try:
            self._found = Found(sandbox.find_bwrap(), sandbox.find_python())
        except SettingsError as error:
            return Health(is_ready=False, why_not=str(error))
        missing = [str(path) for path in self._settings.read_only if not path.exists()]
        if missing:
            return Health(is_ready=False, why_not=f"{missing[0]} is not there; install the agent, or mend read_only")
        if (why := self._no_program()) is not None:
            return Health(is_ready=False, why_not=why)
        return Health(is_ready=True, version=self._settings.version)

    def _no_program(self) -> str | None:
        """As far as it can be seen from outside."""
        program = Path(self._settings.command[0])
        for outside, inside in self._settings.read_only.items():
            if program.is_relative_to(inside):
                at = outside / program.relative_to(inside) if program != Path(inside) else outside
                return None if shutil.which(at) else f"{at} is no program; mend command or read_only"
        path = "/usr/local/bin:/usr/bin:/bin"
        if shutil.which(str(program), path=path):
            return None
        return f"{program} is not in the sandbox; name what holds it in read_only, or install it in /usr"
