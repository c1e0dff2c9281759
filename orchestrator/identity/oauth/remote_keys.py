"""The keys of one foreign issuer: found by its metadata, kept for minutes, asked for once at a time.

    age 0 s … 120 s   used as they are
    … 300 s           used, while new ones are asked for beside
    after             nothing is verified until there are new ones: IssuerDown

So a withdrawn key is refused after at most `KEPT_S`, and an issuer that is away for less is not noticed. A
`kid` that is not known makes us ask at once, but only every `COOL_DOWN_S`: a flood of invented ones costs the
issuer one request. Source: OpenID Connect Discovery 1.0, section 4; RFC 8414, section 3; RFC 7517.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import structlog

from orchestrator.identity.oauth.errors import BadToken, IssuerDown
from orchestrator.identity.oauth.fetch import ANSWER_S, Fetch, NotFetched, is_safe
from orchestrator.identity.oauth.jose import PublicKey, public_key
from tasks.clock import Clock

log = structlog.get_logger("mcpfleet.oauth")
FRESH_S = 120.0
KEPT_S = 300.0
COOL_DOWN_S = 30.0
AFTER_FAILURE_S = 5.0
KEYS_MAX = 100

assert FRESH_S + 3 * ANSWER_S + AFTER_FAILURE_S < KEPT_S  # a slow issuer is asked again before its keys are too old


class RemoteKeys:
    """One issuer's key set."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Clock) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch, clock
        self._keys: Mapping[str, PublicKey] = {}
        self._as_of_s = self._asked_at_s = self._failed_at_s = float("-inf")
        self._failure = ""
        self._asking: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> PublicKey:
        """The key of that id.

        Raises:
            BadToken: the issuer does not have it.
            IssuerDown: it cannot be told.
        """
        if self._age_s() >= KEPT_S or (kid not in self._keys and self._may_look_again()):
            await self._renewed()
        elif self._age_s() >= FRESH_S:
            self._begin()
        if self._age_s() >= KEPT_S:
            raise IssuerDown(self._issuer, self._failure or "no answer yet")
        found = self._keys.get(kid)
        if found is None and self._failed_at_s > self._as_of_s:
            raise IssuerDown(self._issuer, self._failure)  # its newest keys may well have it
        if found is None:
            raise BadToken("its key is not, or no longer, one of its issuer's (kid)")
        return found

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _age_s(self) -> float:
        return self._clock.mono_s() - self._as_of_s

    def _may_look_again(self) -> bool:
        return self._clock.mono_s() - self._asked_at_s >= COOL_DOWN_S

    async def _renewed(self) -> None:
        """After an answer to a question that is under way, or to a new one."""
        if (asking := self._begin()) is not None:
            await asyncio.shield(asking)  # a caller that leaves takes nobody's answer away

    def _begin(self) -> asyncio.Task[None] | None:
        if self._asking is not None and not self._asking.done():
            return self._asking
        if self._clock.mono_s() - self._failed_at_s < AFTER_FAILURE_S:
            return None
        self._asking = asyncio.create_task(self._ask())
        return self._asking

    async def _ask(self) -> None:
        asked_at_s = self._asked_at_s = self._clock.mono_s()
        try:
            async with asyncio.timeout(3 * ANSWER_S):
                self._keys = await self._read()
        except (NotFetched, TimeoutError) as error:
            self._failed_at_s, self._failure = self._clock.mono_s(), str(error) or "it took too long"
            log.warning("issuer_keys_not_read", issuer=self._issuer, detail=self._failure)
        else:
            self._as_of_s = asked_at_s  # as old as the question: what changed on the way counts as not seen

    async def _read(self) -> dict[str, PublicKey]:
        metadata = await self._metadata()
        if metadata.get("issuer") != self._issuer:
            raise NotFetched("its metadata is another issuer's")
        address = metadata.get("jwks_uri")
        if not isinstance(address, str) or not is_safe(address):
            raise NotFetched("its metadata names no https address of its keys (jwks_uri)")
        entries = (await self._fetch(address)).get("keys")
        if not isinstance(entries, list) or len(entries) > KEYS_MAX:
            raise NotFetched(f"its key set is no list of at most {KEYS_MAX} keys")
        return _by_kid(entries)

    async def _metadata(self) -> dict[str, Any]:
        """OpenID's place first: most issuers have it; some OAuth servers have only RFC 8414's."""
        parts = urlsplit(self._issuer)
        try:
            return await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        except NotFetched as error:
            path = parts.path.rstrip("/")
            try:
                return await self._fetch(
                    f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
                )
            except NotFetched:
                raise error from None


def _by_kid(entries: list[Any]) -> dict[str, PublicKey]:
    found: dict[str, PublicKey] = {}
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        key = public_key(entry) if isinstance(kid, str) else None
        if key is not None:
            found[str(kid)] = key
    return found
