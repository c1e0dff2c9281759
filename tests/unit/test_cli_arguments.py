"""`key=value` words become what the tool's schema asks for, or an error that names the word."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.arguments import needs_schema, parse_object, parse_words
from orchestrator.cli.exits import BadInput

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "share": {"type": "number"},
        "loud": {"type": "boolean"},
        "names": {"type": "array", "items": {"type": "string"}},
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "points": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
        "extra": {"type": "object"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "level": {"$ref": "#/$defs/Level"},
        "many": {"type": ["integer", "string"]},
        "anything": {},
    },
    "$defs": {"Level": {"enum": [1, 2]}, "Point": {"type": "object"}},
    "additionalProperties": False,
}


def _no_file(name: str) -> str:
    raise BadInput(f"no file {name}")


def _parse(*words: str) -> dict[str, object]:
    return parse_words(words, SCHEMA, _no_file)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("text=hello", "hello"),
        ("text=", ""),
        ("text=42", "42"),
        ("text=a=b", "a=b"),
        ("text=\\@home", "@home"),
        ("text=@", "@"),
        ("count=-3", -3),
        ("share=0.5", 0.5),
        ("share=2", 2),
        ("loud=yes", True),
        ("loud=False", False),
        ("names=a,b", ["a", "b"]),
        ("names=", []),
        ('names=["a,b"]', ["a,b"]),
        ("sizes=1,2", [1, 2]),
        ('points=[{"x":1}]', [{"x": 1}]),
        ('extra={"a":[1]}', {"a": [1]}),
        ("maybe=null", None),
        ("maybe=", ""),
        ("limit=null", None),
        ("limit=7", 7),
        ("level=2", 2),
        ("many=7", 7),
        ("many=seven", "seven"),
        ("anything=7", "7"),
        ("text:=[1, null]", [1, None]),
    ],
)
def test_word_takes_its_type_from_the_schema(word: str, value: object) -> None:
    """A person types what the schema says, without quotes or JSON."""
    [found] = _parse(word).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("count=many", "count='many' is not an integer"),
        ("count=1.5", "is not an integer"),
        ("share=nan", "is not a number"),
        ("share=inf", "is not a number"),
        ("loud=maybe", "is not a boolean"),
        ("sizes=1,x", "is not an array"),
        ("extra=[1]", "is not an object"),
        ("limit=x", "is not a null or an integer"),
        ("text:=[1", "is not JSON"),
        ('text:={"a":1,"a":2}', "twice"),
        ("text", "is not key=value"),
        ("=x", "is not key=value"),
        ("txet=hello", "did you mean 'text'"),
        ("text=@missing", "no file missing"),
    ],
)
def test_word_that_cannot_be_is_refused_by_name(word: str, said: str) -> None:
    """The error names the word and what would have been right, before anything is sent."""
    with pytest.raises(BadInput) as caught:
        _parse(word)
    assert said in caught.value.message


def test_text_of_a_file_is_read() -> None:
    """`key=@file` is the file's text."""
    assert parse_words(["text=@note"], SCHEMA, lambda name: f"<{name}>") == {"text": "<note>"}


def test_array_named_twice_collects() -> None:
    """Repeating a word is how shells give lists; for everything else the last one wins."""
    assert _parse("names=a", "names=b,c", "count=1", "count=2") == {"names": ["a", "b", "c"], "count": 2}


def test_unknown_word_is_text_where_the_tool_takes_anything() -> None:
    """Without a property list nothing can be checked here; the orchestrator checks."""
    assert parse_words(["any=1"], {}, _no_file) == {"any": "1"}


def test_schema_is_fetched_only_when_needed() -> None:
    """A call made of raw JSON costs no look-up."""
    assert not needs_schema(["a:=1", "b:=[]"])
    assert needs_schema(["a:=1", "b=2"])


@given(st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text()))
def test_object_as_json_comes_through_unchanged(value: dict[str, object]) -> None:
    """`--args-json` carries whatever JSON can."""
    assert parse_object(json.dumps(value), "here") == value


@given(st.text(alphabet=st.characters(blacklist_characters="=:@\\\n"), min_size=1), st.integers() | st.lists(st.text()))
def test_raw_json_word_comes_through_unchanged(key: str, value: object) -> None:
    """`key:=json` is exact, whatever the schema says."""
    assert parse_words([f"{key}:={json.dumps(value)}"], {}, _no_file) == {key: value}


@pytest.mark.parametrize("text", ["[1]", "3", "null", "{", '{"a":1,"a":2}', "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    """Wrong, duplicate-key and absurdly deep JSON end in one line, not in a traceback."""
    with pytest.raises(BadInput):
        parse_object(text, "--args-json")
