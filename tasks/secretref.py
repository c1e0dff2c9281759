"""Secrets by reference: how one is named where its value must not stand, and how one is held in memory.

    secret_ref:shop:stripe-key            of project `shop`, of the default tenant
    secret_ref:tenant:stripe-key          of the default tenant itself
    secret_ref:acme/shop:stripe-key       of project `shop` of tenant `acme`
    secret_ref:acme/tenant:stripe-key     of tenant `acme` itself

Owns the form of both. Refuses to resolve: the orchestrator gives a secret only to the node that starts what
needs it (docs/adr/0021-secrets.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

PREFIX = "secret_ref:"
DEFAULT_TENANT = "default"
TENANT_ITSELF = "tenant"
"""The owner that is no project. A project of that name can own no secret."""
NAME_FORM = r"[a-z0-9][a-z0-9_-]{0,62}"
NAME = re.compile(NAME_FORM)
"""Of a secret, of its owner, of its tenant: no dots, no slashes, so they stand in paths as they are."""
REF = re.compile(rf"{PREFIX}(?:({NAME_FORM})/)?({NAME_FORM}):({NAME_FORM})")
VALUE_LIMIT_BYTES = 64 * 1024
"""Keys, certificates, service accounts; what is larger is a file, not a secret."""
MASK = "********"


class NotARef(ValueError):
    """This text names no secret."""

    def __init__(self, text: str) -> None:
        shown = text if text.startswith(PREFIX) else text[:4] + "…"  # else it may be the secret itself
        super().__init__(
            f"{shown[:120]!r} names no secret: write {PREFIX}OWNER:NAME, the owner a project, `{TENANT_ITSELF}`, or "
            f"either after its tenant and a slash; each of a-z, 0-9, - and _, at most 63, not beginning with - or _"
        )


@dataclass(frozen=True, slots=True, order=True)
class SecretRef:
    """The name of one secret."""

    tenant: str
    owner: str
    name: str

    def __str__(self) -> str:
        before = "" if self.tenant == DEFAULT_TENANT else f"{self.tenant}/"
        return f"{PREFIX}{before}{self.owner}:{self.name}"


def parse_ref(text: str) -> SecretRef:
    """What this names. The whole text counts: a newline at its end is no part of a name.

    Raises:
        NotARef
    """
    found = REF.fullmatch(text)
    if found is None:
        raise NotARef(text)
    return SecretRef(found[1] or DEFAULT_TENANT, found[2], found[3])


class Secret:
    """A value that says nothing of itself: not in a log, a traceback, a message or a pickle.

    `reveal` is the one way to it; whoever calls that hands it to the thing that needs it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, _spec: str) -> str:
        return MASK

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled and not copied")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)
