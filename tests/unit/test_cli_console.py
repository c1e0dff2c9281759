"""`mcpfleet console`: an address alone on standard output, and no secret anywhere."""

from __future__ import annotations

import io
from pathlib import Path

from orchestrator.cli.main import run

TOKEN = "words-that-nobody-sees"


def test_the_address_is_printed_and_the_token_is_not(tmp_path: Path) -> None:
    """It can be opened by a script; what to log in with is said, not shown."""
    environ = {
        "MCPFLEET_URL": "https://fleet.example.com/",
        "MCPFLEET_TOKEN": TOKEN,
        "MCPFLEET_STATE_DIR": str(tmp_path),
    }
    out, err = io.StringIO(), io.StringIO()
    assert run(["console"], environ=environ, out=out, err=err, stdin=io.BytesIO()) == 0
    assert out.getvalue() == "https://fleet.example.com/console\n"
    assert "MCPFLEET_TOKEN" in err.getvalue()
    assert TOKEN not in out.getvalue() + err.getvalue()
