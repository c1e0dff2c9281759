"""Whatever is sent to the OAuth doors is answered: refused with a reason, never an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from orchestrator.identity.oauth.errors import BadToken
from orchestrator.identity.oauth.jose import TOKEN_MAX_CHARS, parse
from orchestrator.testing.oauth import api_of, http_of
from tests.security.oauth_field import Field, b64, field_of, own_token

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = ("iss", "aud", "exp", "iat", "nbf", "sub", "tenant", "roles", "groups", "scope", "cnf", "jti")


@functools.cache
def ground() -> tuple[Field, str, Starlette]:
    """One for all examples: making the API takes longer than asking it."""
    field = asyncio.run(field_of())
    return field, asyncio.run(own_token(field)), api_of(field.oauth)


@settings(max_examples=200)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """No form of junk gets past `parse` but as BadToken."""
    for token in (text, f"{text}.{text}.{text}", f"{b64(text.encode())}.{b64(text.encode())}.AA"):
        try:
            assert len(parse(token, needs_kid=False).text) <= TOKEN_MAX_CHARS
        except BadToken:
            continue


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(CLAIMS), JSON, max_size=4))
def test_any_claims_that_an_issuer_signs_are_judged(changes: dict[str, Any]) -> None:
    """An issuer that is trusted may still write nonsense: it is refused, or means somebody."""
    field, _, _ = ground()

    async def judge() -> None:
        with contextlib.suppress(BadToken):
            await field.shown(field.issuer.token(field.claims() | changes))

    asyncio.run(judge())


@settings(max_examples=60)
@given(st.data())
def test_one_changed_character_is_refused(data: st.DataObject) -> None:
    """No character of a token is without meaning."""
    field, token, _ = ground()

    async def judge() -> None:
        place = data.draw(st.integers(0, len(token) - 2))  # the last carries bits that nobody reads
        other = data.draw(st.sampled_from("AZaz09-_.").filter(lambda one: one != token[place]))
        changed = token[:place] + other + token[place + 1 :]
        try:
            shown = await field.shown(changed)
        except BadToken:
            return
        assert shown is None, changed

    asyncio.run(judge())


@settings(max_examples=80)
@given(st.binary(max_size=300) | st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=5))
def test_any_body_at_the_token_endpoint_is_answered(body: bytes | dict[str, str]) -> None:
    """4xx in OAuth's own form."""
    app = ground()[2]

    async def ask() -> None:
        async with http_of(app) as http:
            for path in ("/oauth/token", "/oauth/revoke"):
                head = {"content-type": "application/x-www-form-urlencoded"}
                sent: Any = {"content": body, "headers": head} if isinstance(body, bytes) else {"data": body}
                answer = await http.post(path, **sent)
                assert 400 <= answer.status_code < 500, answer.text
                assert set(json.loads(answer.content)) == {"error", "error_description"}

    asyncio.run(ask())


async def test_what_is_too_long_or_too_much_is_refused() -> None:
    """Before it is read whole, or into a thousand parameters."""
    field = await field_of()
    async with http_of(api_of(field.oauth)) as http:
        long = await http.post("/oauth/token", data={"a": "b" * 70_000})
        many = await http.post("/oauth/token", data={f"p{number}": "x" for number in range(60)})
        twice = await http.post(
            "/oauth/token",
            content="grant_type=a&grant_type=b",
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        other = await http.post("/oauth/token", json={"grant_type": "client_credentials"})
    assert [one.status_code for one in (long, many, twice, other)] == [413, 400, 400, 400]
    assert {one.json()["error"] for one in (long, many, twice, other)} == {"invalid_request"}
