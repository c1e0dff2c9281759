"""`mcpfleet approvals, approve, deny`: what they show, what they send, and their exit status."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from orchestrator.cli.main import run
from tasks.approval import canonical, digest

FIRST, SECOND = "01a1ffb7-14c0-740d-8180-ae94446000a1", "01a1ffb7-14c0-740d-8180-ae94446000b2"
ARGUMENTS = {"command": "echo a\x1b[2Kb\necho c", "note": "x\u202ey"}


def _view(approval: str, **other: Any) -> dict[str, Any]:
    return {
        "id": approval,
        "state": "waiting",
        "invocation": "01a1ffb7-0034-77b3-8e91-8f41f1d978e0",
        "fence": 1,
        "node": "a1",
        "fleet_tool": "claude_code.run",
        "project": "shop",
        "tool": "Bash",
        "arguments": ARGUMENTS,
        "arguments_sha256": digest(canonical(ARGUMENTS)),
        "asked_at": 1.0,
        "expires_at": 4_000_000_000.0,
    } | other


@dataclass
class Api:
    """Plays the fleet's API, and keeps what was asked of it."""

    views: dict[str, dict[str, Any]] = field(default_factory=lambda: {one: _view(one) for one in (FIRST, SECOND)})
    answers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """One answer."""
        name = request.url.path.removeprefix("/v1/approvals").strip("/")
        if not name:
            self.queries.append(dict(request.url.params))
            return httpx.Response(200, json={"items": list(self.views.values()), "next": None})
        if request.method == "POST":
            self.answers.append((name, json.loads(request.content)))
            if self.refusal is not None:
                status, code = self.refusal
                return httpx.Response(status, json={"detail": "no", "code": code, "status": status})
        return httpx.Response(200, json=self.views[name])

    def run(self, *words: str) -> tuple[int, str, str]:
        """One command; status, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        environ = {"MCPFLEET_URL": "http://127.0.0.1:1", "MCPFLEET_TOKEN": "not-a-secret"}
        stdin = io.BytesIO(b"y\n")
        status = run(words, environ=environ, out=out, err=err, stdin=stdin, transport=httpx.MockTransport(self))
        return status, out.getvalue(), err.getvalue()


def test_what_waits_is_listed_and_can_act_on_no_terminal() -> None:
    """One line each, whatever the agent wrote; with --all also what was answered."""
    api = Api()
    status, out, _ = api.run("approvals")
    assert (status, "464460" in out, "Bash echo a\\u001b[2Kb\\necho c" in out) == (0, False, True)
    assert "\x1b" not in out
    api.run("approvals", "--all")
    assert [query.get("state") for query in api.queries] == ["waiting", None]
    assert [each["id"] for each in json.loads(api.run("approvals", "--json")[1])] == [FIRST, SECOND]


def test_the_exact_arguments_are_shown_escaped() -> None:
    """By a short id; lines stay lines, and what would deceive is spelled out."""
    status, out, _ = Api().run("approvals", "show", "000b2")
    assert (status, SECOND in out) == (0, True)
    assert "    | echo a\\u001b[2Kb\n    | echo c\n" in out
    assert "note: x\\u202ey" in out


def test_nothing_is_allowed_where_nobody_could_look() -> None:
    """Without a terminal `approve` needs --yes."""
    api = Api()
    status, _, err = api.run("approve", FIRST)
    assert (status, api.answers) == (2, [])
    assert "--yes" in err


def test_a_yes_is_to_what_was_shown_here() -> None:
    """Its digest is made of the arguments that came, not taken from beside them."""
    api = Api()
    api.views[FIRST]["arguments_sha256"] = "0" * 64
    assert api.run("approve", "000a1", "--yes")[0] == 0
    said = {"answer": "allow", "arguments_sha256": digest(canonical(ARGUMENTS)), "reason": ""}
    assert api.answers == [(FIRST, said)]


def test_a_no_carries_its_reason() -> None:
    """The agent is told."""
    api = Api()
    assert api.run("deny", FIRST, "--reason", "not on a Friday")[0] == 0
    ((approval, said),) = api.answers
    assert (approval, said["answer"], said["reason"]) == (FIRST, "deny", "not on a Friday")


@pytest.mark.parametrize(("refusal", "status"), [((409, "already_answered"), 1), ((410, "approval_over"), 3)])
def test_a_refused_answer_has_its_status(refusal: tuple[int, str], status: int) -> None:
    """Somebody else was quicker, or nobody waits any more."""
    assert Api(refusal=refusal).run("deny", FIRST)[0] == status
    assert Api().run("approve", "ffffff", "--yes")[0] == 3
