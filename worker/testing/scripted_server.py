"""An MCP server that misbehaves on demand. Standard library only, so that it starts at once.

Speaks the handshake era over stdio, one request after the other; a call to `hang` is never answered.
The first argument is a file to which it appends what it was told: pid, cancellations.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

NOTES = Path(sys.argv[1])
OPTIONS = frozenset(sys.argv[2:])
NAMES = [
    "echo",
    "hang",
    "die",
    "big",
    "wrong",
    "mismatch",
    "rpc_error",
    "progress",
    "grow",
    "spawn",
    "chat",
    "block",
    "mute",
    "fade",
    "not allowed",
]

pings = {"mute": 0, "fade": -1}
"""How many more pings it does not answer; after how many more answers it goes deaf (below 0: never)."""


def note(text: str) -> None:
    """Append a line for the test."""
    with NOTES.open("a") as file:
        file.write(text + "\n")


def send(message: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def tools(cursor: str | None) -> dict[str, Any]:
    """Four to a page; `endless` never stops."""
    start = int(cursor or 0)
    listed = [{"name": name, "inputSchema": {"type": "object"}, "x-extra": {"null": None}} for name in NAMES]
    listed[NAMES.index("mismatch")]["outputSchema"] = {"type": "object", "required": ["missing"]}
    page: dict[str, Any] = {"tools": listed[start : start + 4]}
    if "endless" in OPTIONS:
        return page | {"nextCursor": "0"}
    if start + 4 < len(NAMES):
        page["nextCursor"] = str(start + 4)
    return page


def call(  # noqa: C901, PLR0912 - one case per tool
    number: object, name: str, arguments: dict[str, Any], meta: dict[str, Any]
) -> dict[str, Any] | None:
    """The result, or None where no result is sent."""
    match name:
        case "echo":
            return {"content": [], "structuredContent": {"arguments": arguments, "meta": meta}, "_meta": {"kept": 1}}
        case "hang":
            note(f"hangs {number}")
            return None
        case "block":
            signal.sigtimedwait([], arguments["seconds"])
        case "mute":
            pings["mute"] = arguments["pings"]
        case "fade":
            pings["fade"] = arguments["pings"]
            return None
        case "die":
            os._exit(3)
        case "big":
            return {"content": [{"type": "text", "text": "x" * int(arguments["bytes"])}]}
        case "wrong":
            return {"content": [{"type": "no such type"}]}
        case "mismatch":
            return {"content": [], "structuredContent": {"other": 1}}
        case "rpc_error":
            send({"id": number, "error": {"code": arguments["code"], "message": "no, because"}})
            return None
        case "progress":
            for step in range(3):
                told = {"progressToken": meta["progressToken"], "progress": step, "total": 3, "message": f"step {step}"}
                send({"method": "notifications/progress", "params": told})
        case "grow":
            NAMES.append("grown")
            send({"method": "notifications/tools/list_changed"})
        case "spawn":
            child = subprocess.Popen(["/bin/sleep", "1000"])
            note(f"child {child.pid}")
        case "chat":
            sys.stdout.write("I am no JSON-RPC\n")
            sys.stdout.flush()
            sys.stderr.write("t0ken-of-mine on stderr\n")
            sys.stderr.flush()
    return {"content": [{"type": "text", "text": name}], "isError": False}


def ping(number: object) -> None:
    """As it was told to: answered, passed over, or the last thing it ever reads."""
    if pings["mute"] > 0:
        pings["mute"] -= 1
        note(f"mute {number}")
        return
    note(f"ping {number}")
    send({"id": number, "result": {}})
    pings["fade"] -= 1
    if pings["fade"] == 0:
        note("deaf now")
        while True:
            signal.pause()


def answer(message: dict[str, Any]) -> None:
    """One request or notification."""
    method, number, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "scripted", "version": "1"}
        send(
            {
                "id": number,
                "result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info},
            }
        )
    elif method == "tools/list":
        send({"id": number, "result": tools(params.get("cursor"))})
    elif method == "tools/call":
        result = call(number, params["name"], params.get("arguments") or {}, params.get("_meta") or {})
        if result is not None:
            send({"id": number, "result": result})
    elif method == "ping":
        ping(number)
    elif method == "notifications/cancelled":
        note(f"cancelled {params['requestId']}")
    elif number is not None:
        note(f"unknown {method}")
        send({"id": number, "error": {"code": -32601, "message": "Method not found"}})


def main() -> None:
    """Until stdin ends."""
    note(f"pid {os.getpid()}")
    for line in sys.stdin:
        answer(json.loads(line))


if __name__ == "__main__":
    main()
