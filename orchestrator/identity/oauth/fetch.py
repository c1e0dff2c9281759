"""GET of a JSON object from an issuer: https unless loopback, no redirect, bounded in bytes and in time.

Only addresses that the operator's file names, and what an issuer's own metadata names as its keys, come
here; nothing a caller sends.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

BODY_MAX_BYTES = 512 * 1024
ANSWER_S = 5.0
Fetch = Callable[[str], Awaitable[dict[str, Any]]]


class NotFetched(Exception):
    """Why there is no document. Its text is shown to callers, so it names no more than the place."""


def is_safe(url: str) -> bool:
    """Https, or http to this machine itself; with a host, without a user, a query's tricks or a fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        parts.port  # noqa: B018 - raises for a wrong one
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def fetch_with(client: httpx.AsyncClient) -> Fetch:
    """By this client; one for the whole process."""

    async def fetch(url: str) -> dict[str, Any]:
        """Raises NotFetched."""
        if not is_safe(url):
            raise NotFetched("its address is not https")
        try:
            async with client.stream("GET", url, follow_redirects=False, timeout=ANSWER_S) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise NotFetched(f"it answered {answer.status_code}")
                body = await _body(answer)
        except httpx.HTTPError as error:
            raise NotFetched(type(error).__name__) from error
        return _object(body)

    return fetch


async def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise NotFetched(f"its answer is over {BODY_MAX_BYTES} bytes")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise NotFetched("its answer is no JSON") from None
    if not isinstance(found, dict):
        raise NotFetched("its answer is no JSON object")
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
