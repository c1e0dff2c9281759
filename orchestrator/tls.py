"""The doors over TLS: a context of 1.3 that asks for certificates, and what of them an application is told.

Refuses TLS 1.2, and certificates of other authorities or out of their time: those break off the handshake.
Whether a request needs one is for the doors to say. A certificate is not looked at again on a connection that
stays open, so connections end after a while. Source: RFC 8446; RFC 8705 section 3.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestrator.identity.ca import LEAF_S, Authority, node_of, thumbprint
from orchestrator.presented import CERTIFICATE_KEY, CERTIFIED_NODE_KEY

RENEW_OWN_EVERY_S = 6 * 3600.0
assert RENEW_OWN_EVERY_S < LEAF_S / 2, "the doors' own certificate is replaced in time"
CONNECTION_MAX_S = 3600.0
"""A certificate that has ended is of use for this long at most, on a connection that was opened before."""


def own_context(authority: Authority, names: Iterable[str]) -> ssl.SSLContext:
    """With a certificate that our own authority makes for these names; its key is on no disk for longer than this."""
    context = _bare_context(authority.roots_pem)
    _load(context, authority, names)
    return context


async def keep_current(context: ssl.SSLContext, authority: Authority, names: Iterable[str]) -> None:
    """New connections get a new certificate long before the one at hand ends. Until cancelled."""
    names = tuple(names)
    while True:
        await asyncio.sleep(RENEW_OWN_EVERY_S)
        _load(context, authority, names)


def server_context(*, chain: str, key: str, roots_pem: str) -> ssl.SSLContext:
    """For uvicorn's `ssl_context_factory`.

    Args:
        chain: file of our certificate with what it needs to be believed.
        key: file of its key.
        roots_pem: the authorities whose nodes are believed.
    """
    context = _bare_context(roots_pem)
    context.load_cert_chain(chain, key)
    return context


def _load(context: ssl.SSLContext, authority: Authority, names: Iterable[str]) -> None:
    issued, key_pem = authority.server(names)
    with TemporaryDirectory(prefix="mcpfleet-tls-") as folder:  # ssl reads files only
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        key.touch(mode=0o600)
        chain.write_text(issued.chain_pem)
        key.write_text(key_pem)
        context.load_cert_chain(chain, key)


def _bare_context(roots_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=roots_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


class CertifiedHttp(HttpToolsProtocol):
    """uvicorn's protocol; each request's scope names the certificate its connection came with.

    No release of uvicorn does (0.54; ASGI's TLS extension is not in it).
    """

    _certificate: str | None = None
    _node: str | None = None
    _lifetime: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as uvicorn's
        """The handshake is done: whatever certificate there is was checked."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        der = None if tls is None else tls.getpeercert(binary_form=True)
        if der is not None:
            self._certificate = thumbprint(der)
            self._node = node_of(tls.getpeercert().get("subjectAltName", ()))
        self._lifetime = self.loop.call_later(CONNECTION_MAX_S, self.shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side went, or its time was over."""
        if self._lifetime is not None:
            self._lifetime.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Before the application is called."""
        if self._certificate is not None:
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # ASGI lets a server add keys
            scope[CERTIFICATE_KEY], scope[CERTIFIED_NODE_KEY] = self._certificate, self._node
        super().on_headers_complete()
