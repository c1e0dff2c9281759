"""What tests of a run's reach need: a TLS server on loopback, and programs in a real sandbox that is led out."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from worker.sidecars import way_out
from worker.sidecars.reach import Reach, ReachLimits, Resolve
from worker.sidecars.unix_socket import listening
from worker.workspaces import sandbox
from worker.workspaces.destinations import Destination, destination_of
from worker.workspaces.names import Project

NAME = "shop.test"
WAIT_S = 60.0


@dataclass(slots=True)
class TlsServer:
    """Serves the files of a folder; `/hold` is answered never."""

    port: int
    certificate: Path
    asked: list[str] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """By its name, which no resolver knows."""
        return f"https://{NAME}:{self.port}"

    @property
    def listed(self) -> Destination:
        """As an operator would."""
        return destination_of(f"{NAME}:{self.port}", is_private=True, address="127.0.0.1")


@contextmanager
def tls_server(folder: Path) -> Iterator[TlsServer]:
    """`folder` is what it serves; its certificate lies beside it."""
    certificate, key = _certificate(folder.parent)
    made = TlsServer(0, certificate)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:  # the standard library's name
            made.asked.append(self.path)
            if self.path == "/hold":
                made.held.set()
                self.connection.settimeout(WAIT_S)
                with contextlib.suppress(OSError):
                    self.connection.recv(1)
                made.left.set()
                self.close_connection = True
                return
            super().do_GET()

        def log_message(self, *_: object) -> None:
            """Nowhere."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        made.port = server.server_address[1]
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield made
        finally:
            server.shutdown()
            serving.join()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "ca.pem", folder / "ca.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    return certificate, private


@dataclass(slots=True)
class Led:
    """A sandbox that is led to what a project lists, without an agent in it."""

    folder: Path
    reach: Reach
    socket: Path

    async def start(self, shell: str) -> asyncio.subprocess.Process:
        """A command in it, which ends with this process."""
        for part in ("work", "home"):
            (self.folder / part).mkdir(exist_ok=True)
        shown = {**way_out.SCRIPT, self.folder.parent / "ca.pem": "/opt/ca.pem"}
        world = sandbox.Sandbox(
            self.folder / "work", self.folder / "home", None, shown, way_out.environ(self.socket), reach=self.socket
        )
        program = way_out.led(sandbox.find_python(), ("/bin/sh", "-c", shell), model=None, reach=self.socket)
        return await asyncio.create_subprocess_exec(
            *sandbox.command(sandbox.find_bwrap(), world, program),
            env=sandbox.environ(world),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    async def run(self, shell: str) -> str:
        """All that it says."""
        process = await self.start(shell)
        try:
            async with asyncio.timeout(WAIT_S):
                return (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def led(
    folder: Path, *listed: Destination, limits: ReachLimits | None = None, resolve: Resolve | None = None
) -> AsyncIterator[Led]:
    """One run of a project that lists these."""
    folder.mkdir(exist_ok=True)
    project = Project.of("shop", "/nowhere", (), listed)
    made = Led(folder, Reach("run-1", project, limits=limits, resolve=resolve), folder / "reach.sock")
    with listening(made.socket) as listener:
        await made.reach.start(listener)
        try:
            yield made
        finally:
            await made.reach.close()
