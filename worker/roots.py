"""The authorities that this node believes: those of its file, and those that the fleet has told it since.

Owns `<name>.roots.pem` in the state directory: what the fleet said last, and the names of those that it said before
and says no more. These are left out at the next start, though the file has them: who has an old secret of the fleet
is not believed for ever. Refuses roots from a fleet none of whose authorities it believes already: a node that checks
doors by another authority (of a company, of the system) goes on to do that.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tasks.errors import SettingsError
from worker.private_file import write_private

RETIRED = "# retired "
_DER = serialization.Encoding.DER
_log = structlog.get_logger()


class Roots:
    """One node's. Without a file of its own the system's authorities are asked, and nothing is kept."""

    def __init__(self, path: Path, file: Path | None) -> None:
        """Read both.

        Raises:
            SettingsError: one of them cannot be used.
        """
        self._path, self._file = path, file
        self._told, self._retired = _read(path) if file is not None else ("", frozenset())

    def context(self) -> ssl.SSLContext:
        """Believes them, as they are now."""
        file = self._file
        try:
            if file is None:
                return ssl.create_default_context()
            if not self._told:
                return ssl.create_default_context(cafile=str(file))
            return ssl.create_default_context(cadata=_pem(self._believed()))
        except (OSError, ValueError) as error:
            raise SettingsError(f"MCPFLEET_NODE_CA {file} cannot be read: {error}") from None

    def learn(self, told: str, context: ssl.SSLContext) -> None:
        """The fleet says which there are. New ones are believed by `context` at once; others go at the next start."""
        if not told or self._file is None:
            return
        try:
            believed, said = {_id(one) for one in self._believed()}, _certificates(told)
        except (OSError, ValueError):
            _log.warning("roots_not_taken", why="they cannot be read")
            return
        now = {_id(one) for one in said}
        if not believed & now:
            _log.info("roots_not_taken", why="this node checks the doors by another authority")
            return
        before = {_id(one) for one in _certificates(self._told)} if self._told else set()
        if now == before:
            return
        self._told, self._retired = told, (self._retired | before) - now
        write_private(self._path, ("".join(f"{RETIRED}{one}\n" for one in sorted(self._retired)) + told).encode())
        context.load_verify_locations(cadata=told)
        _log.info("roots_changed", believed=len(now), new=len(now - believed), retired=len(before - now))

    def _believed(self) -> list[x509.Certificate]:
        assert self._file is not None
        listed = x509.load_pem_x509_certificates(self._file.read_bytes())
        told = _certificates(self._told) if self._told else []
        return [one for one in (*told, *listed) if _id(one) not in self._retired]


def _read(path: Path) -> tuple[str, frozenset[str]]:
    try:
        text = path.read_text(encoding="ascii")
        lines = text.splitlines()
        _certificates(text)
    except FileNotFoundError:
        return "", frozenset()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read ({error}); remove it: the fleet tells it again") from None
    return text, frozenset(line.removeprefix(RETIRED) for line in lines if line.startswith(RETIRED))


def _certificates(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode())


def _pem(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def _id(certificate: x509.Certificate) -> str:
    """Of its key: the fleet makes the certificates of its roots anew at every start."""
    key = certificate.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()
