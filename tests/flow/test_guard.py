"""AuthGuardian in a real fleet: an agent asks from the command line, a person answers, and the audit has both."""

from __future__ import annotations

import io
import json
from pathlib import Path

from orchestrator.cli import main
from orchestrator.testing.local import Local

WHY = "The files of ticket 4711, for the customer who asked for them in writing"


def run(fleet: Local, state: Path, token: str, *argv: str) -> tuple[int, str, str]:
    """Status, standard output and standard error of one command, as on another machine."""
    environ = {"MCPFLEET_URL": fleet.url, "MCPFLEET_TOKEN": token, "MCPFLEET_STATE_DIR": str(state)}
    out, err = io.StringIO(), io.StringIO()
    status = main.run(argv, environ=environ, out=out, err=err, stdin=io.BytesIO())
    return status, out.getvalue().strip(), err.getvalue()


def test_an_agent_asks_and_a_person_answers(fleet: Local, tmp_path: Path) -> None:
    """Without policies only a person can say yes; the token is good until it is given back."""
    status, key, said = run(fleet, tmp_path, fleet.token, "keys", "create", "ann", "-r", "agent", "--principal", "ann")
    assert status == 0, said
    ask = ("guard", "request-permission", "--agent", "ann", "--justification", WHY, "--wait", "0", "--resource")
    assert run(fleet, tmp_path, key, *ask, "SAP_API")[0] == 1
    assert run(fleet, tmp_path, key, *ask, "SAP_APY")[0] == 2
    status, view, said = run(fleet, tmp_path, key, *ask, "DATA_EXPORT", "--scope", "files", "--json")
    assert status == 7, said
    request = json.loads(view)["id"]
    assert run(fleet, tmp_path, fleet.token, "guard", "allow", request, "--yes")[0] == 0
    status, token, said = run(fleet, tmp_path, key, *ask, "DATA_EXPORT", "--id", request)
    assert (status, token.count(".")) == (0, 2), said
    check = ("guard", "validate", token, "--agent", "ann", "--resource", "DATA_EXPORT")
    assert run(fleet, tmp_path, fleet.token, *check)[0] == 0
    assert run(fleet, tmp_path, key, "guard", "revoke", token)[0] == 0
    assert run(fleet, tmp_path, fleet.token, *check)[0] == 1
    events = json.loads(run(fleet, tmp_path, fleet.token, "guard", "grants", "--audit", "--json")[1])
    assert {one["act"] for one in events if one["grant"] == request} == {"requested", "granted", "revoked"}
