"""AuthGuardian in a real fleet: an agent asks from the command line, a person answers, and the audit has both."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.testing.local import UP_WITHIN_S, Local, until, upped
from worker.testing import signing_server

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


SERVER = [sys.executable, "-S", signing_server.__file__]
GUARDED = {
    "mcpServers": {"sap": {"command": SERVER[0], "args": SERVER[1:], "env": {"SIGNING_KEY": "of-no-account"}}},
    "mcpfleet": {
        "tools": {
            "sap.facts": {"grant": "SAP_API", "grant_scope": ["orders:read"]},
            "probe.sleep": {"grant": "SAP_API", "grant_scope": ["orders:read"]},
        }
    },
}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Local]:
    """A fleet of one node, a tool of which needs a grant."""
    (tmp_path / "servers.json").write_text(json.dumps(GUARDED))
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/all.cedar").write_text('@id("all") permit (principal, action, resource);')
    words = ("--nodes", "1", "--servers", str(tmp_path / "servers.json"))
    settings = {"MCPFLEET_POLICY_DIR": str(tmp_path / "policy")}
    with upped(tmp_path, *words, environ=os.environ, settings=settings) as local:
        yield local


def test_a_node_asks_for_the_grant_and_hears_that_it_was_revoked(guarded: Local, tmp_path: Path) -> None:
    """A real node, which checks by itself: none, a good one, another agent's, and the good one once it is void.

    What runs under it then is stopped, and the audit log has that call beside the revoking.
    """
    ann, bob = (
        run(guarded, tmp_path, guarded.token, "keys", "create", name, "-r", "agent", "--principal", name)[1]
        for name in ("ann", "bob")
    )
    asked = ("--agent", "ann", "--justification", WHY, "--resource", "SAP_API", "--scope", "orders:read")
    status, token, said = run(guarded, tmp_path, ann, "guard", "request-permission", *asked)
    assert status == 0, said

    def code(key: str, *words: str) -> str | None:
        """Of the error of one call; None where it succeeded."""
        found = json.loads(run(guarded, tmp_path, key, "call", "sap.facts", *words, "--json")[1])
        return None if found["state"] == "succeeded" else found["error"]["code"]

    until(lambda: code(ann, "--grant", token) is None, UP_WITHIN_S, "the grant is taken")
    assert (code(ann), code(bob, "--grant", token)) == ("grant_required", "grant_invalid")
    words = ("call", "probe.sleep", "seconds=3600", "--timeout", "1h", "--grant", token, "--detach")
    status, call, said = run(guarded, tmp_path, ann, *words)
    assert status == 0, said

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(guarded, tmp_path, ann, "show", call, "--json")[1])
        return found

    until(lambda: shown()["state"] == "running", UP_WITHIN_S, "it runs")
    assert run(guarded, tmp_path, ann, "guard", "revoke", token)[0] == 0
    until(lambda: code(ann, "--grant", token) == "grant_invalid", UP_WITHIN_S, "the node has heard of it")
    until(lambda: shown()["state"] == "failed", UP_WITHIN_S, "what ran is stopped")
    assert shown()["error"]["code"] == "grant_revoked"

    def rows() -> list[dict[str, Any]]:
        found = json.loads(run(guarded, tmp_path, guarded.token, "audit", "list", "--action", "grant", "--json")[1])
        return [row for row in found if row["action"] == "grant.stopped_call"]

    until(lambda: len(rows()) == 1, UP_WITHIN_S, "the audit log has it")
    assert (rows()[0]["actor"], rows()[0]["target"]) == ("ann", "probe.sleep")
