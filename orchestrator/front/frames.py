"""Whether JSON is a message of MCP at all, in words for whoever sent it. Pure.

Refuses to judge what a method takes: the method does that. Source: JSON-RPC 2.0, sections 4 and 5; MCP, Base
protocol: ids are text or whole numbers, params an object; there are no batches.
"""

from __future__ import annotations

import re
from typing import Any

from mcp_types import INVALID_REQUEST

ID_MAX = 2**63
SURROGATE = re.compile("[\ud800-\udfff]")


def refusal_of(form: object) -> dict[str, Any] | None:
    """The error response to what is no message; None for one that is."""
    wrong = _wrong(form)
    if wrong is None:
        return None
    given = form.get("id") if isinstance(form, dict) else None
    error = {"code": INVALID_REQUEST, "message": f"Invalid Request: {wrong}"}
    return {"jsonrpc": "2.0", "id": given if _is_id(given) else None, "error": error}


def _wrong(form: object) -> str | None:
    if not isinstance(form, dict):
        return "send one message, a JSON object"
    if form.get("jsonrpc") != "2.0":
        return '"jsonrpc" must be "2.0"'
    if "method" not in form and "result" not in form and "error" not in form:
        return '"method" must be given'
    if not isinstance(form.get("method", ""), str):
        return '"method" must be text'
    if form.get("id") is not None and not _is_id(form["id"]):
        return '"id" must be text or a whole number of 64 bits'
    if form.get("params") is not None and not isinstance(form["params"], dict):
        return '"params" must be an object'
    return None


def _is_id(value: object) -> bool:
    """One that can be sent back: 64 bits, as most parsers have them, and characters that UTF-8 has."""
    if isinstance(value, str):
        return value.isascii() or SURROGATE.search(value) is None
    return isinstance(value, int) and not isinstance(value, bool) and -ID_MAX <= value < ID_MAX
