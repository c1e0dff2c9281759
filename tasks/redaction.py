"""Takes secrets out of what is about to be logged: by the names of fields, and by the forms of values.

Owns both lists. Refuses to know any value: a password that looks like a word is not recognised in a sentence, so
whoever logs still must not log it. A pattern must not be quadratic: what is logged may be chosen by a caller.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice

REDACTED = "[redacted]"
TEXT_MAX = 32_768
"""Characters of a value that are written: to look through more would hold up the event loop that logs it."""
_SECRET_MAX = 4096
"""Characters of a secret that is still recognised where a text is cut."""
ITEMS_MAX = 256
"""Of a container; the rest is a number."""
DEPTH_MAX = 8
"""Deeper values are written as text, and looked through as text."""

_NAME = (
    r"password|passwd|passphrase|secret|token|authorization|cookie|api[_-]?key|apikey|private[_-]?key|secret[_-]?key"
    r"|access[_-]?key|delivery[_-]?key|pool[_-]?key|credential"
)
_SECRET_NAME = re.compile(rf"(?:{_NAME})s?$", re.IGNORECASE)
_NAME_HINTS = ("passw", "passphrase", "secret", "token", "authorization", "cookie", "key", "credential")

# What follows a name with `=`, or after `:` where it is quoted; a header's value may have a word before the secret.
_QUOTED = r"""\\+["'][^"']*["']?|"(?:[^"\\]|\\.)*(?:"|$)|'(?:[^'\\]|\\.)*(?:'|$)"""
_NAMED = re.compile(
    rf"(?P<name>(?:{_NAME})s?\\*[\"']?)(?P<sign>\s*=\s*|\s*:\s*)(?P<value>{_QUOTED}|[^\s,;&\"'\\}}\])]+)",
    re.IGNORECASE | re.DOTALL,
)
_HEADER = re.compile(r"\b(authorization|x-api-key|(?:set-)?cookie)(\s*:\s*)[^\r\n\"']+", re.IGNORECASE)

_FORMS: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (("mcf_",), re.compile(r"mcf_live_([0-9A-Za-z]{10})_[0-9A-Za-z_-]+"), rf"mcf_live_\1_{REDACTED}"),
    (("mcf_",), re.compile(r"mcf_(?!live_)([a-z]+)_[0-9A-Za-z_-]{8,}"), rf"mcf_\1_{REDACTED}"),
    (("://",), re.compile(r"://([^\s/:@\"'?#]*):[^\s/\"']*@"), rf"://\1:{REDACTED}@"),
    (("://",), re.compile(r"://[^\s/:@\"'?#]{16,}@"), f"://{REDACTED}@"),
    (("eyJ",), re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){1,4}"), REDACTED),
    (
        ("PRIVATE KEY",),
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END).)*(?:-----END [A-Z ]{0,40}KEY-----)?", re.DOTALL
        ),
        REDACTED,
    ),
    (
        ("earer", "EARER", "asic", "ASIC"),
        re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
        rf"\1 {REDACTED}",
    ),
    (("sk-", "sk_"), re.compile(r"\bsk[-_][A-Za-z0-9_-]{16,}"), REDACTED),
    (("gh", "glpat-"), re.compile(r"\b(?:gh[opsur]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}"), REDACTED),
    (("hvs.",), re.compile(r"\bhvs\.[A-Za-z0-9_-]{16,}"), REDACTED),
)
"""What must stand in a text, the form, what is written instead. GLM's keys have no mark: see `_GLM`."""
_GLM = re.compile(r"\b[0-9a-f]{32}\.[A-Za-z0-9]{16}\b")
_GLM_CHARS = 49


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def redact_text(text: str) -> str:
    """The text without what has the form of a secret, and cut where it is too long."""
    size = len(text)
    if size <= TEXT_MAX:
        return _redacted(text)
    # A secret that the cut goes through is no form any more: it goes with what is left out.
    return f"{_redacted(text[: TEXT_MAX + _SECRET_MAX])[:-_SECRET_MAX]}… ({size} characters)"


def _redacted(text: str) -> str:
    for marks, form, instead in _FORMS:
        if any(mark in text for mark in marks):
            text = form.sub(instead, text)
    if len(text) >= _GLM_CHARS and "." in text:
        text = _GLM.sub(REDACTED, text)
    lowered = text.lower()
    if any(hint in lowered for hint in _NAME_HINTS):
        text = _NAMED.sub(_without_value, _HEADER.sub(rf"\1\2{REDACTED}", text))
    return text


def redact(value: object, depth: int = 0) -> object:
    """The value without secrets: numbers as they are, containers anew, all else as text."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= DEPTH_MAX:
        return redact_text(str(value))
    if isinstance(value, Mapping):
        return {str(key): redact_field(str(key), one, depth + 1) for key, one in islice(value.items(), ITEMS_MAX)} | (
            {"left_out": len(value) - ITEMS_MAX} if len(value) > ITEMS_MAX else {}
        )
    if isinstance(value, list | tuple | set | frozenset):
        kept = [redact(one, depth + 1) for one in islice(value, ITEMS_MAX)]
        return [*kept, f"… ({len(value)} items)"] if len(value) > ITEMS_MAX else kept
    return redact_text(str(value))


def redact_field(name: str, value: object, depth: int = 0) -> object:
    """The value of a field. A number is a count (`tokens=12`) and stays."""
    if value is not None and not isinstance(value, bool | int | float) and is_secret_name(name):
        return REDACTED
    return redact(value, depth)


def _without_value(found: re.Match[str]) -> str:
    value = found["value"]
    if ":" in found["sign"] and value.lstrip("\\")[:1] not in ("'", '"') and found["name"][-1] not in ("'", '"'):
        return found[0]  # prose: `token: it is not known here`
    return f"{found['name']}{found['sign']}{REDACTED}"
