"""One MCP server outside the node's own code: one kept-open session, and the task that keeps it so.

The supervising task starts the server, lists its tools, lists them again when they change, checks its
health, notices its end, and starts it again after a growing wait. The session is entered and left inside that one
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
from tasks.health import BAD_IN_A_ROW, HEALTHY, UNHEALTHY
from tasks.retry import RetryPolicy, delay_s
from tasks.tool import ToolPolicy, ToolSpec
from worker.upstreams import alive
from worker.upstreams.errors import being_renewed, from_rpc, maybe_started, permanent, silent, unavailable, unknown_tool
from worker.upstreams.forwarding import call_request
from worker.upstreams.life import (
    ERROR_CHARS,
    Life,
    Limits,
    MakeLink,
    NotStopped,
    ServerEnded,
    ServerUnwell,
    first_cause,
    listening,
    rest,
)
from worker.upstreams.listing import ListingBroken, RawResult, list_tools
from worker.upstreams.result import result_text
from worker.upstreams.upstream import Ask, ServerStatus

log = structlog.get_logger()

RESTARTS = RetryPolicy(attempts=1, first_wait_s=1.0, factor=2.0, cap_s=60.0)
STABLE_S = 60.0
"""A session that lasted this long, or answered a call, clears the count of failures: only a loop has to wait."""
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
        self._first_try, self._hurry = asyncio.Event(), asyncio.Event()
        self._state = "starting"
        self._error: str | None = None
        self._protocol: str | None = None
        self._starts, self._answered_s = 0, 0.0
        self._is_renewed = False
        """It is ended, or was and is not back yet, only because a tool did not stop."""
        self._last_success_s: float | None = None
        self._health, self._ill_because = HEALTHY, ""
        self._proven: set[str] = set()
        """Tools during which it has been seen to answer heartbeats."""

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

    def restart(self, why: str) -> None:
        """Begin a new session once no call runs on this one; at once where it waits to be started."""
        self._hurry.set()
        if self._life is not None:
            self._life.begin_anew(why)

    def tools(self) -> tuple[ToolSpec, ...]:
        """As listed last. While it is being started again too: calls for it wait, see `status().unhealthy`."""
        return self._specs if self._state != "closed" else ()

    def quiet_s(self) -> float | None:
        """Seconds since it was last heard of."""
        return None if self._life is None else self._life.pulse.quiet_s(self._clock.mono_s())

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
            unhealthy=self._unhealthy(),
        )

    def _unhealthy(self) -> str | None:
        # Compared by the orchestrator from renewal to renewal: no counts and times in it.
        if self._state != "ready":
            return f"it is not running ({self._error or self._state})"
        return None if self._health.is_healthy else f"it is back after {self._ill_because}, and not trusted yet"

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
        flight = life.pulse.began(tool, self._clock.mono_s())
        try:
            sending = self._send(life, life.client, tool, arguments, ask)
            raw = await life.stops.follow(tool, sending, lambda: self._stop_s(tool))
        finally:
            life.pulse.flights.discard(flight)
            if life.is_down or life.outdated is not None:
                life.wake.set()
        self._last_success_s = self._answered_s = self._clock.mono_s()
        return result_text(raw, what=f"{self.name}.{tool}", limit_bytes=self._limits.result_bytes)

    def _stop_s(self, tool: str) -> float:
        """What may be repeated may also run on: it is not worth the calls beside it."""
        spec = next((spec for spec in self._specs if spec.definition["name"] == tool), None)
        default_s = 0.0 if spec is None or spec.is_safe else self._limits.stop_s
        return default_s if spec is None or spec.policy.stop_s is None else spec.policy.stop_s

    async def _send(self, life: Life, client: Client, tool: str, arguments: dict[str, Any], ask: Ask) -> dict[str, Any]:
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
            if life.silence is not None:
                raise silent(self.name, life.silence) from error
            failure = from_rpc(self.name, tool, error, limit_bytes=self._limits.result_bytes)
            if failure.info.code == "tool_changed":
                life.changed()
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
                is_of_use = self._answered_s > began_s or self._clock.mono_s() - began_s > STABLE_S
                failures = failures * (not is_of_use) + 1
                wait_s = delay_s(failures, RESTARTS, self._draw())
                self._enter("waiting")
                self._first_try.set()
                log.info("server_restart_planned", server=self.name, wait_s=round(wait_s, 2), failures=failures)
                await rest(wait_s, unless=self._hurry)
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
        limits, proven = self._limits, self._proven
        life = self._life = Life(self.name, self._make_link, limits=limits, proven=proven, clock=self._clock)
        try:
            await self._serve(life, mode="legacy" if is_legacy else "auto")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the top of the supervising loop: whatever a server does, it is restarted
            self._record(life, error)
            self._protocol = self._protocol if life.was_ready else None
        finally:
            life.is_ready, self._life = False, None
            if life.beat is not None:
                life.beat.cancel()
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
        life.check_at_s = self._clock.mono_s() + self._check_in_s()
        while True:
            await life.rest()
            if life.is_down:
                await self._drain(life)
                raise ServerEnded(life.link.why_ended(None) or "the connection ended")
            if (why := life.why_to_end()) is not None:
                life.is_ready, self._is_renewed = False, True
                self._enter("ending")
                await life.part()
                raise NotStopped(why)
            if life.pulse.flights:
                self._feel(life, life.client)
            is_due = self._clock.mono_s() >= life.check_at_s
            if life.wants_list or (is_due and not life.pulse.flights):
                life.wants_list = False
                await self._check(life, life.client)

    def _check_in_s(self) -> float:
        is_certain = self._health.is_healthy and not self._health.bad
        return self._limits.health_every_s if is_certain else self._limits.recheck_s

    async def _check(self, life: Life, client: Client) -> None:
        """Ask it something small, and for its tools."""
        why: str | None = None
        try:
            async with asyncio.timeout(self._limits.health_answer_s):
                await alive.ask(client.session)
                specs = await list_tools(client.session, self.name, self._policy_of)
        except TimeoutError:
            if life.pulse.flights:
                return  # Busy, perhaps single-threaded: no verdict while calls run.
            why = f"it did not answer within {self._limits.health_answer_s:g} s"
        except (MCPError, ValidationError, ListingBroken, OSError) as error:
            why = f"it could not be asked for its tools ({str(error)[:ERROR_CHARS]})"
        if life.is_down:
            return
        life.bad_checks = life.bad_checks + 1 if why else 0
        if why is not None:
            log.warning("server_check_failed", server=self.name, why=why, in_a_row=life.bad_checks)
        self._judge(why)
        life.check_at_s = self._clock.mono_s() + self._check_in_s()
        if life.bad_checks >= BAD_IN_A_ROW:
            self._give_up(f"{BAD_IN_A_ROW} failed checks in a row: {why}")
        if why is None and specs != self._specs:
            self._offer(specs)

    def _feel(self, life: Life, client: Client) -> None:
        """While calls run: end them if it has been silent for too long, else a heartbeat."""
        now_s = self._clock.mono_s()
        over = life.pulse.look(now_s)
        if over is not None:
            silent_s = now_s - max(life.pulse.heard_s, over.began_s)
            life.silence = f"nothing was heard of it for {silent_s:.0f} s while {self.name}.{over.tool} ran"
            self._give_up(life.silence)
        # One at a time: a server that cannot answer now must not find a pipe full of them.
        if life.beat is None or life.beat.done():
            life.beat = asyncio.create_task(self._beat(life, client))

    async def _beat(self, life: Life, client: Client) -> None:
        asked_during = frozenset(life.pulse.flights)
        try:
            await alive.ask(client.session)
        except (MCPError, ValidationError, OSError) as error:
            log.debug("heartbeat_failed", server=self.name, error=str(error)[:ERROR_CHARS])
            return
        life.pulse.answered(asked_during)
        self._judge(None)

    def _judge(self, why_bad: str | None) -> None:
        """One more check has ended."""
        before, self._health = self._health, self._health.after(is_good=why_bad is None)
        self._ill_because = why_bad or self._ill_because
        if before.is_healthy is not self._health.is_healthy:
            log.info("server_health_changed", server=self.name, is_healthy=self._health.is_healthy)
            self._on_change()

    def _give_up(self, why: str) -> None:
        self._health, self._ill_because = UNHEALTHY, why
        raise ServerUnwell(why)

    async def _drain(self, life: Life) -> None:
        """Take no new calls; where the end of one connection is not the end of all, let the others finish."""
        life.is_ready = False
        self._enter("ending")
        if life.link.kind != "http":
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while life.pulse.flights:
                    await life.wake.wait()
                    life.wake.clear()

    def _record(self, life: Life, error: Exception) -> None:
        cause = first_cause(error)
        self._is_renewed = isinstance(cause, NotStopped)
        expected = isinstance(cause, ServerEnded | TimeoutError | OSError | MCPError | ListingBroken | ValidationError)
        said = life.said(cause, self._limits.start_s)
        self._error = said[:ERROR_CHARS]
        if not isinstance(cause, ServerUnwell | NotStopped):  # judged already; nothing wrong with it
            self._judge(self._error)
        log.warning("server_ended", server=self.name, error=self._error, exc_info=None if expected else error)

    def _offer(self, specs: tuple[ToolSpec, ...]) -> None:
        self._specs, self._names = specs, frozenset(spec.definition["name"] for spec in specs)
        if self._life is not None:
            self._life.pulse.declared = {
                spec.definition["name"]: spec.policy.silence_limit_s
                for spec in specs
                if spec.policy.silence_limit_s is not None
            }
        self._last_success_s = self._clock.mono_s()
        self._state, self._error, self._is_renewed = "ready", None, False
        self._first_try.set()
        self._on_change()

    def _enter(self, state: str) -> None:
        was_ready, self._state = self._state == "ready", state
        if was_ready:
            self._on_change()
