"""An MCP server that needs a secret: it signs with it, so that whoever calls can tell which one it has.

Standard library only, stdio. The secret is in the environment as SIGNING_KEY, or in the file that its one
argument names. Refuses to answer with it; `complain` writes it to stderr, as careless servers do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import resource
import select
import sys
from pathlib import Path
from typing import Any

IS_RUN = __name__ == "__main__"
FILE = Path(sys.argv[1]) if IS_RUN and len(sys.argv) > 1 else None
KEY = FILE.read_text() if FILE else os.environ["SIGNING_KEY"] if IS_RUN else ""
NAMES = ("sign", "complain", "facts", "hold")
HOLD_S = 60.0


def signature(key: str, text: str) -> str:
    """What `sign` answers."""
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def call(name: str, arguments: dict[str, Any]) -> str:
    """The text of the answer."""
    match name:
        case "complain":
            sys.stderr.write(f"cannot sign with {KEY}\n")
            sys.stderr.flush()
        case "facts":
            mode = f"{FILE.stat().st_mode & 0o777:o}" if FILE else ""
            core = resource.getrlimit(resource.RLIMIT_CORE)
            return json.dumps({"pid": os.getpid(), "file": str(FILE or ""), "mode": mode, "core": core})
        case "hold":  # until its named pipe is opened for writing
            pipe = os.open(arguments["pipe"], os.O_RDONLY | os.O_NONBLOCK)
            Path(arguments["pipe"] + ".held").touch()
            select.select([pipe], [], [], HOLD_S)
            os.close(pipe)
    return signature(KEY, arguments.get("text", ""))


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    """To one request; None where it is none."""
    number, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if number is None:
        return None
    if method == "initialize":
        info = {"name": "signing", "version": "1"}
        version = params.get("protocolVersion", "2025-06-18")
        return {"id": number, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
    if method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]
        return {"id": number, "result": {"tools": tools}}
    if method == "tools/call":
        text = call(params["name"], params.get("arguments") or {})
        return {"id": number, "result": {"content": [{"type": "text", "text": text}], "isError": False}}
    if method == "ping":
        return {"id": number, "result": {}}
    return {"id": number, "error": {"code": -32601, "message": "no such method"}}


def main() -> None:
    """Until its input ends."""
    for line in sys.stdin:
        if (said := answer(json.loads(line))) is not None:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", **said}) + "\n")
            sys.stdout.flush()


if IS_RUN:
    main()
