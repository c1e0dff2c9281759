"""This node's certificate: its key, made here and kept here, and the next certificate in good time.

Owns `<name>.key.pem` and `<name>.cert.pem` in the state directory, mode 0600, and the TLS context that shows
them; `roots.py` has who is believed. Refuses to talk to anybody: whoever owns the door does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.clock import Clock
from tasks.errors import FleetError, SettingsError
from tasks.node import CertificateReply
from worker.private_file import write_private
from worker.roots import Roots

RENEW_AT, JITTER = 2 / 3, 0.1
"""Of its life; spread, so that a fleet that started at once does not ask at once."""
RETRY_S = 60.0
_log = structlog.get_logger()


class Certificate:
    """One node's. Without a `ca` the door's certificate is checked against the system's authorities."""

    def __init__(self, folder: Path, name: str, ca: Path | None) -> None:
        self._name = name
        self._key_path, self._cert_path = folder / f"{name}.key.pem", folder / f"{name}.cert.pem"
        self._roots = Roots(folder / f"{name}.roots.pem", ca)
        self.context = self._roots.context()
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._show()

    @property
    def is_there(self) -> bool:
        """It has one, be it good or not."""
        return self._cert_path.exists()

    def csr(self) -> str:
        """A request in our name; the key is made the first time, and stays here."""
        key = self._key()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self._name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def take(self, chain_pem: str, roots_pem: str = "") -> None:
        """Keep it, show it on every connection from now on, and believe who is to be believed from now on."""
        self._roots.learn(roots_pem, self.context)
        if chain_pem:
            write_private(self._cert_path, chain_pem.encode())
            self._show()

    async def keep(
        self, renew: Callable[[str], Awaitable[CertificateReply]], clock: Clock, draw: Callable[[], float]
    ) -> None:
        """Trade it for the next one at two thirds of its life. Until cancelled; failing costs a try, not the node."""
        while True:
            await asyncio.sleep(self.due_in_s(clock.wall_s(), draw()))
            try:
                reply = await renew(self.csr())
                self.take(reply.certificate, reply.roots)
                _log.info("certificate_renewed")
            except FleetError as error:
                _log.warning("certificate_not_renewed", detail=error.message, again_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)

    def due_in_s(self, now: float, draw: float) -> float:
        """Seconds until it is to be renewed.

        Args:
            now: wall clock.
            draw: uniform in [0, 1).
        """
        cert = x509.load_pem_x509_certificate(self._cert_path.read_bytes())
        since, until = cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()
        return max(0.0, since + (until - since) * (RENEW_AT + JITTER * (draw - 0.5)) - now)

    def _show(self) -> None:
        if not self.is_there:
            return
        try:
            made = x509.load_pem_x509_certificate(self._cert_path.read_bytes())
            if made.not_valid_after_utc < dt.datetime.now(dt.UTC):
                _log.error("certificate_expired", effect="not shown: enrol this node again (mcpfleet node enrol)")
                return
            self.context.load_cert_chain(str(self._cert_path), str(self._key_path))
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsError(
                f"the certificate {self._cert_path} cannot be used ({error}); remove it and its key and enrol the node "
                "again, `mcpfleet node enrol` makes a token"
            ) from None

    def _key(self) -> ec.EllipticCurvePrivateKey:
        if self._key_path.exists():
            key = serialization.load_pem_private_key(self._key_path.read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
        made = ec.generate_private_key(ec.SECP256R1())
        plain = serialization.NoEncryption()
        write_private(
            self._key_path,
            made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
        )
        return made
