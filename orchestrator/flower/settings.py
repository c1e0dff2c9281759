"""Every setting of the Flower process: `MCPFLEET_FLOWER_<NAME>` in the environment. Read once, at start.

Two variables under the same prefix are the orchestrator's own, which feeds Flower: `ORCHESTRATORS`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tasks.errors import SettingsError
from tasks.redis_tls import RedisTls, with_tls
from tasks.settings import BY_FILE, read, variable_of

PREFIX = "MCPFLEET_FLOWER_"
ORCHESTRATORS = (f"{PREFIX}FEED", f"{PREFIX}HISTORY_CALLS")


class FlowerSettings(BaseModel):
    """What an operator may decide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    redis_url: SecretStr | None = None
    """Broker, as Flower reaches it; redis://, rediss:// or sentinel://. Its user: docs/flower.md."""
    redis_ca: Path | None = None
    """PEM: who signed the certificate of a `rediss://` server; the system's authorities when absent."""
    redis_cert: Path | None = None
    """PEM: our certificate, where that server asks for one."""
    redis_key: Path | None = None
    """PEM: its key."""
    login: SecretStr | None = None
    """`user:password` that every path asks for, /metrics and /healthcheck too."""
    host: str = "127.0.0.1"
    """Loopback: what it shows of calls is not exposed by accident."""
    port: int = Field(default=5555, ge=0, le=65_535)
    """0 takes a free one, which the log names."""
    tls_cert: Path | None = None
    """PEM: the certificate that people's browsers are shown, with its chain. Without one, plain HTTP: for loopback, or
    behind a proxy. Read at the start; Flower is whole again seconds after it was started anew."""
    tls_key: Path | None = None
    """PEM: its key."""
    listen_fd: int | None = None
    """A listening socket inherited from the parent, instead of host and port."""
    url_prefix: str = Field(default="", pattern=r"^$|^/?[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    """Path under which a reverse proxy serves it, such as `flower`."""
    max_tasks: int = Field(default=20_000, ge=100)
    """Calls kept in memory, about 2 KB each; the ledger has all of them."""
    purge_offline_s: int = Field(default=300, ge=10)
    """A node that is not heard of leaves the page of workers after this; one that left or is lost, at once."""

    def broker_url(self) -> str:
        """The broker's address, with the files for TLS.

        Raises:
            SettingsError: none is set, or files for TLS without a `rediss://` address.
        """
        url = _set("redis_url", self.redis_url)
        return with_tls(url, RedisTls(self.redis_ca, self.redis_cert, self.redis_key))

    def server_context(self) -> ssl.SSLContext | None:
        """What its door speaks, TLS 1.3; None: plain HTTP.

        Raises:
            SettingsError: one of two files is missing, or cannot be used.
        """
        cert, key = self.tls_cert, self.tls_key
        if (cert is None) is not (key is None):
            raise SettingsError(f"{PREFIX}TLS_CERT and {PREFIX}TLS_KEY belong together; set both, or neither")
        if cert is None or key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            raise SettingsError(f"{PREFIX}TLS_CERT {cert} cannot be used with {PREFIX}TLS_KEY {key}: {error}") from None
        return context

    def credentials(self) -> tuple[str, str]:
        """User and password.

        Raises:
            SettingsError: none is set, or it is not `user:password`.
        """
        user, colon, password = _set("login", self.login).partition(":")
        if not (user and colon and password):
            raise SettingsError(f"{PREFIX}LOGIN is set to a value that is not shown; write user:password")
        return user, password


VARIABLES = tuple(variable_of(name, PREFIX) + end for name in FlowerSettings.model_fields for end in ("", BY_FILE))
"""Which the orchestrator leaves alone."""


def read_flower_settings(environ: Mapping[str, str]) -> FlowerSettings:
    """As set.

    Raises:
        SettingsError: an unknown variable, or a value that the field refuses.
    """
    return read(FlowerSettings, PREFIX, environ, excluding=ORCHESTRATORS)


def _set(name: str, value: SecretStr | None) -> str:
    if value is None:
        variable = variable_of(name, PREFIX)
        raise SettingsError(f"{variable} is not set; set it, or {variable}{BY_FILE} to a file with it")
    return value.get_secret_value()
