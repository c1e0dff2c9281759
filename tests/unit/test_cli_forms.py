"""How times, sizes, ids, schemas and answers look to a person."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import shortid
from orchestrator.cli.content import is_error, parts_of, write_parts
from orchestrator.cli.durations import ago, parse_s, size, took
from orchestrator.cli.exits import BadInput, Exit, Refused, of_error, of_state
from orchestrator.cli.history import _facts
from orchestrator.cli.schema import example, fields_of
from tasks.errors import BrokerDown, InvalidArguments, NotAllowed, NotFound, OrchestratorDown, UnknownTool
from tasks.ids import new_id
from tasks.invocation import TERMINAL, State
from tasks.wire import InvocationView

PIXEL = base64.b64encode(b"\x89PNG....").decode()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (-1.0, "0 ms"),
        (0.034, "34 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (61, "1 m 01 s"),
        (3600, "1 h 00 m"),
        (90_000, "1 d 1 h"),
    ],
)
def test_duration_reads_well(seconds: float | None, said: str) -> None:
    """Two units at most, never a raw float."""
    assert took(seconds) == said


@pytest.mark.parametrize(("at", "said"), [(100.0, "now"), (95.0, "5s"), (-20.0, "2m"), (200.0, "now")])
def test_age_is_one_unit(at: float, said: str) -> None:
    """Tables have little room; a clock that is ahead is not shown as a negative age."""
    assert ago(at, 100.0) == said


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("1.5s", 1.5), ("500ms", 0.5), ("5m", 300), ("2h", 7200), ("1d", 86_400)]
)
def test_duration_is_typed_with_or_without_unit(text: str, seconds: float) -> None:
    """Seconds where no unit is given."""
    assert parse_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "-1", "1e3", "5w"])
def test_duration_that_is_none_is_refused(text: str) -> None:
    """The error says how to write one."""
    with pytest.raises(BadInput, match="is not a duration"):
        parse_s(text)


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3072.0 GiB")])
def test_size_reads_well(count: int, said: str) -> None:
    """Binary units, one decimal."""
    assert size(count) == said


def test_id_is_found_by_its_end() -> None:
    """What the tables show is enough to name an Invocation."""
    ids = [new_id(), new_id(), new_id()]
    assert shortid.find(shortid.short(ids[1]), ids) == ids[1]
    assert shortid.find(ids[2].upper(), ids) == ids[2]
    assert shortid.is_full(ids[0])
    assert not shortid.is_full(shortid.short(ids[0]))


def test_ambiguous_short_or_unknown_id_is_refused() -> None:
    """Never the wrong Invocation: two that end alike are an error that shows both."""
    ids = ["aaaa-1111", "bbbb-1111"]
    with pytest.raises(BadInput, match="2 invocations end with '1111'"):
        shortid.find("1111", ids)
    with pytest.raises(BadInput, match="too short"):
        shortid.find("111", ids)
    with pytest.raises(NotFound):
        shortid.find("2222", ids)


@given(st.lists(st.uuids().map(str), min_size=1, unique=True), st.data())
def test_short_id_never_finds_another(ids: list[str], data: st.DataObject) -> None:
    """Property: what is found ends with what was typed."""
    wanted = data.draw(st.sampled_from(ids))
    length = data.draw(st.integers(shortid.SHORTEST, len(wanted)))
    try:
        assert shortid.find(wanted[-length:], ids) == wanted
    except BadInput:
        assert sum(candidate.endswith(wanted[-length:]) for candidate in ids) > 1


def test_every_ending_has_its_status() -> None:
    """Scripts tell the endings apart."""
    assert {state: of_state(state) for state in TERMINAL} == {
        State.SUCCEEDED: 0,
        State.FAILED: 1,
        State.CANCELLED: 4,
        State.EXPIRED: 5,
        State.LOST: 6,
    }
    assert of_state(State.RUNNING) is Exit.STILL_RUNNING


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("x"), 2),
        (InvalidArguments("t", "$", "x"), 2),
        (UnknownTool("t", []), 3),
        (NotFound("node", "n"), 3),
        (OrchestratorDown("u", "x"), 69),
        (NotAllowed("x"), 77),
        (BrokerDown("u", "x"), 1),
        (Refused("x", status=422, code=""), 2),
        (Refused("x", status=404, code=""), 3),
        (Refused("x", status=503, code=""), 69),
        (Refused("x", status=409, code=""), 1),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    """The same fault gives the same number, whoever notices it."""
    assert of_error(error) == status  # type: ignore[arg-type]


def test_every_status_is_in_the_page() -> None:
    """Whoever writes a script looks there."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert [status for status in Exit if f"| {status.value} |" not in page] == []


def test_schema_is_shown_with_what_must_be_given_first() -> None:
    """Required arguments lead, references and bounds are resolved, and the example can be typed."""
    schema = {
        "properties": {
            "unit": {"enum": ["C", "F"], "default": "C"},
            "city": {"type": "string", "description": "Where\n  to look"},
            "days": {"$ref": "#/$defs/Days"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["city", "days"],
        "$defs": {"Days": {"type": "integer", "minimum": 1, "maximum": 7}},
    }
    rows = [(field.name, field.type, field.is_required, field.default) for field in fields_of(schema)]
    assert rows == [
        ("city", "string", True, ""),
        ("days", "integer 1…7", True, ""),
        ("unit", '"C" | "F"', False, '"C"'),
        ("tags", "[string]", False, ""),
        ("note", "string | null", False, ""),
    ]
    assert fields_of(schema)[0].description == "Where to look"
    assert example("weather.get", schema) == "mcpfleet call weather.get city=TEXT days=1"


def test_recursive_schema_ends() -> None:
    """A schema that refers to itself is shown, not followed for ever."""
    tree = {"properties": {"root": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"anyOf": [{"$ref": "#/$defs/T"}]}}}
    assert fields_of(tree)[0].type == "any"


def test_every_kind_of_content_is_shown() -> None:
    """Text as it is; what cannot be printed as one line with its type and size."""
    parts = parts_of(
        {
            "content": [
                {"type": "text", "text": "hello"},
                {"type": "image", "data": PIXEL, "mimeType": "image/png"},
                {"type": "audio", "data": "!!!", "mimeType": "audio/wav"},
                {"type": "resource", "resource": {"uri": "file:///a/b.md", "text": "# B"}},
                {"type": "resource", "resource": {"uri": "x://y", "blob": PIXEL}},
                {"type": "resource_link", "uri": "https://a", "name": "A"},
                {"type": "hologram"},
                7,
            ]
        }
    )
    assert [(part.text, part.note) for part in parts] == [
        ("hello", None),
        (None, "[image image/png, 8 B]"),
        (None, "[audio audio/wav, whose base64 is broken]"),
        ("# B", "[resource file:///a/b.md]"),
        (None, "[resource x://y application/octet-stream, 8 B]"),
        (None, "[link https://a A]"),
        (None, "[hologram, which this version cannot show; --json has it]"),
        (None, "[block 8 is not an object]"),
    ]


def test_structured_content_stands_in_for_missing_text() -> None:
    """A tool that answers with structure only is not silent; one that does both is not shown twice."""
    [part] = parts_of({"content": [], "structuredContent": {"a": 1}})
    assert part.text == '{\n  "a": 1\n}'
    assert len(parts_of({"content": [{"type": "text", "text": "1"}], "structuredContent": {"a": 1}})) == 1


def test_files_never_leave_the_directory_nor_overwrite(tmp_path: Path) -> None:
    """A resource named by a hostile server is written beside the others, under a harmless name."""
    evil = {"type": "resource", "resource": {"uri": "file:///../../etc/..", "text": "x"}}
    parts = parts_of({"content": [evil, {"type": "image", "data": PIXEL, "mimeType": "image/png"}]})
    folder = tmp_path / "out"
    first = [path for path, _ in write_parts(parts, folder)]
    second = [path for path, _ in write_parts(parts, folder)]
    assert all(path.parent == folder for path in first + second)
    assert len({*first, *second}) == 4
    assert first[1].read_bytes() == b"\x89PNG...."


def test_error_flag_is_the_tools_own() -> None:
    """Absent means no error."""
    assert is_error({"isError": True})
    assert not is_error({"content": []})
    assert not is_error(None)


@pytest.mark.parametrize(
    ("depth", "root", "shown"),
    [(1, "inv-parent", "v-parent (depth 1)"), (3, "inv-0000-root", "v-parent (depth 3, all began with 000-root)")],
)
def test_show_names_the_parent(depth: int, root: str, shown: str) -> None:
    """And what all of it began with, where that is another."""
    of = {"tool": "a.b", "project": None, "state": "waiting", "lane": "tools", "priority": 5, "tenant": "default"}
    times = dict.fromkeys(("ended_at", "expires_at", "not_before", "node", "trace_id"), None)
    view = InvocationView.model_validate(
        {"id": "inv-1", "principal": "ann", "accepted_at": 0.0, "fence": 0, "tries": 0, **of, **times}
        | {"parent": "inv-parent", "root": root, "depth": depth}
    )
    assert dict(_facts(view))["parent"] == shown
