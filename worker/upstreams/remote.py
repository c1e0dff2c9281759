"""One MCP server outside the node's own code: one kept-open session, and the task that keeps it so.

The supervising task starts the server, lists its tools, lists them again when they change, notices
its end, and starts it again after a growing wait. The session is entered and left inside that one
task: its cancel scopes allow nothing else. Calls come from any task and share the session.

Refuses to decide about retries and timeouts of calls; their caller cancels, and the server is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import Implementation
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from tasks.clock import Clock
from tasks.retry import RetryPolicy, delay_s
from tasks.tool import ToolPolicy, ToolSpec
from worker.upstreams.errors import being_renewed, from_rpc, maybe_started, permanent, unavailable, unknown_tool
from worker.upstreams.forwarding import call_request
from worker.upstreams.life import ERROR_CHARS, Life, Limits, MakeLink, NotStopped, ServerEnded, listening
from worker.upstreams.listing import ListingBroken, RawResult, list_tools
from worker.upstreams.result import result_text
from worker.upstreams.upstream import Ask, ServerStatus

log = structlog.get_logger()

RESTARTS = RetryPolicy(attempts=1, first_wait_s=1.0, factor=2.0, cap_s=60.0)
STABLE_S = 60.0
"""A session that lasted this long clears the count of failures."""
DRAIN_S = 30.0
"""An HTTP server that stopped answering: its running calls get this long before the session is closed."""


class RemoteServer:
    """An upstream with a session of its own."""

    def __init__(
        self,
        name: str,
        kind: str,
        make_link: MakeLink,
        *,
        policy_of: Callable[[str], ToolPolicy],
        on_change: Callable[[], None],
        clock: Clock,
        draw: Callable[[], float],
        limits: Limits,
        client_info: Implementation,
    ) -> None:
        self.name, self._kind, self._make_link = name, kind, make_link
        self._policy_of, self._on_change = policy_of, on_change
        self._clock, self._draw, self._limits, self._client_info = clock, draw, limits, client_info
        self._life: Life | None = None
        self._specs: tuple[ToolSpec, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._first_try = asyncio.Event()
        self._state = "starting"
        self._error: str | None = None
        self._protocol: str | None = None
        self._starts = 0
        self._is_renewed = False
        """It is ended, or was and is not back yet, only because a tool did not stop."""
        self._last_success_s: float | None = None

    # -- the Upstream

    async def start(self) -> None:
        """Begin to supervise; returns when the first try ended, well or badly."""
        self._task = asyncio.create_task(self._supervise(), name=f"mcp-server-{self.name}")
        await self._first_try.wait()

    async def close(self) -> None:
        """End the session and the process. Bounded: after that the process group is killed."""
        if self._task is None:
            return
        self._task.cancel()
        done, _ = await asyncio.wait({self._task}, timeout=self._limits.close_s)
        if not done:
            log.warning("server_close_timed_out", server=self.name)
            if self._life is not None:
                self._life.link.kill()
        self._state = "closed"

    def tools(self) -> tuple[ToolSpec, ...]:
        """Nothing unless ready."""
        return self._specs if self._state == "ready" else ()

    def status(self) -> ServerStatus:
        """For people."""
        return ServerStatus(
            name=self.name,
            kind=self._kind,
            state=self._state,
            tools=len(self.tools()),
            restarts=max(0, self._starts - 1),
            error=self._error,
            protocol=self._protocol,
            last_success_s=self._last_success_s,
        )

    async def call(self, tool: str, arguments: dict[str, Any], ask: Ask) -> str:
        """One call over the shared session.

        Raises:
            UpstreamError: see `worker/upstreams/errors.py`.
        """
        life = self._life
        if life is None or not life.is_ready or life.client is None:
            raise being_renewed(self.name) if self._is_renewed else unavailable(self.name, self._state, self._error)
        if tool not in self._names:
            raise unknown_tool(f"{self.name}.{tool}")
        life.in_flight += 1
        try:
            sending = self._send(life.client, tool, arguments, ask)
            raw = await life.stops.follow(tool, sending, lambda: self._stop_s(tool))
        finally:
            life.in_flight -= 1
            if life.is_down:
                life.wake.set()
        self._last_success_s = self._clock.mono_s()
        return result_text(raw, what=f"{self.name}.{tool}", limit_bytes=self._limits.result_bytes)

    def _stop_s(self, tool: str) -> float:
        declared_s = self._policy_of(f"{self.name}.{tool}").stop_s
        return self._limits.stop_s if declared_s is None else declared_s

    async def _send(self, client: Client, tool: str, arguments: dict[str, Any], ask: Ask) -> dict[str, Any]:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            ask.on_progress(progress, total, message)

        what = f"{self.name}.{tool}"
        try:
            request = call_request(tool, arguments, ask)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise permanent("invalid_arguments", f"{what}: {first['loc']}: {first['msg']}") from error
        try:
            return (await client.session.send_request(request, RawResult, progress_callback=on_progress)).root
        except MCPError as error:
            failure = from_rpc(self.name, tool, error, limit_bytes=self._limits.result_bytes)
            if failure.info.code == "tool_changed" and self._life is not None:
                self._life.changed()
            raise failure from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"{what}: its answer breaks the protocol ({where}: {first['msg']}); the tool did run"
            raise permanent("bad_result", message) from error
        except OSError as error:
            raise maybe_started("connection_lost", f"{what}: {error}") from error

    # -- the supervising task

    async def _supervise(self) -> None:
        failures = 0
        me = asyncio.current_task()
        assert me is not None
        try:
            # A cancellation that meets a failing session is swallowed by the SDK's task groups: ask, too.
            while not me.cancelling():
                began_s = self._clock.mono_s()
                is_our_doing = await self._live_once()
                if me.cancelling():
                    break
                if is_our_doing:
                    self._enter("starting")
                    continue
                failures = 1 if self._clock.mono_s() - began_s > STABLE_S else failures + 1
                wait_s = delay_s(failures, RESTARTS, self._draw())
                self._enter("waiting")
                self._first_try.set()
                log.info("server_restart_planned", server=self.name, wait_s=round(wait_s, 2), failures=failures)
                await asyncio.sleep(wait_s)
                self._enter("starting")
        except Exception:
            # A defect of ours: without this line the server would be away for ever and nobody would know.
            log.exception("server_supervision_failed", server=self.name)
            raise
        finally:
            self._enter("closed")
            self._first_try.set()

    async def _live_once(self) -> bool:
        """Start, serve until the end, and record why it ended.

        Returns:
            Whether it was ended only because a tool did not stop: then nothing is wrong with the server.
        """
        self._starts += 1
        # Asked for an unknown method before `initialize` some old servers break, so the era that worked is
        # remembered; until a start fails, for the server may have been updated.
        is_legacy = self._protocol is not None and self._protocol not in MODERN_PROTOCOL_VERSIONS
        life = self._life = Life(self.name, self._make_link, limits=self._limits)
        try:
            await self._serve(life, mode="legacy" if is_legacy else "auto")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the top of the supervising loop: whatever a server does, it is restarted
            self._record(life, error)
            self._protocol = self._protocol if life.was_ready else None
        finally:
            life.is_ready, self._life = False, None
            life.stops.gone()
        return self._is_renewed

    async def _serve(self, life: Life, mode: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            # A native timeout and not an anyio one: the client's own scopes outlive this block.
            async with asyncio.timeout(self._limits.start_s):
                life.client = await stack.enter_async_context(life.client_for(mode, self._client_info))
                specs = await list_tools(life.client.session, self.name, self._policy_of)
            outage = life.link.outage()
            if outage is not None:
                # The SDK takes any refused probe for the older era: a server that came up in between
                # would be spoken to in the wrong one for ever.
                raise ServerEnded(f"{outage}; it answers now and is asked again")
            self._protocol = life.client.protocol_version
            life.is_ready = life.was_ready = True
            self._offer(specs)
            log.info("server_ready", server=self.name, tools=len(specs), protocol=self._protocol)
            await stack.enter_async_context(listening(life))
            try:
                await self._watch(life)
            finally:
                life.is_ready = False
                self._enter("ending")

    async def _watch(self, life: Life) -> None:
        """Returns never; raises when the session is over."""
        assert life.client is not None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.health_every_s):
                    await life.wake.wait()
            life.wake.clear()
            if life.is_down:
                await self._drain(life)
                raise ServerEnded(life.link.why_ended(None) or "the connection ended")
            if life.stops.why is not None:
                life.is_ready, self._is_renewed = False, True
                self._enter("ending")
                await life.stops.neighbours()
                raise NotStopped(life.stops.why)
            if life.wants_list or life.in_flight == 0:
                life.wants_list = False
                await self._list_again(life.client)

    async def _list_again(self, client: Client) -> None:
        try:
            async with asyncio.timeout(self._limits.health_answer_s):
                specs = await list_tools(client.session, self.name, self._policy_of)
        except TimeoutError:
            if self._life is not None and self._life.in_flight:
                return  # Busy, perhaps single-threaded: no verdict while calls run.
            raise ServerEnded(f"did not answer tools/list within {self._limits.health_answer_s:g} s") from None
        if specs != self._specs:
            self._offer(specs)

    async def _drain(self, life: Life) -> None:
        """Take no new calls; where the end of one connection is not the end of all, let the others finish."""
        life.is_ready = False
        self._enter("ending")
        if life.link.kind != "http":
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while life.in_flight:
                    await life.wake.wait()
                    life.wake.clear()

    def _record(self, life: Life, error: Exception) -> None:
        cause = _first_cause(error)
        self._is_renewed = isinstance(cause, NotStopped)
        expected = isinstance(cause, ServerEnded | TimeoutError | OSError | MCPError | ListingBroken | ValidationError)
        if isinstance(cause, TimeoutError):
            said = f"did not answer within {self._limits.start_s:g} s"
            note = life.link.why_ended(cause)
            said = f"{said}; {note}" if note else said
        elif isinstance(cause, NotStopped):
            said = str(cause)
        else:
            said = life.link.why_ended(cause) or str(cause) or type(cause).__name__
        self._error = said[:ERROR_CHARS]
        log.warning("server_ended", server=self.name, error=self._error, exc_info=None if expected else error)

    def _offer(self, specs: tuple[ToolSpec, ...]) -> None:
        self._specs, self._names = specs, frozenset(spec.definition["name"] for spec in specs)
        self._last_success_s = self._clock.mono_s()
        self._state, self._error, self._is_renewed = "ready", None, False
        self._first_try.set()
        self._on_change()

    def _enter(self, state: str) -> None:
        was_ready, self._state = self._state == "ready", state
        if was_ready:
            self._on_change()


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error
