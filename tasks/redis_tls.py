"""Redis over TLS: the files that a `rediss://` address is used with.

The address comes from the orchestrator, the files are this machine's own, so both ends put them together here.
Pure. Refuses to relax anything: the server's certificate and name are always checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from tasks.errors import SettingsError


@dataclass(frozen=True, slots=True)
class RedisTls:
    """Files, PEM.

    Attributes:
        ca: who signed the server's certificate; the system's authorities when absent.
        cert: ours, where the server asks for one (`tls-auth-clients`).
        key: of `cert`.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def with_tls(url: str, tls: RedisTls) -> str:
    """The address as redis-py and kombu take it. kombu speaks plain to `rediss://` unless TLS options stand in it.

    Raises:
        SettingsError: files are given, and the address is not `rediss://`.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        if tls != RedisTls():
            raise SettingsError("files for TLS to Redis are set, but its address does not begin with rediss://")
        return url
    options = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    options |= {name: str(path) for name, path in files.items() if path is not None}
    return urlunsplit(parts._replace(query=urlencode(options, quote_via=quote)))


def with_user(url: str, name: str, password: str) -> str:
    """The same address for another user. Also of `sentinel://`."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name, safe='')}:{quote(password, safe='')}@{hosts}"))
