"""A wrong pools file on the command line: said before a fleet is started, and by doctor."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from orchestrator.cli.main import run


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("[pools.b.scale]\n", "ladder is missing"), ("[providers.local-process]\nstop_s = -1\n", "stop_s is -1")],
)
def test_a_wrong_pools_file_is_said_before_anything_starts(tmp_path: Path, text: str, wrong: str) -> None:
    """`up` starts no Redis for it and ends as for a wrong command line; doctor finds it too."""
    path, state_dir = tmp_path / "pools.toml", tmp_path / "state"
    path.write_text(text)
    environ = {"MCPFLEET_POOLS_FILE": str(path), "MCPFLEET_STATE_DIR": str(state_dir)}

    def said(*words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        return run(words, environ=environ, out=out, err=err, stdin=io.BytesIO()), out.getvalue(), err.getvalue()

    status, out, err = said("up")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{path}: " in err
    assert wrong in err
    assert not state_dir.exists()
    (found,) = [one for one in json.loads(said("doctor", "--json")[1]) if one["check"] == "pools"]
    assert (found["health"], wrong in found["detail"]) == ("fail", True)
