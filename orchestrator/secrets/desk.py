"""The secrets of a fleet: set and shown by people, given to nodes that start what needs them.

A secret goes to a node only where its own rule names that node or the node's pool: whoever set it decides, not
who writes the node's servers file, and a secret without such a name goes nowhere. What a node may not have and
what is not there are the same answer. Owns versions, rules and sealing. Refuses to cache a value, and to
log one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, get_args

import structlog

from orchestrator.ledger.secret_values import Resealed, SecretRow
from orchestrator.secrets.keyring import KeyRing, NoKeys, aad_of, kid_of
from orchestrator.secrets.resealing import Resealing
from orchestrator.secrets.sources import SecretMisplaced, SecretUnavailable, ValueSource, usable
from tasks.clock import Clock
from tasks.errors import FleetError, InvalidCall, NotFound, Permanent
from tasks.ids import new_id
from tasks.invocation import Principal
from tasks.node import NAME_PATTERN
from tasks.secret_wire import ANY, SecretGiven, SecretRequest, SecretsReply, SecretView, SecretWithheld, Source
from tasks.secretref import NotARef, SecretRef, parse_ref

log = structlog.get_logger("mcpfleet.secrets")
SECRETS_MAX = 10_000
"""Of one tenant."""
NODE = re.compile(NAME_PATTERN)
"""Fullmatched: `$` alone would let a newline pass."""
_AAD = "mcpfleet secret"


class Books(Protocol):
    """The ledger."""

    async def secrets(self, *named: str | None) -> list[SecretRow]: ...
    async def save_secrets(self, rows: Sequence[SecretRow]) -> None: ...
    async def forget_secret(self, tenant: str, owner: str, name: str) -> bool: ...


class Blobs(Protocol):
    """The blob store."""

    async def rewrap(self, rewrapped: Callable[[str, bytes], str | None]) -> int: ...


class Secrets:
    """Made once; used on the event loop."""

    def __init__(
        self,
        *,
        books: Books,
        keys: KeyRing | None,
        sources: Mapping[str, ValueSource],
        pool_of: Callable[[str], str | None],
        clock: Clock,
        blobs: Blobs | None = None,
        rows: Resealing | None = None,
    ) -> None:
        self._blobs, self._rows = blobs, rows
        self._books, self._keys, self._sources = books, keys, dict(sources)
        self._pool_of, self._clock = pool_of, clock
        self._turn = asyncio.Lock()
        self._mark = new_id()
        self._outside: dict[SecretRef, str] = {}
        """Given from a source that tells nobody of changes, and in which version."""

    def mark(self) -> str:
        """Changes with every change, and with every start: nodes that hear of another look after theirs."""
        return self._mark

    # -- people

    async def put(self, owner: str, name: str, wanted: SecretRequest, principal: Principal) -> SecretView:
        """Set a secret, or a new version of it; members that are None stay as they were.

        Raises:
            InvalidCall: a name, a rule or a source is wrong; nothing of the value is said.
            NoKeys: there is nothing to seal it with.
        """
        ref = _named(principal.tenant, owner, name)
        async with self._turn:
            before = await self._find(ref)
            if before is None and len(await self._books.secrets(ref.tenant)) >= SECRETS_MAX:
                raise InvalidCall(f"tenant {ref.tenant!r} has {SECRETS_MAX} secrets; delete some")
            row = self._row(ref, before, wanted, principal)
            await self._books.save_secrets([row])
            self._mark = new_id()
        log.info("secret_set", ref=str(ref), version=row.version, source=row.source, by=principal.id,
                 nodes=row.nodes, pools=row.pools)  # fmt: skip
        return _view(row)

    async def show(self, owner: str, name: str, principal: Principal) -> SecretView:
        """What is known of it, but its value. Raises NotFound."""
        return _view(await self._get(_named(principal.tenant, owner, name)))

    async def listing(self, principal: Principal, owner: str | None = None) -> list[SecretView]:
        """All of the principal's tenant, by owner and name."""
        return [_view(row) for row in await self._books.secrets(principal.tenant, owner)]

    async def delete(self, owner: str, name: str, principal: Principal) -> None:
        """Forget it. What runs with it is started again, and then says that it is not there. Raises NotFound."""
        ref = _named(principal.tenant, owner, name)
        async with self._turn:
            if not await self._books.forget_secret(ref.tenant, ref.owner, ref.name):
                raise NotFound("secret", str(ref))
            self._mark = new_id()
        log.info("secret_deleted", ref=str(ref), by=principal.id)

    async def rewrap(self) -> tuple[str, int, int]:
        """Seal the data keys of secrets and blobs under the newest KEK; its kid, and how many of each were not yet.

        Rows of calls are begun, and go on in the background: `resealed` says how far.

        Raises:
            NoKeys, KeyMissing, NotAsSealed: nothing was changed.
        """
        keys = self._ring("to seal anew")
        async with self._turn:
            rows = [row for row in await self._books.secrets() if row.sealed and kid_of(row.sealed) != keys.newest]
            await self._books.save_secrets(
                [replace(row, sealed=keys.rewrap(row.sealed or "", aad=_aad(row))) for row in rows]
            )

        def again(wrapped: str, aad: bytes) -> str | None:
            return None if kid_of(wrapped) == keys.newest else keys.wrap(keys.unwrap(wrapped, aad=aad), aad=aad)

        blobs = 0 if self._blobs is None else await self._blobs.rewrap(again)
        if self._rows is not None:
            self._rows.begin()
        log.info("secrets_rewrapped", key=keys.newest, secrets=len(rows), blobs=blobs)
        return keys.newest, len(rows), blobs

    def resealed(self) -> tuple[str, Resealed]:
        """The newest KEK's kid, and how far rows are. Raises NoKeys."""
        return self._ring("to seal anew").newest, Resealed() if self._rows is None else self._rows.so_far

    # -- nodes

    async def give(self, node: str, server: str, refs: Sequence[str], *, with_values: bool) -> SecretsReply:
        """What this node may have of `refs`, for this server of it.

        Raises:
            LedgerDown: it is to ask again.
        """
        pool = self._pool_of(node)
        given, withheld = [], []
        for text in dict.fromkeys(refs):
            try:
                given.append(await self._one(text, node, pool, with_values=with_values))
            except (Permanent, SecretUnavailable) as error:  # of one secret: the others are given all the same
                withheld.append(SecretWithheld(ref=text, why=error.message))
        event = "secrets_given" if with_values else "secrets_compared"
        names, not_given = [f"{one.ref} {one.version}" for one in given], [one.ref for one in withheld]
        log.info(event, node=node, pool=pool, server=server, given=names, withheld=not_given)
        return SecretsReply(given=tuple(given), withheld=tuple(withheld))

    async def look(self) -> None:
        """Ask sources that tell nobody of changes, for what nodes were given of them.

        Raises:
            LedgerDown: the next look finds it.
        """
        for ref, known in list(self._outside.items()):
            row = await self._find(ref)
            if row is None or row.source not in self._sources:
                self._outside.pop(ref, None)
                continue
            try:
                now = (await self._sources[row.source].read(ref)).version
            except FleetError as error:
                log.warning("secret_not_looked_at", ref=str(ref), detail=error.message)
                continue
            if now != known:
                self._outside[ref], self._mark = now, new_id()
                log.info("secret_changed_outside", ref=str(ref), source=row.source)

    async def _one(self, text: str, node: str, pool: str | None, *, with_values: bool) -> SecretGiven:
        try:
            ref = parse_ref(text)
        except NotARef as error:
            raise InvalidCall(str(error)) from None
        row = await self._find(ref)
        if row is None or not _allows(row, node, pool):
            how = f"`mcpfleet secrets set {ref.owner}:{ref.name} --node {node}` or --pool"
            raise InvalidCall(f"{ref} is not there, or node {node!r} of pool {pool!r} may not have it; {how} lets it")
        if row.source == "database":
            version = f"{row.version}.{row.created_at:.6f}"  # one that was deleted and set anew is another
            value = self._opened(row).decode() if with_values else None
            return SecretGiven.model_validate({"ref": text, "version": version, "value": value})
        if row.source not in self._sources:
            raise SecretMisplaced(ref, f"its source is {row.source!r}, which this orchestrator has no setting for")
        found = await self._sources[row.source].read(ref)
        self._outside[ref] = found.version
        value = found.value.reveal() if with_values else None
        return SecretGiven.model_validate({"ref": text, "version": f"{row.version}.{found.version}", "value": value})

    # -- rows

    def _row(self, ref: SecretRef, before: SecretRow | None, wanted: SecretRequest, principal: Principal) -> SecretRow:
        source = wanted.source or (before.source if before else "database")
        nodes, pools = _rule(before, wanted)
        now_s, version = self._clock.wall_s(), (before.version if before else 0) + 1
        row = SecretRow(
            ref.tenant, ref.owner, ref.name, version, source, nodes, pools,
            before.created_at if before else now_s, now_s, principal.id, None,
        )  # fmt: skip
        if source != "database":
            if wanted.value is not None:
                raise InvalidCall(f"the value of a secret of source {source!r} is kept there; leave `value` out")
            if source not in self._sources:
                settings = {"file": "MCPFLEET_SECRETS_DIR", "vault": "MCPFLEET_VAULT_URL"}
                raise InvalidCall(f"this orchestrator has no source {source!r}; set {settings[source]} and restart")
            return row
        if wanted.value is not None:
            value = usable(ref, wanted.value.get_secret_value().encode()).reveal().encode()
        elif before is not None and before.sealed is not None:
            value = self._opened(before)  # another version is another row to the seal
        else:
            raise InvalidCall(f"{ref} needs a value: `mcpfleet secrets set` reads it from standard input or a file")
        return replace(row, sealed=self._ring(f"the secret {ref}").seal(value, aad=_aad(row)))

    def _opened(self, row: SecretRow) -> bytes:
        return self._ring("to open a secret").open(row.sealed or "", aad=_aad(row))

    def _ring(self, what: str) -> KeyRing:
        if self._keys is None:
            raise NoKeys(what)
        return self._keys

    async def _find(self, ref: SecretRef) -> SecretRow | None:
        found = await self._books.secrets(ref.tenant, ref.owner, ref.name)
        return found[0] if found else None

    async def _get(self, ref: SecretRef) -> SecretRow:
        row = await self._find(ref)
        if row is None:
            raise NotFound("secret", str(ref))
        return row


def _allows(row: SecretRow, node: str, pool: str | None) -> bool:
    return not {node, ANY}.isdisjoint(row.nodes.split()) or not {pool, ANY}.isdisjoint(row.pools.split())


def _rule(before: SecretRow | None, wanted: SecretRequest) -> tuple[str, str]:
    nodes = _names(wanted.nodes, before.nodes if before else "")
    pools = _names(wanted.pools, before.pools if before else "")
    if not nodes and not pools:
        raise InvalidCall(
            "no node may have this secret, so nothing could use it: name nodes or pools (--node, --pool; * is any)"
        )
    return nodes, pools


def _names(wanted: Collection[str] | None, before: str) -> str:
    if wanted is None:
        return before
    for one in wanted:
        if one != ANY and not NODE.fullmatch(one):
            raise InvalidCall(f"{one[:80]!r} is no name of a node or a pool; `mcpfleet nodes` lists them")
    return " ".join(sorted(set(wanted)))


def _named(tenant: str, owner: str, name: str) -> SecretRef:
    ref = SecretRef(tenant, owner, name)
    try:
        return parse_ref(str(ref))
    except NotARef as error:
        raise InvalidCall(str(error)) from None


def _aad(row: SecretRow) -> bytes:
    return aad_of(_AAD, row.tenant, row.owner, row.name, str(row.version))


def _view(row: SecretRow) -> SecretView:
    source: Source = next(one for one in get_args(Source) if one == row.source)
    return SecretView(
        ref=str(SecretRef(row.tenant, row.owner, row.name)),
        owner=row.owner,
        name=row.name,
        source=source,
        version=row.version,
        nodes=tuple(row.nodes.split()),
        pools=tuple(row.pools.split()),
        created_at=row.created_at,
        changed_at=row.changed_at,
        changed_by=row.changed_by,
        key=kid_of(row.sealed) if row.sealed else None,
    )
