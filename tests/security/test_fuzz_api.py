"""Junk for every operation of a real core, as each role: refused, or done; never an error of ours, never a hang.

Made from the table of operations and the schemas of their bodies, so that some of it is nearly right.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tasks.testing.clock import FakeClock
from tests.security.two_tenants_rig import OURS, ROLES, Field, opened

WITHIN_S = 60.0
NO_SHRINKING = (Phase.explicit, Phase.generate)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
LIKELY: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, -1, 0.5, 1e308, 2**70, "", "a1", "shop", "files.read", "*", "main", None, True, [], {}]
)
PATHS = st.sampled_from(["a1", "shop", "stripe", "..", "%00", "x" * 300, "0" * 64, "files.read"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=12
)
AWAY = frozenset({"list_queues", "cancel"})
"""They ask Redis, which is away here: 503 is the answer."""


def bodies(model: Any) -> st.SearchStrategy[Any]:
    """Objects with some of its fields, and anything."""
    names = list(model.model_fields) if model is not None else ["x"]
    return st.dictionaries(st.sampled_from(names), LIKELY | JSON, max_size=len(names)) | JSON


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Field]]:
    """One core for all examples: making it takes longer than asking it."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        it = runner.run(stack.enter_async_context(opened(tmp_path_factory.mktemp("fuzz"), FakeClock())))
        yield runner, it
        runner.run(stack.aclose())


async def asked(it: Field, role: str, one: Any, piece: str, content: bytes) -> str | None:
    """What went wrong, if anything."""
    path = "/".join(quote(piece, safe="%.") if "{" in part else part for part in one.path.split("/"))
    async with asyncio.timeout(WITHIN_S):
        answer = await it.ask(
            (OURS, role), one.method, path, content=content, more={"content-type": "application/json"}
        )
    is_away = answer.status_code == 503 and one.name in AWAY
    return f"{path} {content!r}: {answer.text}" if answer.status_code >= 500 and not is_away else None


@pytest.mark.parametrize("role", ROLES)
@settings(
    max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING
)
@given(data=st.data())
def test_no_request_is_an_error_of_ours(ground: tuple[asyncio.Runner, Field], role: str, data: st.DataObject) -> None:
    """Every operation in every example, with a body that has some of its fields, or bytes."""
    runner, it = ground
    wrong = []
    for one in it.operations:
        body = data.draw(st.binary(max_size=40) | bodies(one.body).map(lambda value: json.dumps(value).encode()))
        wrong.append(runner.run(asked(it, role, one, data.draw(PATHS), body)))
    assert not [said for said in wrong if said]
