"""An MCP server whose tools leave a mark in a file: what really happened, in nobody's books but its own.

Standard library only, so that it starts at once. `put` is declared safe to repeat, `apply` is not.
Every call appends a line when its effect happens and one when it answers; `mischief` makes it misbehave
in between.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

JUNK = "this is no JSON-RPC\n"
FLOOD_LINES = 2000
SCHEMA = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "seconds": {"type": "number", "minimum": 0},
        "mischief": {"enum": ["", "crash", "junk", "flood", "hang"]},
        "padding": {"type": "string"},
        "answer_bytes": {"type": "integer", "minimum": 0},
        "after": {"type": "string"},
    },
    "required": ["key"],
    "additionalProperties": False,
}
TOOLS = [
    {"name": "put", "inputSchema": SCHEMA, "annotations": {"idempotentHint": True}},
    {"name": "apply", "inputSchema": SCHEMA},
]
INVOCATION = "mcpfleet/invocation"
AFTER_CHARS = 40
"""Of what a chain hands on: enough to know whose it is."""


class Server:
    """One connection over stdio; every call in a thread of its own."""

    def __init__(self, marks: str) -> None:
        self._marks = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Until standard input ends."""
        for line in sys.stdin:
            self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        if number is None:
            return
        if method == "initialize":
            info = {"name": "effects", "version": "1"}
            self._answer(number, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info})
        elif method == "tools/list":
            self._answer(number, {"tools": TOOLS})
        elif method == "ping":
            self._answer(number, {})
        elif method == "tools/call":
            threading.Thread(target=self._call, args=(number, message["params"]), daemon=True).start()
        else:
            self._say({"id": number, "error": {"code": -32601, "message": "Method not found"}})

    def _call(self, number: object, params: dict[str, Any]) -> None:
        asked, meta = params["arguments"], params.get("_meta") or {}
        key, mischief = asked["key"], asked.get("mischief", "")
        self._mark(asked, "effect", meta)
        if mischief == "crash":
            os._exit(1)
        if mischief == "hang":
            return
        if mischief == "junk":
            self._write(JUNK)
        if mischief == "flood":
            self._write(JUNK * FLOOD_LINES)
        time.sleep(asked.get("seconds", 0))
        self._mark(asked, "answer", meta)
        text = key + "." * asked.get("answer_bytes", 0)
        self._answer(number, {"content": [{"type": "text", "text": text}]})

    def _mark(self, asked: dict[str, Any], what: str, meta: dict[str, Any]) -> None:
        line = {
            "key": asked["key"],
            "what": what,
            "pid": os.getpid(),
            "at": time.time(),
            "invocation": meta.get(INVOCATION),
            "after": asked.get("after", "")[:AFTER_CHARS],
        }
        os.write(self._marks, json.dumps(line).encode() + b"\n")

    def _answer(self, number: object, result: dict[str, Any]) -> None:
        self._say({"id": number, "result": result})

    def _say(self, message: dict[str, Any]) -> None:
        self._write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")

    def _write(self, text: str) -> None:
        with self._lock:
            sys.stdout.write(text)
            sys.stdout.flush()


if __name__ == "__main__":
    Server(sys.argv[1]).serve()
