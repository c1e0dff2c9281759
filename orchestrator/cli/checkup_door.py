"""Doctor: the certificate that the fleet's door shows, wherever it is made: here, or by a proxy in front of it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from cryptography import x509

from orchestrator.cli.checkup_files import due_s
from orchestrator.cli.durations import took
from orchestrator.cli.findings import Finding, Health

CONNECT_S = 3.0


def check_door_certificate(url: str, now: float) -> Iterator[Finding]:
    """A finding, where the door speaks TLS. Whether it is trusted, the orchestrator's own check says.

    Args:
        url: of the fleet.
        now: seconds since the epoch, by this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return
    try:
        certificate = x509.load_der_x509_certificate(_shown(parts.hostname, parts.port or 443))
    except (OSError, ValueError) as error:
        detail = f"{parts.hostname} shows none: {error}"
        yield Finding(check="door certificate", health=Health.SKIP, detail=detail)
        return
    yield judged(certificate, now)


def judged(certificate: x509.Certificate, now: float) -> Finding:
    """Whether it ends soon."""
    ends = certificate.not_valid_after_utc
    left_s = ends.timestamp() - now
    if left_s > due_s([certificate]):
        return Finding(check="door certificate", health=Health.OK, detail=f"good until {ends.date().isoformat()}")
    mend = "renew it where TLS ends: the proxy, or MCPFLEET_TLS_CERT (docs/rotation.md)"
    if left_s <= 0:
        detail = f"ended {ends.date().isoformat()}: no client that looks comes in"
        return Finding(check="door certificate", health=Health.FAIL, detail=detail, mend=mend)
    return Finding(check="door certificate", health=Health.WARN, detail=f"ends in {took(left_s)}", mend=mend)


def _shown(host: str, port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # an ended one is to be seen, and nothing is sent
    with (
        socket.create_connection((host, port), timeout=CONNECT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as door,
    ):
        return door.getpeercert(binary_form=True) or b""
