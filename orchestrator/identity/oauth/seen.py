"""Tokens whose signature was checked already: a client sends the same one with every call for minutes.

Only the arithmetic is spared (0.2 ms): whether the key is still one, and every claim, is looked at each time.
"""

from __future__ import annotations

import hashlib

from orchestrator.identity.oauth.jose import Parsed, PublicKey, check_signature

KEPT = 4096


class Seen:
    """The newest good ones, by digest, each with the very key that it was checked with."""

    def __init__(self) -> None:
        self._keys: dict[bytes, PublicKey] = {}

    def check(self, parsed: Parsed, key: PublicKey) -> None:
        """Raises BadToken: this key did not sign it."""
        name = hashlib.sha256(parsed.text.encode()).digest()
        if self._keys.get(name) is key:
            return
        check_signature(parsed, key)
        if len(self._keys) >= KEPT:
            self._keys.pop(next(iter(self._keys)))
        self._keys[name] = key
