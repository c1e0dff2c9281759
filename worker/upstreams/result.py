"""A tool's result on its way from a server to the ledger: JSON text, as it came, within the limit."""

from __future__ import annotations

import json
from typing import Any

import orjson

from worker.upstreams.errors import permanent, too_large


def result_text(raw: dict[str, Any], *, what: str, limit_bytes: int) -> str:
    """The result as JSON text; nothing is added, dropped or checked against an output schema.

    Output schemas are left to whoever called: the tool has run, and turning its answer into an error
    here would lose it for every caller because of a mistake in a schema.

    Raises:
        UpstreamError: it is over the limit, or cannot be JSON.
    """
    try:
        data = orjson.dumps(raw)
    except TypeError:
        data = _exotic(raw, what)
    if len(data) > limit_bytes:
        raise too_large(what, limit_bytes)
    return data.decode()


def _exotic(raw: dict[str, Any], what: str) -> bytes:
    # Integers over 64 bits: orjson refuses them, JSON does not.
    try:
        return json.dumps(raw, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise permanent("bad_result", f"{what}: the result is not JSON ({error})") from error
