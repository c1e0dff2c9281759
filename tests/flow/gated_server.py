"""An MCP server whose tools leave a mark when they begin, and end when a file is there. Standard library only.

`put` is declared safe to repeat, `apply` is not. The first argument is the folder of marks and gates.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
LOOK_EVERY_S = 0.05
SCHEMA = {"type": "object", "properties": {"key": {"type": "string"}, "gate": {"type": "string"}}, "required": ["key"]}
TOOLS = [
    {"name": "put", "inputSchema": SCHEMA, "annotations": {"idempotentHint": True}},
    {"name": "apply", "inputSchema": SCHEMA},
]
_writing = threading.Lock()


def say(message: dict[str, Any]) -> None:
    """One line."""
    with _writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def call(number: object, asked: dict[str, Any]) -> None:
    """The effect, then the answer."""
    marks = os.open(FOLDER / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(marks, f"{asked['key']}\n".encode())
    os.close(marks)
    waits = threading.Event()
    while asked.get("gate") and not (FOLDER / asked["gate"]).exists():
        waits.wait(LOOK_EVERY_S)
    say({"id": number, "result": {"content": [{"type": "text", "text": asked["key"]}]}})


def main() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        message = json.loads(line)
        number = message.get("id")
        match message.get("method"):
            case "initialize":
                info = {"name": "gated", "version": "1"}
                about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
                say({"id": number, "result": about})
            case "tools/list":
                say({"id": number, "result": {"tools": TOOLS}})
            case "tools/call":
                threading.Thread(target=call, args=(number, message["params"]["arguments"]), daemon=True).start()
            case _ if number is not None:
                say({"id": number, "result": {}})


if __name__ == "__main__":
    main()
