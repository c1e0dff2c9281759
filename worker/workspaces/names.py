"""The names that come from outside: of a remote, a ref, a branch, a run. Pure.

Owns what is allowed, and the parting of an address from the password in it. Refuses whatever git could read
as an option or as a program to start (`ext::sh -c …`).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from tasks.errors import InvalidProject
from tasks.invocation import FLEET_TENANT, PROJECT_PATTERN
from worker.workspaces.destinations import Destination
from worker.workspaces.errors import InvalidRef, InvalidRemote

RUN_PATTERN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,99}(?<!\.)(?<!\.lock)")
COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
REF_CHARS = 200
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_REF_WRONG = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|/\.|[/.]$|\.lock(/|$)|^@$")
"""Source: git-check-ref-format(1); a leading dash is ours."""
_SCP = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!:)(?!//)[^-].*")
_SCHEMES = {"https": "https", "http": "http", "ssh": "ssh", "git": "git", "file": "file"}


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a project's repository is."""

    url: str
    """As git is given it: for http without name and password, which would be in every process list."""
    protocol: str
    """The only one that git may speak with it."""
    header: str | None = field(default=None, repr=False)
    """HTTP's Authorization, from the name and password of the address."""

    def environ(self) -> dict[str, str]:
        """For the git that talks to it. A header goes by the environment: only this user can read that."""
        environ = {"GIT_ALLOW_PROTOCOL": self.protocol}
        if self.header is not None:
            host = urlunsplit(urlsplit(self.url)._replace(path="/", query="", fragment=""))
            environ |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{host}.extraHeader"}
            environ["GIT_CONFIG_VALUE_0"] = self.header
        return environ


@dataclass(frozen=True, slots=True)
class Project:
    """A project, and where its files come from."""

    name: str
    remote: Remote
    servers: tuple[str, ...] = ()
    """The node's MCP servers that its agents may use."""
    destinations: tuple[Destination, ...] = ()
    """What its runs reach of the network, beside their model."""
    tenant: str = FLEET_TENANT
    """Whose it is: nobody else's calls come near its files."""

    @classmethod
    def of(
        cls,
        name: str,
        remote: str,
        servers: tuple[str, ...] = (),
        destinations: tuple[Destination, ...] = (),
        tenant: str = FLEET_TENANT,
    ) -> Project:
        """Checked.

        Raises:
            InvalidProject, InvalidRemote: not in a form that is allowed.
        """
        if not PROJECT_PATTERN.fullmatch(name):
            raise InvalidProject(name)
        return cls(name, remote_of(remote), servers, destinations, tenant)


def remote_of(text: str) -> Remote:
    """An address as a person wrote it.

    Raises:
        InvalidRemote: a form or a protocol that is not allowed.
    """
    if text.startswith("/") and not re.search(r"[\x00-\x1f\x7f]", text):
        return Remote(text, "file")
    if not text or _CONTROL.search(text) or text.startswith("-"):
        raise InvalidRemote(_masked(text), "it is empty, begins with a dash or has a space or control character in it")
    if "://" not in text:
        if _SCP.fullmatch(text):
            return Remote(text, "ssh")
        raise InvalidRemote(_masked(text), "it is neither an address nor an absolute path")
    return _address(text)


def _address(text: str) -> Remote:
    try:
        parts = urlsplit(text)
        host, name, password, port = parts.hostname or "", parts.username, parts.password, parts.port
    except ValueError as error:
        raise InvalidRemote(_masked(text), str(error)) from None
    protocol = _SCHEMES.get(parts.scheme)
    if protocol is None:
        raise InvalidRemote(_masked(text), f"{parts.scheme[:20]}:// is not allowed")
    if protocol == "file":
        return Remote(text, protocol)
    if not host or host.startswith("-") or (name or "").startswith("-"):
        raise InvalidRemote(_masked(text), "it names no host")
    if password is not None and protocol not in {"http", "https"}:
        raise InvalidRemote(_masked(text), f"{protocol} takes no password in an address: use a key")
    if name is None or protocol not in {"http", "https"}:
        return Remote(text, protocol)
    there = f"[{host}]" if ":" in host else host
    plain = urlunsplit(parts._replace(netloc=there if port is None else f"{there}:{port}"))
    pair = f"{unquote(name)}:{unquote(password or '')}".encode()
    return Remote(plain, protocol, f"Authorization: Basic {base64.b64encode(pair).decode()}")


def checked_ref(name: str, kind: str = "ref") -> str:
    """A branch, tag or commit in a form that git allows, and never an option.

    Raises:
        InvalidRef: anything else.
    """
    if not name or len(name) > REF_CHARS:
        raise InvalidRef(kind, name, f"it has 1 to {REF_CHARS} characters")
    if _REF_WRONG.search(name):
        raise InvalidRef(kind, name, "git check-ref-format says what a name may be; ours begin with no dash either")
    return name


def checked_run(name: str) -> str:
    """A run's name: it names folders and a branch.

    Raises:
        InvalidRef: it cannot.
    """
    if not RUN_PATTERN.fullmatch(name):
        raise InvalidRef("run", name, "use 1 to 100 letters, digits, '-', '_' and single dots")
    return name


def _masked(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", text)
