"""The text of an API key: `mcf_live_<id>_<secret>_<check>`.

Owns its form. The prefix and the checksum let scanners find lost keys and let a door refuse junk without a
look-up. Source: docs/adr/0018-identity.md; the form is GitHub's of its tokens (2021), the check CRC-32 (RFC 1952).
"""

from __future__ import annotations

import re
import secrets
import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "mcf_live_"
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 10, 43, 6
"""43 digits of 62 are 256 bits."""
_FORM = re.compile(
    rf"{PREFIX}(?P<id>[0-9A-Za-z]{{{ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS}}}_(?P<check>[0-9A-Za-z]{{{CHECK_CHARS}}})"
)
ID_PATTERN = re.compile(rf"[0-9A-Za-z]{{{ID_CHARS}}}")


def new_id() -> str:
    """An id, which names a key and is no secret."""
    return _drawn(ID_CHARS)


def new_key(key_id: str) -> str:
    """A key with this id. Shown once."""
    body = f"{PREFIX}{key_id}_{_drawn(SECRET_CHARS)}"
    return f"{body}_{_check(body)}"


def id_of(text: str) -> str | None:
    """The id in a key; None for what is not one, a mistyped one too."""
    found = _FORM.fullmatch(text)
    if found is None or _check(text[: -CHECK_CHARS - 1]) != found["check"]:
        return None
    return found["id"]


def _drawn(count: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(count))


def _check(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECK_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
