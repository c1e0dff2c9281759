"""This node's secrets: asked for when a server starts, watched for new versions, kept in no file.

A value is asked for over the node's own connection to the orchestrator, with the token of this incarnation: it is
in this process's memory alone, dies with it, and the orchestrator looks at the secret's own rule before it answers.
Owns who uses which version. Refuses to keep values, but for agents' keys, which every request of theirs needs.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog

from tasks.errors import FleetError, OrchestratorDown
from tasks.secret_wire import SecretsReply, SecretsRequest
from tasks.secretref import Secret, SecretRef
from worker.upstreams.filling import NotFilled

log = structlog.get_logger("mcpfleet.secrets")
NEW_VERSION = "a secret of it has a new version"


class SecretDoor(Protocol):
    """The orchestrator."""

    async def secrets(self, request: SecretsRequest) -> SecretsReply:
        """Raises OrchestratorDown, NotAllowed, Refused."""
        ...


class NodeSecrets:
    """Of one node. Nothing is to be had before `joined`."""

    def __init__(self) -> None:
        self.restart: Callable[[str, str], None] = _nobody
        """Told (server, why) when one is to be started again."""
        self._door: SecretDoor | None = None
        self._seen = ""
        self._used: dict[str, dict[SecretRef, str]] = {}
        """Server → its secrets and the versions it was started with; "" where it was not."""
        self._held: dict[str, tuple[SecretRef, Secret | None]] = {}
        """Agents → their keys."""
        self._looking: asyncio.Task[None] | None = None

    def joined(self, door: SecretDoor) -> None:
        """From now on there is somebody to ask: who waits for that is started now."""
        self._door = door
        for server in self._used:
            self.restart(server, "this node has joined")
        if self._held:
            self._look_soon("")

    async def fetch(self, server: str, refs: Collection[SecretRef]) -> Mapping[SecretRef, Secret]:
        """The values, for a server that is about to start.

        Raises:
            NotFilled: not one is given where one is withheld.
        """
        self._used[server] = dict.fromkeys(refs, "")
        versions, values = await self._ask(server, refs, with_values=True)
        self._used[server] = versions
        return values

    def hold(self, server: str, ref: SecretRef) -> Callable[[], str]:
        """Keep this one in memory and up to date; what is answered reads it, and raises OSError before it is there."""
        self._held[server] = (ref, None)

        def read() -> str:
            value = self._held[server][1]
            if value is None:
                raise OSError(f"{ref} was not given to this node yet")
            return value.reveal()

        return read

    def marked(self, mark: str) -> None:
        """A renewal said so: with another mark than before, some secret may have changed."""
        if mark and mark != self._seen and (self._used or self._held):
            self._look_soon(mark)

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _look_soon(self, mark: str) -> None:
        if self._looking is None or self._looking.done():  # else the next renewal says it again
            self._looking = asyncio.create_task(self._look(mark))

    async def _look(self, mark: str) -> None:
        """Compare versions; `mark` counts as seen only once all were."""
        try:
            for server, used in list(self._used.items()):
                now = await self._versions(server, used)
                if now != self._used.get(server):
                    log.info("secret_changed", server=server)
                    self.restart(server, NEW_VERSION)
            for server, (ref, _) in list(self._held.items()):
                await self._hold_newest(server, ref)
        except OrchestratorDown as error:
            log.warning("secrets_not_compared", detail=error.message, effect="asked again with the next renewal")
            return
        except Exception:
            log.exception("secrets_not_compared")
            return
        self._seen = mark

    async def _hold_newest(self, server: str, ref: SecretRef) -> None:
        try:
            _, values = await self._ask(server, [ref], with_values=True)
        except NotFilled as error:
            log.warning("secret_withheld", server=server, detail=str(error))
            self._held[server] = (ref, None)
        else:
            self._held[server] = (ref, values[ref])

    async def _versions(self, server: str, used: Mapping[SecretRef, str]) -> dict[SecretRef, str]:
        """Those withheld have none: what runs with one that it may have no more is started again, and fails."""
        assert self._door is not None
        reply = await self._door.secrets(_request(server, used, with_values=False))
        given = {one.ref: one.version for one in reply.given}
        return {ref: given.get(str(ref), "") for ref in used}

    async def _ask(
        self, server: str, refs: Collection[SecretRef], *, with_values: bool
    ) -> tuple[dict[SecretRef, str], dict[SecretRef, Secret]]:
        if self._door is None:
            raise NotFilled("it needs secrets, which are asked for once this node has joined")
        try:
            reply = await self._door.secrets(_request(server, refs, with_values=with_values))
        except FleetError as error:
            raise NotFilled(f"its secrets cannot be asked for: {error.message}") from None
        given = {one.ref: one for one in reply.given if one.value is not None}
        missing = [ref for ref in refs if str(ref) not in given]
        if missing:
            why = next((one.why for one in reply.withheld if one.ref == str(missing[0])), "no answer names it")
            raise NotFilled(f"a secret was not given: {why}")
        versions = {ref: given[str(ref)].version for ref in refs}
        values = {ref: given[str(ref)].value for ref in refs}
        return versions, {ref: Secret(value.get_secret_value()) for ref, value in values.items() if value is not None}


def no_cores() -> None:
    """From now on neither this process nor one that it starts leaves a core file: their memory has secrets.

    One byte and not none: a core that is piped to a program ignores every limit but 1, which ends it. Source:
    Linux, fs/coredump.c, `if (cprm.limit == 1)`; a file needs a page and is not written either.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = min(1, hard) if hard >= 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _request(server: str, refs: Collection[SecretRef], *, with_values: bool) -> SecretsRequest:
    return SecretsRequest(server=server, refs=tuple(sorted(map(str, refs))), with_values=with_values)


def _nobody(_server: str, _why: str) -> None:
    """Nobody listens yet."""
