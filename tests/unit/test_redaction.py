"""No secret of a known form is in a line, wherever it stood; what is no secret stays readable."""

from __future__ import annotations

import base64
import json
import logging
import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.identity.key_text import new_id, new_key
from tasks.redaction import ITEMS_MAX, REDACTED, TEXT_MAX, redact, redact_field, redact_text
from tests.unit.log_lines import Lines

TOKEN_CHARS = string.ascii_uppercase + string.digits + "-_"
SECRETS = st.text(TOKEN_CHARS, min_size=20, max_size=60).map(lambda text: f"Zq{text}")
"""Of other letters than all that stands around it."""
PROSE = st.text(string.ascii_lowercase + " .,\n", max_size=40)
SECRET_NAMES = st.sampled_from(
    [
        *("password", "DB_PASSWORD", "token", "access_token", "accessToken", "Authorization", "api_key", "x-api-key"),
        *("apiKey", "client_secret", "Set-Cookie", "private_key", "pool_secret", "credentials"),
    ]
)


def _jwt(secret: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"EdDSA"}').decode().rstrip("=")
    return f"{head}.{base64.urlsafe_b64encode(secret.encode()).decode().rstrip('=')}.{secret}"


FORMS: dict[str, Any] = {
    "bearer": lambda secret: f"Authorization: Bearer {secret}",
    "bearer alone": lambda secret: f"refused Bearer {secret}",
    "header": lambda secret: f"GET / HTTP/1.1\r\nx-api-key: {secret}\r\nAccept: */*",
    "basic": lambda secret: f"basic {base64.b64encode(secret.encode()).decode()}",
    "url": lambda secret: f"cannot reach redis://mcpfleet:{secret}@10.0.0.1:6379/0",
    "url raw": lambda secret: f"postgresql+psycopg://u:{secret[:5]}@{secret[5:]}@db/ledger",
    "url user": lambda secret: f"git clone https://{secret}@example.com/x.git",
    "query": lambda secret: f"https://example.com/x?a=1&access_token={secret}&b=2",
    "jwt": _jwt,
    "api key": lambda secret: f"mcf_live_{new_id()}_{secret}_abcdef",
    "join token": lambda secret: f"mcf_join_{secret}",
    "anthropic": lambda secret: f"sk-ant-api03-{secret}",
    "github": lambda secret: f"ghp_{secret.replace('-', 'x').replace('_', 'y')}",
    "environment": lambda secret: f"MCPFLEET_TOKEN={secret}",
    "json": lambda secret: json.dumps({"password": secret}),
    "json in json": lambda secret: json.dumps({"said": json.dumps({"api_key": secret})}),
    "repr": lambda secret: repr({"client_secret": secret}),
    "pem": lambda secret: f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----",
    "pem cut off": lambda secret: f"-----BEGIN OPENSSH PRIVATE KEY-----\n{secret}",
}


def shows(text: str, secret: str) -> bool:
    """Whether a part of it that is good for anything is there."""
    told = (secret, secret[8:], quote(secret), base64.b64encode(secret.encode()).decode())
    return any(each in text for each in told)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)
@given(secret=SECRETS, before=PROSE, after=PROSE)
def test_a_secret_of_a_known_form_goes_from_any_text(form: str, secret: str, before: str, after: str) -> None:
    """Whatever stands around it; and what stands before it stays."""
    text = redact_text(f"{before} {FORMS[form](secret)} {after}")
    assert not shows(text, secret)
    assert text.startswith(before)


@settings(max_examples=50)
@given(name=SECRET_NAMES, secret=SECRETS, depth=st.integers(0, 12))
def test_a_field_with_a_secret_name_has_no_value(name: str, secret: str, depth: int) -> None:
    """However deep it is; numbers are counts and stay."""
    value: Any = {name: secret, f"{name}s": 3}
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    assert not shows(json.dumps(redact(value)), secret)
    assert redact_field(name, 3) == 3


@pytest.mark.parametrize(
    "text",
    [
        "node builders-1 stopped renewing its lease",
        "the enrolment token of node 'a' was used already",
        "secret: it is not known here",
        "http://127.0.0.1:8700/v1/invocations?wait=10",
        "redis://10.0.0.1:6379/0",
        "0af7651916cd43dd8448eb211c80319c",
        "tokens of the provider: see docs/agents.md",
    ],
)
def test_prose_stays(text: str) -> None:
    """A line that says nothing to anybody is of no use either."""
    assert redact_text(text) == text


def test_a_key_keeps_its_id() -> None:
    """The id names a key in `mcpfleet keys`; the rest is gone."""
    name = new_id()
    assert redact_text(new_key(name)) == f"mcf_live_{name}_{REDACTED}"


@settings(max_examples=50)
@given(text=st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    """Callers choose parts of what is logged: nothing raises, and redacting twice changes no more."""
    once = redact_text(text)
    assert redact_text(once) == once or REDACTED in once


@settings(max_examples=30)
@given(secret=SECRETS, form=st.sampled_from(sorted(FORMS)))
def test_no_line_shows_it(secret: str, form: str) -> None:
    """In an event of ours, a library's message, its arguments, and a traceback."""
    with Lines() as seen:
        told = FORMS[form](secret)
        seen.log.warning("said", error=told, password=secret, deep={"token": secret, "list": [told]})
        logging.getLogger("some.library").warning("cannot: %s", told)
        try:
            raise ValueError(told)  # noqa: TRY301 - its traceback is what is tested
        except ValueError:
            seen.log.exception("failed")
            logging.getLogger("some.library").exception("failed")
    assert len(seen.read()) == 4
    assert not shows(seen.text(), secret)
    assert "ValueError" in seen.read()[2]["exception"]


@pytest.mark.parametrize("place", [0, TEXT_MAX - 30, TEXT_MAX - 1, TEXT_MAX, TEXT_MAX + 10, 50_000])
@pytest.mark.parametrize("form", ["url", "bearer", "pem", "github", "json"])
def test_a_huge_text_is_cut_and_the_cut_tells_no_half_of_a_secret(form: str, place: int) -> None:
    """What a tool or an exception says may be megabytes, and the event loop waits for the line."""
    secret = "Zq" + "ABCDEFGH0123456789" * 3
    text = redact_text("." * place + " " + FORMS[form](secret) + " " + "." * 100_000)
    assert not any(secret[at : at + 8] in text for at in range(len(secret) - 8))
    assert len(text) < TEXT_MAX + 100
    assert text.endswith("characters)")


def test_many_secrets_do_not_move_the_cut_into_one() -> None:
    """Each replacement is shorter than what it replaces: what stood behind the limit comes nearer."""
    secrets = [f"Zq{number:030}" for number in range(2500)]
    text = redact_text(" ".join(f"postgresql://u:{secret}@db" for secret in secrets))
    assert "Zq0" not in text


def test_a_huge_container_is_cut() -> None:
    """By number; what is left out is said."""
    found = redact({"many": list(range(100_000)), "names": {f"n{number}": number for number in range(1000)}})
    assert isinstance(found, dict)
    assert found["many"][-2:] == [ITEMS_MAX - 1, "… (100000 items)"]
    assert found["names"]["left_out"] == 1000 - ITEMS_MAX
