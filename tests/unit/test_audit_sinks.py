"""Syslog as servers receive it: over real sockets, framed as the RFCs say, and sent again after a break."""

from __future__ import annotations

import secrets
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.audit.chain import link
from orchestrator.audit.formats import Form, writer
from orchestrator.audit.sinks import Sink, targets
from orchestrator.identity.ca import Authority
from orchestrator.ledger.audit_values import AuditEntry, Decision
from tasks.clock import SystemClock

WITHIN_S = 60.0


def lines(count: int = 3, form: str = "syslog") -> list[str]:
    """Rows as they are exported; an actor with umlauts, since TCP counts octets, not characters."""
    entries = [AuditEntry("create_key", Decision.ALLOWED, f"j\u00f6rg{number}") for number in range(count)]
    rows = link(entries, None, epoch=1, at_us=1_000_000, new_chain="0" * 64)
    return [writer(Form(form), "host")(row) for row in rows]


class Heard(socketserver.ThreadingTCPServer):
    """A syslog server that reads octet-counted messages. Source: RFC 6587, section 3.4.1."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.messages: list[str] = []
        self.connections: list[socket.socket] = []
        self.changed = threading.Condition()
        self._tls = tls
        super().__init__(("127.0.0.1", 0), _Reader)

    def get_request(self) -> tuple[socket.socket, object]:
        """With TLS where it is asked for."""
        plain, address = super().get_request()
        self.connections.append(plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True))
        return self.connections[-1], address

    def hang_up(self) -> None:
        """On all who are connected."""
        while self.connections:
            self.connections.pop().shutdown(socket.SHUT_RDWR)

    def wait(self, count: int) -> list[str]:
        """What came, as soon as so many did."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.messages) >= count, WITHIN_S)
            return list(self.messages)


class _Reader(socketserver.StreamRequestHandler):
    server: Heard

    def handle(self) -> None:
        """Until the other side closes."""
        while size := b"".join(iter(lambda: self.rfile.read(1).rstrip(b" "), b"")):
            message = self.rfile.read(int(size)).decode()
            with self.server.changed:
                self.server.messages.append(message)
                self.server.changed.notify_all()


@contextmanager
def listening(server: Heard) -> Iterator[Heard]:
    """Serving, in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WITHIN_S)


def sink(url: str) -> Sink:
    """As `MCPFLEET_AUDIT_EXPORT` names it."""
    return targets(url)[0].sink


@pytest.mark.parametrize("form", ["syslog", "cef"])
def test_udp_is_a_datagram_for_each_row(form: str) -> None:
    """Nothing around it. Source: RFC 5426, section 3.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(WITHIN_S)
        sink(f"syslog+udp://127.0.0.1:{server.getsockname()[1]}?form={form}").send(lines(form=form))
        assert [server.recv(65_536).decode() for _ in range(3)] == lines(form=form)


def test_a_local_socket_is_spoken_to_like_udp(tmp_path: Path) -> None:
    """As /dev/log is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(WITHIN_S)
        sink(f"syslog+unix://{tmp_path}/log").send(lines())
        assert [server.recv(65_536).decode() for _ in range(3)] == lines()


def test_tcp_counts_octets_and_keeps_its_connection() -> None:
    """Two batches come over one connection, whole; an umlaut is two octets."""
    with listening(Heard()) as server:
        one = sink(f"syslog+tcp://127.0.0.1:{server.server_address[1]}")
        one.send(lines())
        one.send(lines())
        assert server.wait(6) == lines() * 2


def test_a_server_that_hung_up_is_called_again() -> None:
    """The first write into a closed connection succeeds and is lost, so it is looked at before."""
    with listening(Heard()) as server:
        one = sink(f"syslog+tcp://127.0.0.1:{server.server_address[1]}")
        one.send(lines(1))
        server.wait(1)
        server.hang_up()
        one.send(lines(2))
        assert server.wait(3) == lines(1) + lines(2)


def test_a_server_that_is_not_there_is_an_error() -> None:
    """The export stays where it was and says it again: no row is left out."""
    with listening(Heard()) as server:
        port = server.server_address[1]
    with pytest.raises(ConnectionRefusedError):
        sink(f"syslog+tcp://127.0.0.1:{port}").send(lines(1))


def test_tls_is_octet_counted_too_and_its_server_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the machine's authorities, here the one that SSL_CERT_FILE names. Another authority's server hears nothing."""
    ours, theirs = (Authority(secrets.token_bytes(32), SystemClock()) for _ in range(2))
    (tmp_path / "ca.pem").write_text(ours.roots_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for authority, is_ours in ((ours, True), (theirs, False)):
        issued, key = authority.server(["localhost"])
        (tmp_path / "server.pem").write_text(issued.chain_pem + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        with listening(Heard(context)) as server:
            one = sink(f"syslog+tls://localhost:{server.server_address[1]}")
            if is_ours:
                one.send(lines())
                assert server.wait(3) == lines()
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    one.send(lines())
                assert not server.messages
