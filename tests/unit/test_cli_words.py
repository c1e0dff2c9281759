"""What the command line says to who has never seen it: faults in one line, words beside what they explain."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.api.problems import invalid
from orchestrator.cli.main import run
from orchestrator.cli.screen import Screen
from orchestrator.testing.doors import OPERATOR_TOKEN
from orchestrator.testing.http import served
from tasks.errors import InvalidArguments, NotFound
from tasks.identity_wire import KeyRequest


class Terminal(io.StringIO):
    """Standard output of a person."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class Wanted(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid")

    tool: str
    priority: int = Field(default=5, le=9)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A fake fleet."""
    with served() as address:
        yield address


def ran(url: str, *words: str) -> str:
    """All that one command said."""
    out, err = io.StringIO(), io.StringIO()
    environ = {"MCPFLEET_URL": url, "MCPFLEET_TOKEN": OPERATOR_TOKEN}
    assert run(words, environ=environ, out=out, err=err, stdin=io.BytesIO()) == 0, err.getvalue()
    return out.getvalue() + err.getvalue()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """No traceback for what whoever typed it can mend."""
    (tmp_path / "file").write_text("")
    out, err = io.StringIO(), io.StringIO()
    environ = {"HOME": str(tmp_path), "MCPFLEET_STATE_DIR": str(tmp_path / "file" / "state")}
    assert run(["up"], environ=environ, out=out, err=err, stdin=io.BytesIO()) == 1
    assert err.getvalue().count("\n") == 1
    assert str(tmp_path / "file") in err.getvalue()
    assert "Not a directory" in err.getvalue()


def test_a_long_reason_goes_on_below_itself() -> None:
    """On a terminal; in a pipe it stays one line."""
    reason = "home: node general-2 (0 of 8 slots used) is home to shop by rendezvous hashing, fair share 1"
    person, pipe = Terminal(), io.StringIO()
    Screen(person, io.StringIO(), environ={"COLUMNS": "60", "TERM": "dumb"}).hung("  · ", reason)
    Screen(pipe, io.StringIO(), environ={"COLUMNS": "60"}).hung("  · ", reason)
    first, second = person.getvalue().rstrip().splitlines()
    assert first.startswith("  · home:")
    assert second.startswith("    ")
    assert pipe.getvalue() == f"  · {reason}\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "tool: must be given"),
        ({"tool": "a.b", "prio": 1}, "prio: is not known here; leave it out"),
        ({"tool": "a.b", "priority": 11}, "priority: write 9 or less"),
        ({"tool": 5}, "tool: write text"),
    ],
)
def test_a_request_that_is_not_understood_says_what_to_write(body: dict[str, object], said: str) -> None:
    """Not the words of the library that found it."""
    with pytest.raises(ValidationError) as caught:
        Wanted.model_validate(body)
    assert invalid(caught.value).message == said


def test_a_role_that_is_none_names_the_roles() -> None:
    """`mcpfleet keys create x --role god`."""
    with pytest.raises(ValidationError) as caught:
        KeyRequest.model_validate({"name": "x", "roles": ["god"]})
    assert "roles.0: write admin, operator," in invalid(caught.value).message


def test_what_is_not_there_says_which_command_lists_what_is() -> None:
    """Where there is such a command."""
    assert NotFound("pool", "nope").message == "no pool 'nope'; `mcpfleet pools` lists them"
    assert NotFound("invocation ending with", "nope").message.endswith("; `mcpfleet ps --all` lists them")
    assert NotFound("blob", "nope").message == "no blob 'nope'"


def test_a_missing_argument_is_not_called_an_argument() -> None:
    """The root of the arguments has no name."""
    assert InvalidArguments("a.b", "/", '"x" is missing').message.startswith('a.b: "x" is missing; ')
    assert InvalidArguments("a.b", "/x", "5 is no text").message.startswith("a.b: argument /x: 5 is no text; ")


def test_a_paused_queue_that_is_not_there_is_said(url: str) -> None:
    """A slip of the finger must not look as if a queue stood still."""
    assert "no queue of that name is here now" in ran(url, "pause", "queue", "nope")
    assert "of that name" not in ran(url, "pause", "project", "nope")
