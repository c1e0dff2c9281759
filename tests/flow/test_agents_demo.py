"""The demo of a coding agent keeps what it promises, with the real Claude Code."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYED_S = 280.0


@pytest.mark.live("claude")
@pytest.mark.timeout(300)
async def test_an_agent_mends_a_failing_test_through_the_fleet() -> None:
    """Queue, node, sandbox, model, patch, branch: the demo says what held, and leaves nothing."""
    keyless = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.agents_demo", cwd=ROOT, env=keyless, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PLAYED_S):
        out, _ = await demo.communicate()
    said = out.decode()
    assert demo.returncode == 0, said
    assert said.count("✓ ") == 3
    assert "+    return goods if goods >= FREE_FROM" in said
