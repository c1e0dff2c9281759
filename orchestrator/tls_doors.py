"""What TLS means for an orchestrator's settings: its authority, the names of its doors, its context."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from orchestrator.identity.ca import Authority
from orchestrator.settings import OrchestratorSettings
from orchestrator.tls import own_context, server_context
from tasks.clock import Clock
from tasks.errors import SettingsError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def authority_for(settings: OrchestratorSettings, clock: Clock) -> Authority | None:
    """None where doors are plain.

    Raises:
        SettingsError: without a secret of its own, whoever changed a token would change the authority; the earlier
            secret is the same.
    """
    if not settings.tls:
        return None
    if settings.pool_secret is None:
        raise SettingsError(
            "MCPFLEET_TLS is on and MCPFLEET_POOL_SECRET is not set: the fleet's authority is derived from it; set it "
            "to 32 random bytes or more (openssl rand -hex 32), the same for every replica"
        )
    secret, before = settings.pool_secret.get_secret_value(), settings.pool_secret_earlier
    if before is None:
        return Authority(secret.encode(), clock)
    if before.get_secret_value() == secret:
        raise SettingsError(
            "MCPFLEET_POOL_SECRET_EARLIER is the same as MCPFLEET_POOL_SECRET: set it to the secret before, or leave "
            "it out once every node has renewed its certificate (a day after the change)"
        )
    return Authority(secret.encode(), clock, earlier=Authority(before.get_secret_value().encode(), clock))


def context_for(settings: OrchestratorSettings, authority: Authority) -> ssl.SSLContext:
    """Of the doors.

    Raises:
        SettingsError: one of two files is missing, or cannot be used.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if (cert is None) is not (key is None):
        raise SettingsError("MCPFLEET_TLS_CERT and MCPFLEET_TLS_KEY belong together; set both, or neither")
    if cert is None or key is None:
        return own_context(authority, names_of(settings))
    try:
        return server_context(chain=str(cert), key=str(key), roots_pem=authority.roots_pem)
    except OSError as error:
        raise SettingsError(f"MCPFLEET_TLS_CERT {cert} cannot be used with MCPFLEET_TLS_KEY {key}: {error}") from None


def names_of(settings: OrchestratorSettings) -> list[str]:
    """By which nodes and people call them."""
    named = [host.strip() for host in settings.allowed_hosts.split(",") if host.strip()]
    for url in (settings.url_for_nodes, settings.public_url, f"//{settings.advertise}", f"//{settings.host}"):
        host = urlsplit(url).hostname
        if host and host not in ANY:
            named.append(host)
    return sorted({*named, *LOOPBACK})
