"""Whether a run of the real Claude Code, or opencode, in a real sandbox can be tried here.

Imports little: every test start asks.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / ".cache/agents/node_modules/@anthropic-ai/claude-code-linux-x64/claude"
OPENCODE = ROOT / ".cache/agents/node_modules/opencode-linux-x64/bin/opencode"
PINNED: dict[str, dict[str, str]] = orjson.loads((ROOT / "deploy/agents/package.json").read_bytes())
VERSION = PINNED["dependencies"]["@anthropic-ai/claude-code"]
OPENCODE_VERSION = PINNED["optionalDependencies"]["opencode-linux-x64"]


@functools.cache
def why_not() -> str | None:
    """What is missing for a run of the real binary in a real sandbox."""
    if not BINARY.exists():
        return "Claude Code is not installed"
    if importlib.util.find_spec("claude_agent_sdk") is None:
        return "claude-agent-sdk is not installed"
    return no_sandbox()


@functools.cache
def no_sandbox() -> str | None:
    """What is missing for any agent in a real sandbox."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "bubblewrap is not installed"
    tried = [bwrap, "--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "true"]
    try:
        ended = subprocess.run(tried, check=False, capture_output=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "bubblewrap does not answer"
    return None if ended.returncode == 0 else "bubblewrap may not make namespaces here"
