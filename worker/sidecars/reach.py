"""The network that a project lists, for one run: a proxy for TLS tunnels on a unix socket of the run's own.

Who can open that socket is the run, because it is bound into its sandbox and no other: there is no token to ask
for, to guess or to lose, and a project that lists nothing has no socket. Owns the tunnels, their limits and their
count. Refuses what is not listed, and addresses that nobody may be led to, whatever name leads there. Does not
look into a tunnel: neither at its bytes, nor at the name that TLS says in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog

from worker.sidecars.reach_request import CHUNK_BYTES, Opening, Refusal
from worker.sidecars.unix_socket import listening
from worker.workspaces.destinations import Address, Destination, Target
from worker.workspaces.names import Project

ASKS_S, RESOLVES_S, CONNECTS_S = 30.0, 10.0, 10.0
"""For a request, for a name, and for each of its addresses."""
ADDRESSES_MAX = 4
"""Of one name, that are tried."""
RESOLVING_MAX = 2
"""Names of one run at a time. In threads of its own: a name that hangs holds up nobody else."""
REFUSED_MAX = 8
"""Connections above the limit that are told so at a time; more are closed without a word, or a run that floods its
socket takes all of the node's descriptors."""
COUNTED_MAX = 100
"""Destinations that are told apart; the others are counted together."""
OTHERS = "others"
Resolve = Callable[[str, int], Awaitable[tuple[Address, ...]]]
"""A name to its addresses, best first. Raises OSError where it has none."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReachLimits:
    """Of one run."""

    tunnels: int = 64
    """At a time; package managers use 15 to 50."""
    idle_s: float = 300.0
    """Without a byte in either direction."""


@dataclass(slots=True)
class Traffic:
    """With one destination."""

    tunnels: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


class Reach:
    """Of one run. To be opened once."""

    def __init__(
        self, run: str, project: Project, *, limits: ReachLimits | None = None, resolve: Resolve | None = None
    ) -> None:
        self._run, self._project, self._limits = run, project, limits or ReachLimits()
        self._threads = ThreadPoolExecutor(RESOLVING_MAX, thread_name_prefix="reach")
        self._resolve = resolve or self._resolved
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._traffic: dict[str, Traffic] = {}
        self._refused: dict[str, str] = {}

    async def start(self, listener: socket.socket) -> None:
        """Take connections."""
        self._server = await asyncio.start_unix_server(self._accepted, sock=listener, start_serving=False)
        await self._server.start_serving()

    async def close(self) -> None:
        """End every tunnel. Again is no error."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        about = {"run": self._run, "project": self._project.name}
        for destination, traffic in self._traffic.items():
            counts = {"tunnels": traffic.tunnels, "bytes_in": traffic.bytes_in, "bytes_out": traffic.bytes_out}
            _log.info("run_reached", destination=destination, **counts, **about)
        for destination, why in self._refused.items():
            _log.warning("run_not_led", destination=destination, why=why, **about)

    def told(self) -> dict[str, Any]:
        """For the answer: where it was, how much went each way, and where it was not led."""
        reached = {
            name: {"tunnels": one.tunnels, "bytes_in": one.bytes_in, "bytes_out": one.bytes_out}
            for name, one in self._traffic.items()
        }
        return {name: said for name, said in (("reached", reached), ("not_reached", dict(self._refused))) if said}

    # ---------------------------------------------------------------- one connection

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_late = self._server is None  # it came in just before the end
        if is_late or len(self._open) >= self._limits.tunnels + REFUSED_MAX:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._served(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answered(Opening(reader, writer), (reader, writer))
        except (OSError, TimeoutError):
            pass  # it hung up, or asked for nothing: its own matter
        except Exception:  # noqa: BLE001 - the top of a connection, in a task of its own
            _log.exception("reach_broke", run=self._run)
        finally:
            writer.transport.abort()

    async def _answered(self, opening: Opening, inside: _Ends) -> None:
        if len(self._open) > self._limits.tunnels:
            many = f"this run has {self._limits.tunnels} connections already"
            await opening.refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, many, "Use fewer at a time."))
            return
        async with asyncio.timeout(ASKS_S):
            asked = await opening.asked()
        if asked is None:
            return
        outside = asked if isinstance(asked, Refusal) else await self._connected(asked)
        if isinstance(outside, Refusal):
            if isinstance(asked, Target):
                self._note(asked, outside)
            await opening.refuse(outside)
            return
        traffic = self._traffic_of(str(asked))
        traffic.tunnels += 1
        try:
            early = await opening.accept()
            outside[1].write(early)
            traffic.bytes_out += len(early)
            await self._carried(inside, outside, traffic)
        finally:
            outside[1].transport.abort()

    async def _carried(self, inside: _Ends, outside: _Ends, traffic: Traffic) -> None:
        """Until both have said all, one of them broke, or neither says anything for too long."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._limits.idle_s) as limit:

            def out(count: int) -> None:
                traffic.bytes_out += count
                limit.reschedule(loop.time() + self._limits.idle_s)

            def back(count: int) -> None:
                traffic.bytes_in += count
                limit.reschedule(loop.time() + self._limits.idle_s)

            copies = {
                asyncio.create_task(_copied(inside[0], outside[1], out)),
                asyncio.create_task(_copied(outside[0], inside[1], back)),
            }
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for copy in copies:
                    copy.cancel()
                await asyncio.gather(*copies, return_exceptions=True)

    # ---------------------------------------------------------------- where it leads

    async def _connected(self, target: Target) -> _Ends | Refusal:
        """To an address that was judged, and to none that the name may mean a moment later."""
        listed = next((each for each in self._project.destinations if each.covers(target)), None)
        if listed is None:
            return Refusal(HTTPStatus.FORBIDDEN, f"{target} is not listed for project {self._project.name}", self._do())
        try:
            async with asyncio.timeout(RESOLVES_S):
                found = await self._addresses(listed, target)
        except TimeoutError:
            return Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"no answer for the name of {target}", "Try again later.")
        except OSError:
            return Refusal(HTTPStatus.BAD_GATEWAY, f"{target} has no address", "Is the name right?")
        opened = [address for address in found if listed.opens(address)]
        if not opened:
            return _not_public(target)
        refusal = Refusal(HTTPStatus.BAD_GATEWAY, f"{target} does not answer", "Try again later.")
        for address in opened[:ADDRESSES_MAX]:
            try:
                async with asyncio.timeout(CONNECTS_S):
                    ends = await asyncio.open_connection(str(address), target.port)
            except TimeoutError:
                refusal = Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"{target} does not answer in time", "Try again later.")
                continue
            except OSError:
                continue
            if listed.is_private or not _is_this_machine(ends[1]):
                return ends
            ends[1].transport.abort()
            refusal = _not_public(target)
        return refusal

    async def _addresses(self, listed: Destination, target: Target) -> tuple[Address, ...]:
        if listed.address is not None:
            return (listed.address,)
        try:
            return (ip_address(target.host),)
        except ValueError:
            return await self._resolve(target.host, target.port)

    async def _resolved(self, host: str, port: int) -> tuple[Address, ...]:
        """By the node, as all its own programs do."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _looked_up, host, port)
        return tuple(ip_address(str(each[4][0])) for each in found)

    def _do(self) -> str:
        reached = ", ".join(map(str, self._project.destinations))
        where = f"mcpfleet.projects.{self._project.name}.destinations of the node's servers file"
        return f"Runs of this project reach {reached}; whoever runs the node lists more under {where}."

    # ---------------------------------------------------------------- the count

    def _traffic_of(self, name: str) -> Traffic:
        if name not in self._traffic and len(self._traffic) >= COUNTED_MAX:
            name = OTHERS
        return self._traffic.setdefault(name, Traffic())

    def _note(self, target: Target, refusal: Refusal) -> None:
        if len(self._refused) < COUNTED_MAX:
            self._refused[str(target)] = refusal.why


@contextlib.asynccontextmanager
async def reaching(at: Path, run: str, project: Project) -> AsyncIterator[Reach | None]:
    """While the run lives; nothing where its project lists nothing."""
    if not project.destinations:
        yield None
        return
    reach = Reach(run, project)
    with listening(at) as listener:
        try:
            await reach.start(listener)
            yield reach
        finally:
            await reach.close()


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        count(len(chunk))
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _looked_up(host: str, port: int) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _is_this_machine(writer: asyncio.StreamWriter) -> bool:
    """It led back here: its own address on the network is an address of a public kind, and its services trust it."""
    return bool(writer.get_extra_info("sockname")[0] == writer.get_extra_info("peername")[0])


def _not_public(target: Target) -> Refusal:
    do = 'Whoever runs the node lists such a destination with "private": true, if runs are meant to reach it.'
    return Refusal(HTTPStatus.FORBIDDEN, f"{target} leads to an address that is not public", do)
