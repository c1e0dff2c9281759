"""The built-in certificate authority: a root, an issuing CA under it, and leaves of a day for nodes.

Owns what a certificate says. Who it is for comes from whoever asks with a token, never from the request for it:
a CSR gives its public key and nothing else. Refuses to keep keys: both authorities' are derived from the
fleet's secret, so nothing is stored, and every replica has them. Source: RFC 5280; SPIFFE X.509-SVID section 2
(identity as a URI name).

While the fleet goes from one secret to the next, the authority of the earlier one vouches for the root of the new
one (a cross-certificate, RFC 4158 section 1.3.1): who knows either root believes what is made now.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tasks.clock import Clock
from tasks.errors import Permanent
from tasks.sealing import derive

TRUST_DOMAIN = "mcpfleet"
NODE_PATH = "/node/"
ROOT = "mcpfleet root"
ROOT_DAYS, ISSUING_DAYS = 3650, 365
LEAF_S = 86_400.0
"""A stolen one is good for a day at most; renewed at two thirds of it."""
BACK_S = 300.0
"""Certificates begin so much earlier: clocks of nodes are not all right."""
CSR_CHARS_MAX = 8192
PEM = serialization.Encoding.PEM
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Source: SEC 2 version 2, section 2.4.2."""


class BadRequestForCertificate(Permanent):
    """What was sent is no CSR that we take."""

    code = "bad_csr"
    http_status = 400

    def __init__(self, why: str) -> None:
        super().__init__(f"the request for a certificate is not taken: {why}; send a PEM PKCS #10 with a P-256 key")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with what it needs to be believed, and when to ask for the next."""

    chain_pem: str
    roots_pem: str
    not_after: float
    """Wall clock."""


class Issuer(Protocol):
    """Who makes certificates of nodes. The built-in one is `Authority`; step-ca or OpenBao can stand here."""

    @property
    def roots_pem(self) -> str:
        """What its certificates are checked against."""
        ...

    def node(self, csr_pem: str, *, name: str) -> Issued:
        """A client certificate for the key in the CSR, in the name given here.

        Raises:
            BadRequestForCertificate
        """
        ...


class Authority:
    """One issuing CA under its root."""

    def __init__(self, secret: bytes, clock: Clock, earlier: Authority | None = None) -> None:
        """Derive it.

        Args:
            secret: the fleet's. Another one is another authority, which nodes do not believe.
            clock: wall.
            earlier: of the secret before. It is believed too, and vouches for this one.
        """
        now = clock.wall_s()
        self._root_key, self._key = _derived(secret, "root"), _derived(secret, "issuing")
        root_good, issuing_good = ((now - BACK_S, now + days * 86_400) for days in (ROOT_DAYS, ISSUING_DAYS))
        self._root = _authority(ROOT, self._root_key, (self._root_key, None), root_good, below=1)
        self._issuing = _authority("mcpfleet issuing", self._key, (self._root_key, self._root), issuing_good, below=0)
        self.earlier, self._clock = earlier, clock
        self._cross = None if earlier is None else earlier._vouch(self._root_key, issuing_good)  # noqa: SLF001 - its own

    @property
    def roots_pem(self) -> str:
        """The roots that are believed, PEM: its own first, then the earlier one's."""
        return self._root.public_bytes(PEM).decode() + ("" if self.earlier is None else self.earlier.roots_pem)

    @property
    def ends_at(self) -> float:
        """When the first of its certificates ends, wall clock: at every start they are made anew."""
        return self._issuing.not_valid_after_utc.timestamp()

    @property
    def key_id(self) -> str:
        """Of the root's key, SHA-256 in hex: what people compare. Its certificate is made anew at every start."""
        key = self._root.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(key).hexdigest()

    @property
    def key_ids(self) -> dict[str, str]:
        """Of those that are believed now, for people: `authority`, and `earlier_authority` where there is one."""
        own = {"authority": self.key_id}
        return own if self.earlier is None else own | {"earlier_authority": self.earlier.key_id}

    def node(self, csr_pem: str, *, name: str) -> Issued:
        """For a node to show. The subject and the names of the CSR are not looked at."""
        uri = x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}{NODE_PATH}{name}")
        return self._leaf(_key_of(csr_pem), name, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, names: Iterable[str]) -> tuple[Issued, str]:
        """For the orchestrator's own doors: the certificate, and its key in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._leaf(
            key.public_key(), "orchestrator", [_host(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH
        )
        return issued, _key_pem(key).decode()

    def _leaf(
        self, key: ec.EllipticCurvePublicKey, name: str, names: list[x509.GeneralName], usage: x509.ObjectIdentifier
    ) -> Issued:
        now = self._clock.wall_s()
        until = min(now + LEAF_S, self._issuing.not_valid_after_utc.timestamp())
        made = (
            _builder(name, key, now - BACK_S, until, issuer=self._issuing.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_ca=False), critical=True)
            .add_extension(_key_of_issuer(self._key), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        above = [self._issuing] if self._cross is None else [self._issuing, self._cross]
        chain = b"".join(one.public_bytes(PEM) for one in (made, *above))
        return Issued(chain.decode(), self.roots_pem, until)

    def _vouch(self, key: ec.EllipticCurvePrivateKey, good: tuple[float, float]) -> x509.Certificate:
        """For another root, in its name and for its key."""
        return _authority(ROOT, key, (self._root_key, self._root), good, below=1)


def thumbprint(der: bytes) -> str:
    """SHA-256 of a certificate, base64url without padding. Source: RFC 8705 section 3.1, `x5t#S256`."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def node_of(names: Iterable[tuple[str, str]]) -> str | None:
    """The node that a checked certificate names, from its alternative names as `ssl` gives them."""
    prefix = f"spiffe://{TRUST_DOMAIN}{NODE_PATH}"
    found = [value.removeprefix(prefix) for kind, value in names if kind == "URI" and value.startswith(prefix)]
    return found[0] if len(found) == 1 else None


def _key_of(csr_pem: str) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > CSR_CHARS_MAX:
        raise BadRequestForCertificate(f"it has more than {CSR_CHARS_MAX} characters")
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = csr.public_key()
    except ValueError as error:
        raise BadRequestForCertificate("it cannot be read") from error
    if not csr.is_signature_valid:
        raise BadRequestForCertificate("its signature is not that of its key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadRequestForCertificate("its key is of another kind")
    return key


def _derived(secret: bytes, which: str) -> ec.EllipticCurvePrivateKey:
    """A key of P-256. Source: FIPS 186-5 appendix A.2.1, extra random bits, from HKDF (RFC 5869)."""
    wide = b"".join(derive(secret, f"authority {which} {part}") for part in range(2))
    return ec.derive_private_key(int.from_bytes(wide) % (P256_ORDER - 1) + 1, ec.SECP256R1())


def _authority(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    by: tuple[ec.EllipticCurvePrivateKey, x509.Certificate | None],
    good: tuple[float, float],
    *,
    below: int,
) -> x509.Certificate:
    signer, root = by
    builder = _builder(name, key.public_key(), *good, issuer=root.subject if root else None)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
        .add_extension(_usage(is_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_of_issuer(signer), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _key_of_issuer(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    """All roots have one name, so certificates say which key is above them. Source: RFC 5280 section 4.2.1.1."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _builder(
    name: str, key: ec.EllipticCurvePublicKey, since: float, until: float, *, issuer: x509.Name | None
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(since, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(until, dt.UTC))
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
