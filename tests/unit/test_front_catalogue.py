"""tools/list: names, order, pages."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from orchestrator.front.catalogue import Catalogue
from orchestrator.testing.inprocess_fleet import InProcessFleet
from tasks.invocation import Call, Principal
from tasks.tool import ToolSpec

ALICE = Principal("alice")
PLAIN = [{"name": "fleet.get", "inputSchema": {"type": "object"}}]


async def _run(_call: Call, _progress: Any) -> str:
    return "{}"


def spec(name: str, **more: Any) -> ToolSpec:
    """`server.tool` as a node offers it."""
    server, _, tool = name.partition(".")
    return ToolSpec(server=server, definition={"name": tool, "inputSchema": {"type": "object", "title": name}, **more})


def catalogue(*names: str, page_size: int = 2, bare_names: bool = False) -> tuple[InProcessFleet, Catalogue]:
    """Over a fleet with these tools."""
    fleet = InProcessFleet([spec(name) for name in names], _run)
    return fleet, Catalogue(fleet, PLAIN, page_size=page_size, bare_names=bare_names)


def names(page: list[dict[str, Any]]) -> list[str]:
    """Of one page."""
    return [tool["name"] for tool in page]


def test_definitions_pass_as_their_server_gave_them() -> None:
    """Only the name changes: title, schemas, annotations, icons and `_meta` are the server's."""
    given = {"title": "T", "annotations": {"readOnlyHint": True}, "icons": [{"src": "x"}], "_meta": {"a": 1}}
    fleet = InProcessFleet([spec("git.log", **given)], _run)
    page, _ = Catalogue(fleet, PLAIN, page_size=10, bare_names=False).page(ALICE, None)
    assert page[0] == {"name": "git.log", "inputSchema": {"type": "object", "title": "git.log"}, **given}


def test_pages_hold_every_tool_once_in_one_order() -> None:
    """Whoever follows the cursors sees each tool once, the fleet's before the plain ones."""
    _, listed = catalogue("z.a", "b.b", "a.z")
    seen, cursor = [], None
    while True:
        page, cursor = listed.page(ALICE, cursor)
        seen += names(page)
        if cursor is None:
            break
    assert seen == ["a.z", "b.b", "z.a", "fleet.get"]


def test_a_cursor_survives_a_change_of_the_list() -> None:
    """A tool that goes between two pages hides no other."""
    fleet, listed = catalogue("a.a", "b.b", "c.c")
    _, cursor = listed.page(ALICE, None)
    fleet.set_tools([spec("a.a"), spec("c.c")])
    page, _ = listed.page(ALICE, cursor)
    assert names(page) == ["c.c", "fleet.get"]


@pytest.mark.parametrize("cursor", ["junk!", "ÿ", "gICA"])
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    """A cursor that we did not give is -32602, not a page from somewhere."""
    _, listed = catalogue("a.a")
    with pytest.raises(MCPError) as refused:
        listed.page(ALICE, cursor)
    assert refused.value.code == INVALID_PARAMS


def test_schemas_are_found_by_name() -> None:
    """The SDK checks parameter headers against the schema of the tool that is called."""
    _, listed = catalogue("a.a")
    found = listed.input_schema("a.a")
    assert found is not None
    assert found["title"] == "a.a"
    assert listed.input_schema("fleet.get") is not None
    assert listed.input_schema("a.nothing") is None


def test_bare_names_lead_back_to_the_fleets() -> None:
    """The conformance suite's names, without a server before them."""
    _, listed = catalogue("fixture.greet", bare_names=True, page_size=10)
    page, _ = listed.page(ALICE, None)
    assert names(page) == ["greet", "fleet.get"]
    assert listed.fleet_name("greet", ALICE) == "fixture.greet"
