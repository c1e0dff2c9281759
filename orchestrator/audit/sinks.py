"""Where the audit log is copied to as it grows: a file, standard output, a syslog server.

Owns addresses and connections. Refuses to know what was sent already: `exports.py` asks the ledger. Blocking, on
purpose: it runs in a thread, and a server that does not answer delays nobody but its own export.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from orchestrator.audit.formats import Form
from tasks.errors import SettingsError

CONNECT_S = 5.0
PORTS = {"syslog+udp": 514, "syslog+tcp": 601, "syslog+tls": 6514}
"""Source: RFC 5426, RFC 6587, RFC 5425."""
WANTED = (
    "jsonl:/var/log/audit.jsonl, jsonl:- (standard output), syslog+udp://HOST:514, syslog+tcp://HOST:601, "
    "syslog+tls://HOST:6514 or syslog+unix:///dev/log; with ?form=cef for CEF"
)


class Sink(Protocol):
    """Takes lines, all or none as far as it can know."""

    def send(self, lines: Sequence[str]) -> None:
        """Raises OSError: send them again later."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """An export that was asked for."""

    name: str
    form: Form
    sink: Sink


class FileSink:
    """Appends lines to a file, synced; or to standard output."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def send(self, lines: Sequence[str]) -> None:
        """One write."""
        text = "".join(f"{line}\n" for line in lines)
        if self._path is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


class StreamSink:
    """TCP or TLS, octet-counted. Source: RFC 6587, section 3.4.1; RFC 5425, section 4.3."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._open: socket.socket | None = None

    def send(self, lines: Sequence[str]) -> None:
        """On the connection there is, or a new one."""
        if self._open is not None and _is_over(self._open):
            self._close()
        if self._open is None:
            self._open = self._connect()
        try:
            for line in lines:
                data = line.encode()
                self._open.sendall(b"%d %b" % (len(data), data))
        except OSError:
            self._close()
            raise

    def _close(self) -> None:
        with suppress(OSError):
            if self._open is not None:
                self._open.close()
        self._open = None

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self._host, self._port), timeout=CONNECT_S)
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self._host)


def _is_over(connection: socket.socket) -> bool:
    """Whether the other side hung up: the first write after that succeeds, and nobody reads it."""
    connection.settimeout(0)
    try:
        return not connection.recv(1)  # syslog servers say nothing
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(CONNECT_S)


class DatagramSink:
    """UDP, or a local socket such as /dev/log: one message each. Source: RFC 5426."""

    def __init__(self, host: str, port: int, path: str | None) -> None:
        self._host, self._port, self._path = host, port, path

    def send(self, lines: Sequence[str]) -> None:
        """Whether UDP arrived nobody says."""
        if self._path is not None:
            family, address = socket.AF_UNIX, self._path
            self._all(family, address, lines)
        else:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            self._all(found[0], found[4], lines)

    def _all(self, family: int, address: tuple[Any, ...] | str, lines: Sequence[str]) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.settimeout(CONNECT_S)
            for line in lines:
                sending.sendto(line.encode(), address)


def targets(text: str) -> list[Target]:
    """What `MCPFLEET_AUDIT_EXPORT` names, separated by commas.

    Raises:
        SettingsError: an address that is none.
    """
    return [_target(part.strip()) for part in text.split(",") if part.strip()]


def keeper(path: str) -> FileSink | None:
    """Where checkpoints are kept besides the database: a path, `-` for standard output, empty for nowhere."""
    if not path:
        return None
    return FileSink(None if path == "-" else Path(path))


def _target(text: str) -> Target:
    if text.startswith("jsonl:") and len(text) > len("jsonl:"):
        path = text.removeprefix("jsonl:")
        return Target(text, Form.JSONL, FileSink(None if path == "-" else Path(path)))
    try:
        parts = urlsplit(text)
        port = parts.port
        form = Form(parse_qs(parts.query, strict_parsing=True)["form"][0]) if parts.query else Form.SYSLOG
    except (ValueError, KeyError) as error:
        raise _wrong(text) from error
    if parts.scheme == "syslog+unix" and parts.path:
        return Target(text, form, DatagramSink("", 0, parts.path))
    if parts.scheme not in PORTS or not parts.hostname:
        raise _wrong(text)
    port = port or PORTS[parts.scheme]
    if parts.scheme == "syslog+udp":
        return Target(text, form, DatagramSink(parts.hostname, port, None))
    tls = ssl.create_default_context() if parts.scheme == "syslog+tls" else None
    return Target(text, form, StreamSink(parts.hostname, port, tls))


def _wrong(text: str) -> SettingsError:
    return SettingsError(f"MCPFLEET_AUDIT_EXPORT names {text!r}, which is no place for an audit log; write {WANTED}")
