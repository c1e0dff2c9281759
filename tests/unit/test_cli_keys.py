"""`mcpfleet keys`: what a timer sees, and what is said of credentials that cannot be."""

from __future__ import annotations

import io
import ssl
from pathlib import Path

import httpx
import pytest

from orchestrator.cli.main import run

KEY = {"id": "new", "name": "ci", "tenant": "default", "principal": "ci", "roles": ["agent"], "scopes": None,
       "groups": [], "networks": [], "signs": False, "created_at": 1.0, "created_by": "ann", "expires_at": None,
       "due_at": None, "succeeds": None, "used_at": None, "used_from": None}  # fmt: skip


def ran(*words: str, answer: httpx.Response | Exception, **more: str) -> tuple[int, str]:
    """One command against a fleet that answers so; its status, and all that it said."""

    def fleet(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    out, err = io.StringIO(), io.StringIO()
    environ = {"MCPFLEET_URL": "http://127.0.0.1:1", "MCPFLEET_TOKEN": "not-a-secret"} | more
    status = run(words, environ=environ, out=out, err=err, stdin=io.BytesIO(), transport=httpx.MockTransport(fleet))
    return status, " ".join((out.getvalue() + err.getvalue()).split())


def problem(status: int, code: str, detail: str) -> httpx.Response:
    """As the API refuses."""
    return httpx.Response(status, json={"detail": detail, "code": code})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A key, for its owner alone."""
    path = tmp_path / "key"
    path.write_text("old\n")
    path.chmod(0o600)
    return path


def test_a_daily_timer_before_the_day_is_no_failure(file: Path) -> None:
    """Twenty-six days of thirty it has nothing to do: systemd and cron must not call that failed."""
    early = problem(409, "key_not_due", "key a may be rotated by its holder in 26.0 days")
    status, said = ran("keys", "rotate", "--file", str(file), answer=early)
    assert (status, file.read_text()) == (0, "old\n")
    assert "26.0 days" in said


def test_a_key_that_cannot_be_rotated_is_a_failure(file: Path) -> None:
    """Whoever looks after the timer has to hear of it."""
    assert ran("keys", "rotate", "--file", str(file), answer=problem(409, "key_replaced", "it was"))[0] != 0
    assert file.read_text() == "old\n"


def test_a_rotated_key_is_in_its_file(file: Path) -> None:
    """And not on the screen."""
    status, said = ran(
        "keys", "rotate", "--file", str(file), answer=httpx.Response(200, json=KEY | {"key": "successor"})
    )
    assert (status, file.read_text()) == (0, "successor\n")
    assert "successor\n" not in said


def test_the_list_says_who_made_a_key() -> None:
    """After a theft: what else did that key make."""
    assert "ann" in ran("keys", "list", answer=httpx.Response(200, json={"items": [KEY], "next": None}))[1]


def test_a_refused_token_is_told_once_what_to_check() -> None:
    """The orchestrator may have said it already."""
    said = ran("whoami", answer=problem(401, "not_allowed", "this token is not known here; check MCPFLEET_TOKEN"))[1]
    assert said.count("check MCPFLEET_TOKEN") == 1


@pytest.mark.parametrize("token", ["\u00fcnlike", "two\nlines"])
def test_what_no_header_can_carry_is_refused_in_words(token: str) -> None:
    """No stack trace, and the token is not repeated."""
    status, said = ran("whoami", answer=httpx.Response(500), MCPFLEET_TOKEN=token)
    assert status == 2
    assert "MCPFLEET_TOKEN" in said
    assert token.split(maxsplit=1)[0] not in said


def test_an_unknown_authority_is_told_apart_from_nobody() -> None:
    """The way out is another: a file with the fleet's root, not another fleet."""
    error = httpx.ConnectError("no")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    status, said = ran("whoami", answer=error)
    assert status == 69
    assert "SSL_CERT_FILE" in said
    assert "mcpfleet up" not in said


def test_the_fleets_own_token_is_called_so() -> None:
    """`static` is the audit log's word."""
    me = {"id": "ann", "tenant": "a", "roles": ["admin"], "scopes": ["blobs"], "groups": [], "credential": "static"}
    assert "by the fleet's own token" in ran("whoami", answer=httpx.Response(200, json=me))[1]
