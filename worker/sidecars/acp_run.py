"""One run of an ACP agent: its process in a sandbox, the dialogue with it, and how it ends.

Owns the order of the dialogue and everything that was started for it. Refuses to keep sessions, and to judge what
the agent says (`acp_words.py`). The client offers it neither files nor terminals: it has its own, in the sandbox.
Source: Agent Client Protocol v1, initialization, session setup, prompt turn, cancellation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from worker.sidecars import acp_words, way_out
from worker.sidecars.acp_asks import Questions, arguments_of
from worker.sidecars.acp_config import VARIABLE, AcpSettings, Filled, filled
from worker.sidecars.acp_permissions import Policy
from worker.sidecars.acp_process import AcpProcess, Found
from worker.sidecars.bill import Bill
from worker.sidecars.egress import Egress
from worker.sidecars.sidecar import AgentTask, Began, Ending, Event, Fault, Result, SessionMode, Usage
from worker.workspaces import sandbox
from worker.workspaces.tree import NotThere, Tree

if TYPE_CHECKING:
    from acp.connection import Connection

PROTOCOL = 1
STARTS_WITHIN_S = 90.0
"""To `initialize` and to the session, each: some load half a package registry first."""
CANCEL_S = 1.0
"""From asking it to stop to ending its world."""
LEAVES_WITHIN_S = 2.0
"""From its last word to its end: it may write its session down."""
LOOK_S = 1.0
QUIET_S = 30.0
"""That an agent may say nothing while the provider refuses: long waits are the fleet's, they free the slot."""
NOT_LENT = "not given: it would need a network, which the sandbox has not"
AUTH_REQUIRED = -32000
DENIALS_MAX = 1_000
_log = structlog.get_logger()


class _Given(Exception):
    """The run is over before its prompt was answered. Inside this module only."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.text)
        self.result = result


class AcpRun:
    """Started by `events()`; nothing of it is left after `end()`."""

    def __init__(self, task: AgentTask, settings: AcpSettings, egress: Egress, found: Found) -> None:
        self._task, self._settings, self._egress, self._found = task, settings, egress, found
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._bill = task.bill or Bill()
        self._token = egress.admit(task.limits.cost_usd, self._bill, task.limits.turns)
        self._asked = egress.asked(self._token)
        policy = Policy.of(task.allowed_tools, task.denied_tools, task.permission_mode)
        self._hearing, self._questions = acp_words.Hearing(policy), Questions(policy, task.ask)
        self._denials: list[str] = []
        self._process: AcpProcess | None = None
        self._connection: Connection | None = None
        self._talking: asyncio.Task[None] | None = None
        self._session: str | None = None
        self._is_prompted = self._is_cancelled = False
        self._heard = 0

    async def events(self) -> AsyncGenerator[Event]:
        """As they come; the last one is the Result."""
        self._talking = asyncio.create_task(self._talk())
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, Result):
                return

    async def cancel(self) -> None:
        """Ask it, so that it says what it did; then its world is ended."""
        self._is_cancelled = True
        await self._ask_to_stop()
        if self._talking is not None:
            await asyncio.wait({self._talking}, timeout=CANCEL_S)
        if self._process is not None:
            await self._process.stop()

    async def leave(self) -> None:
        """It was told that nothing more comes: let it end by itself, for a while."""
        if self._process is not None:
            await self._process.leave(LEAVES_WITHIN_S)

    async def end(self) -> None:
        """The sandbox dies with all that is in it."""
        self._egress.dismiss(self._token)
        if self._talking is not None:
            self._talking.cancel()
            await asyncio.gather(self._talking, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()
        if self._process is not None:
            await self._process.kill()

    # ---------------------------------------------------------------- the dialogue

    async def _talk(self) -> None:
        try:
            result = await self._answered()
        except _Given as given:
            result = given.result
        except (ConnectionError, OSError, TimeoutError) as error:
            result = await self._broken(error)
        except Exception as error:  # noqa: BLE001 - the top of a run, in a task of its own
            _log.exception("acp_broke", run=self._task.run)
            result = Result(Ending.FAILED, f"the agent broke the dialogue: {error}", Fault.PROTOCOL)
        self._events.put_nowait(self._with_figures(result))
        self._events.put_nowait(None)

    async def _answered(self) -> Result:
        from acp.connection import Connection

        task = self._task
        ours = filled(self._settings, token=self._token, model=task.model or self._settings.model or "")
        await asyncio.to_thread(_write, task.home, ours)
        self._process = await AcpProcess.start(self._command(ours), self._world(ours))
        if self._is_cancelled:
            raise ConnectionError("cancelled before it began")
        self._connection = Connection(self._called, self._process.wire)
        can = await self._initialized()
        self._session = await self._session_of(can, {"cwd": sandbox.WORKSPACE, "mcpServers": []})
        model = task.model or self._settings.model or "the agent's own model"
        self._events.put_nowait(Began(self._session, model, dict.fromkeys(task.servers, NOT_LENT)))
        self._hearing.is_listening = self._is_prompted = True
        said = {"sessionId": self._session, "prompt": [{"type": "text", "text": task.prompt}]}
        prompting = asyncio.create_task(self._connection.send_request("session/prompt", said))
        try:
            return await self._watched(prompting)
        finally:
            if not prompting.done():
                await self._ask_to_stop()
            prompting.cancel()
            await asyncio.gather(prompting, return_exceptions=True)

    async def _initialized(self) -> Mapping[str, Any]:
        """What it can do."""
        client = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        said = {"protocolVersion": PROTOCOL, "clientCapabilities": client, "clientInfo": _CLIENT}
        answer = await self._started("initialize", said)
        if answer.get("protocolVersion") != PROTOCOL:
            why = f"the agent speaks version {answer.get('protocolVersion')!r} of ACP, mcpfleet {PROTOCOL}"
            raise _Given(Result(Ending.FAILED, f"{why}: give the node another version of the agent", Fault.SETUP))
        version = str((answer.get("agentInfo") or {}).get("version") or "unknown")
        if self._settings.version not in (None, version):
            why = f"the agent is version {version}, wanted is {self._settings.version}"
            raise _Given(Result(Ending.FAILED, why, Fault.SETUP))
        if self._settings.auth_method is not None:
            await self._started("authenticate", {"methodId": self._settings.auth_method})
        return answer.get("agentCapabilities") or {}

    async def _session_of(self, can: Mapping[str, Any], said: dict[str, Any]) -> str:
        """Begun or gone on with; its id."""
        session = self._task.session
        if session.mode is SessionMode.NEW:
            answer = await self._started("session/new", said)
            if not isinstance(answer.get("sessionId"), str):
                raise _Given(Result(Ending.FAILED, "the agent began a session without an id", Fault.PROTOCOL))
            if self._task.model is not None and not self._settings.takes_model:
                await self._choose_model(answer, self._task.model)
            return str(answer["sessionId"])
        method = "session/load" if can.get("loadSession") else "session/resume"
        if method == "session/resume" and "resume" not in (can.get("sessionCapabilities") or {}):
            raise _Given(
                Result(Ending.FAILED, "this agent cannot go on with a session: begin a new one", Fault.SESSION)
            )
        await self._started(method, said | {"sessionId": session.id}, Fault.SESSION)
        return session.id or ""

    async def _choose_model(self, answer: Mapping[str, Any], model: str) -> None:
        for option in answer.get("configOptions") or ():
            if option.get("category") == "model" and any(each.get("value") == model for each in option["options"]):
                said = {"sessionId": answer["sessionId"], "configId": option["id"], "value": model}
                await self._started("session/set_config_option", said)
                return
        why = f"this agent offers no model {model!r}, and no template of the node's configuration names {{model}}"
        raise _Given(Result(Ending.FAILED, why, Fault.REFUSED))

    async def _started(self, method: str, said: dict[str, Any], fault: Fault = Fault.SETUP) -> Mapping[str, Any]:
        """An answer before the prompt. Raises TimeoutError, and _Given where the agent refuses."""
        from acp.exceptions import RequestError

        assert self._connection is not None
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                answer = await self._connection.send_request(method, said)
        except RequestError as error:
            why = f"the agent refused {method}: {_words(error)}"
            if error.code == AUTH_REQUIRED:
                fault, why = Fault.SETUP, f"{why}; it wants a login: name its key's variable or auth_method"
            raise _Given(Result(Ending.FAILED, why, fault)) from error
        return answer if isinstance(answer, dict) else {}

    async def _watched(self, prompting: asyncio.Task[Any]) -> Result:
        """Until it answers, or there is no sense in waiting on."""
        from acp.exceptions import RequestError

        quiet_s, heard = 0.0, self._heard
        while not (await asyncio.wait({prompting}, timeout=LOOK_S))[0]:
            quiet_s = quiet_s + LOOK_S if self._heard == heard else 0.0
            heard = self._heard
            if self._hearing.overstepped is not None:
                break
            if self._asked.trouble in _HOPELESS and quiet_s >= QUIET_S and not self._hearing.has_open_tools:
                return self._judged(*acp_words.refused("it waited for the provider", self._asked.trouble))
        if self._hearing.overstepped is not None:
            why = f"the agent used {self._hearing.overstepped}: its configuration on the node must make it ask"
            return self._judged(Ending.FAILED, Fault.PROTOCOL, why)
        try:
            answer = prompting.result()
        except RequestError as error:
            return self._judged(*acp_words.refused(_words(error), self._asked.trouble))
        stop = answer.get("stopReason") if isinstance(answer, dict) else None
        for event in self._hearing.whole():
            self._events.put_nowait(event)
        return self._judged(*acp_words.ended(stop, self._hearing.last))

    # ---------------------------------------------------------------- what it asks of us

    async def _called(self, method: str, params: Any, is_notification: bool) -> Any:  # noqa: ANN401 - the SDK's
        """`acp.connection.MethodHandler`. Everything but these two is not offered."""
        from acp.exceptions import RequestError

        said = params if isinstance(params, dict) else {}
        if method == "session/update":
            update = said.get("update")
            if isinstance(update, dict):
                self._heard += 1
                for event in self._hearing.events(update):
                    self._events.put_nowait(event)
            return None
        if method == "session/request_permission":
            return {"outcome": await self._permitted(said)}
        if is_notification:
            return None
        raise RequestError.method_not_found(method)

    async def _permitted(self, said: Mapping[str, Any]) -> dict[str, str]:
        """By the policy, or by a person; nothing any more once the run is to end."""
        call, options = said.get("toolCall"), said.get("options")
        if self._is_cancelled or not isinstance(call, dict) or not isinstance(options, list):
            return {"outcome": "cancelled"}
        tool, events = self._hearing.asked(call)
        for event in events:
            self._events.put_nowait(event)
        if self._hearing.overstepped is not None:
            return {"outcome": "cancelled"}
        name = acp_words.name_of(call)
        is_allowed = await self._questions.allowed(tool, arguments_of(call, self._hearing.input_of(name)), options)
        if is_allowed is not None:
            self._hearing.answered(name, is_allowed=is_allowed)
        if is_allowed is False and len(self._denials) < DENIALS_MAX:
            self._denials.append(tool.called)
        return self._questions.outcome(options, is_allowed=is_allowed)

    async def _ask_to_stop(self) -> None:
        """As far as it listens: one that reads nothing is not waited for."""
        self._questions.withdraw()
        if self._connection is None or not self._is_prompted:
            return
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self._connection.send_notification("session/cancel", {"sessionId": self._session})

    # ---------------------------------------------------------------- the end

    def _judged(self, ending: Ending, fault: Fault | None, text: str) -> Result:
        if self._is_cancelled:
            ending, fault, text = Ending.CANCELLED, None, "the run was cancelled"
        return Result(ending, text, fault)

    async def _broken(self, error: Exception) -> Result:
        """It ended, hangs, or cannot be understood."""
        if self._is_cancelled:
            return Result(Ending.CANCELLED, "the run was cancelled")
        fault = Fault.PROTOCOL if self._is_prompted else Fault.SETUP
        if isinstance(error, TimeoutError):
            said = f"the agent did not get ready within {STARTS_WITHIN_S:g} s"
        elif self._process is None:
            said = f"the agent could not be started: {error}"
        else:
            said = await self._process.why()
        hint = "" if self._is_prompted else f"; the command is {' '.join(self._settings.command)!r}"
        return Result(Ending.FAILED, f"{said}{hint}", fault)

    def _with_figures(self, result: Result) -> Result:
        """The node's own count, or else the agent's word."""
        usage, cost = self._bill.usage, self._bill.cost_usd
        if usage == Usage() or cost is None:
            cost = self._hearing.cost_usd(is_new=self._task.session.mode is SessionMode.NEW)
        return Result(
            ending=result.ending,
            text=result.text,
            fault=result.fault,
            session_id=self._session,
            turns=self._asked.requests,
            usage=usage,
            cost_usd=cost,
            denials=tuple(self._denials),
        )

    # ---------------------------------------------------------------- its world

    def _command(self, ours: Filled) -> tuple[str, ...]:
        return way_out.led(self._found.interpreter, ours.command, model=VARIABLE, reach=self._task.reach)

    def _world(self, ours: Filled) -> tuple[str, sandbox.Sandbox]:
        world = sandbox.Sandbox(
            workspace=self._task.workspace,
            home=self._task.home,
            egress=self._settings.egress,
            read_only={**self._task.read_only, **self._settings.read_only, **way_out.SCRIPT},
            environ={**ours.environ, **way_out.environ(self._task.reach)},
            entering=self._task.entering,
            reach=self._task.reach,
        )
        return self._found.bwrap, world


_CLIENT = {"name": "mcpfleet", "version": "1"}
_HOPELESS = frozenset({401, 429, 529})
"""Of the credential: another request does not mend them."""


def _write(home: Path, ours: Filled) -> None:
    tree = Tree(home)
    for path, text in ours.files.items():
        failed = tree.write(path, text)
        if isinstance(failed, NotThere):
            why = f"the agent's file could not be written into HOME: {failed.why}"
            raise _Given(Result(Ending.FAILED, why, Fault.SETUP))


def _words(error: Any) -> str:  # noqa: ANN401 - acp.exceptions.RequestError
    """The agent's own, with what it adds."""
    data = error.data if isinstance(error.data, str) else (error.data or {}).get("details", "")
    return f"{error} {data}".strip()[: acp_words.SAID_CHARS]
