"""Nodes' certificates: made at enrolment, traded for the next while they are good, and what tokens are bound to.

Refuses to make one for anybody but who asks: the name comes from the token that the door checked.
"""

from __future__ import annotations

import hmac
import ssl
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from orchestrator.identity.ca import Issued, Issuer, thumbprint
from orchestrator.identity.tokens import bound_digest
from orchestrator.ledger.values import NodeRow
from orchestrator.registry.roster import Roster
from orchestrator.registry.rows import row_of
from tasks.errors import NotAllowed
from tasks.node import CertificateReply

log = structlog.get_logger("mcpfleet.certificates")
END = "-----END CERTIFICATE-----"


class Store(Protocol):
    """The ledger."""

    async def save_node(self, row: NodeRow) -> None: ...


class Turns(Protocol):
    """The desk's: one join, expulsion or trade of a name at a time."""

    def of(self, name: str) -> AbstractAsyncContextManager[object]: ...


class Certificates:
    """Satisfies the API's port."""

    def __init__(self, issuer: Issuer, *, roster: Roster, store: Store, turns: Turns) -> None:
        self._issuer, self._roster, self._store, self._turns = issuer, roster, store, turns

    def enrolled(self, name: str, csr: str | None) -> CertificateReply | None:
        """The first one, for the bearer of a one-time token; none where none was asked for.

        Raises:
            BadRequestForCertificate
        """
        return None if csr is None else _reply(self._issuer.node(csr, name=name))

    async def renew(self, name: str, token: str, csr: str, certificate: str | None) -> CertificateReply:
        """The next one. The node's token is bound to it, durably, before it is told; for now also to the one before.

        Args:
            name: the node's.
            token: what was shown.
            csr: PEM (PKCS #10, RFC 2986).
            certificate: thumbprint of the one that was shown.

        Raises:
            NotFound: it left.
            NotAllowed: the token was voided since the door looked: it was expelled, or joined anew.
            BadRequestForCertificate, LedgerDown
        """
        issued = self._issuer.node(csr, name=name)
        async with self._turns.of(name):
            member, shown = self._roster.get(name), bound_digest(token, certificate)
            if not any(hmac.compare_digest(one, shown) for one in member.token_digests if one):
                raise NotAllowed(
                    f"the token of {name!r} is void: it was revoked, or the node joined anew; enrol it again"
                )
            bound = bound_digest(token, thumbprint(leaf_of(issued.chain_pem)))
            member.token_digest, member.earlier_token_digest = bound, shown
            await self._store.save_node(row_of(member))
        log.info("certificate_renewed", node=name)
        return _reply(issued)


def _reply(issued: Issued) -> CertificateReply:
    return CertificateReply(certificate=issued.chain_pem, not_after=issued.not_after, roots=issued.roots_pem)


def leaf_of(chain_pem: str) -> bytes:
    """The first certificate, DER."""
    return ssl.PEM_cert_to_DER_cert(chain_pem.partition(END)[0] + END)
