"""`mcpfleet secrets`: the value comes from standard input or a file, and is in nothing that is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.cli.main import run
from orchestrator.secrets.keyfile import read_keys

VALUE = "a value\nof two lines"


class Api:
    """Plays the fleet's API, and keeps what was asked of it."""

    def __init__(self, *rewraps: dict[str, Any]) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._rewraps = list(rewraps) or [{"key": "k2", "secrets": 3}]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """One answer."""
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.path, body))
        view = {"ref": "secret_ref:shop:stripe", "owner": "shop", "name": "stripe", "source": "database", "version": 1,
                "nodes": ["n1"], "pools": [], "created_at": 1.0, "changed_at": 1.0, "changed_by": "ann"}  # fmt: skip
        if request.url.path == "/v1/secrets":
            return httpx.Response(200, json={"items": [view], "next": None})
        if request.method == "DELETE":
            return httpx.Response(204)
        if request.url.path == "/v1/secret-rewraps":
            return httpx.Response(200, json=self._rewraps[0] if len(self._rewraps) == 1 else self._rewraps.pop(0))
        return httpx.Response(200, json=view)

    def run(self, *words: str, value: str = VALUE) -> tuple[int, str]:
        """One command; its status, and all that it said."""
        out, err = io.StringIO(), io.StringIO()
        environ = {"MCPFLEET_URL": "http://127.0.0.1:1", "MCPFLEET_TOKEN": "not-a-secret"}
        stdin = io.BytesIO(value.encode() + b"\n")
        status = run(
            ("secrets", *words), environ=environ, out=out, err=err, stdin=stdin, transport=httpx.MockTransport(self)
        )
        return status, out.getvalue() + err.getvalue()


def test_a_value_is_read_from_standard_input_and_not_printed() -> None:
    """One newline at its end is the shell's; the rule is the whole of what is said."""
    api = Api()
    status, said = api.run("set", "shop:stripe", "--node", "n1", "--node", "n2")
    assert status == 0
    assert api.asked == [
        ("PUT", "/v1/secrets/shop/stripe", {"value": VALUE, "nodes": ["n1", "n2"], "pools": []})
    ]  # fmt: skip
    assert "secret_ref:shop:stripe" in said
    assert "two lines" not in said


def test_a_value_is_read_from_a_file(tmp_path: Path) -> None:
    """As certificates and service accounts come."""
    (tmp_path / "value").write_text("from a file\n")
    api = Api()
    assert api.run("set", "shop:stripe", "--file", str(tmp_path / "value"), "--pool", "general")[0] == 0
    assert api.asked[0][2] == {"value": "from a file", "nodes": [], "pools": ["general"]}


def test_there_is_no_argument_for_a_value() -> None:
    """A shell would remember it, and `ps` show it."""
    api = Api()
    assert api.run("set", "shop:stripe", "the-value", "--node", "n1")[0] == 2
    assert api.run("set", "shop:stripe", "--value", "the-value", "--node", "n1")[0] == 2
    assert not api.asked


def test_a_rotation_asks_whether_it_is_there_and_keeps_the_rule() -> None:
    """A typing error must not make a second secret."""
    api = Api()
    assert api.run("rotate", "secret_ref:shop:stripe")[0] == 0
    assert [one[:2] for one in api.asked] == [("GET", "/v1/secrets/shop/stripe"), ("PUT", "/v1/secrets/shop/stripe")]
    assert api.asked[1][2] == {"value": VALUE}


def test_one_that_is_kept_elsewhere_takes_no_value() -> None:
    """Standard input is not even read."""
    api = Api()
    assert api.run("set", "shop:stripe", "--source", "file", "--node", "n1")[0] == 0
    assert api.asked[0][2] == {"source": "file", "nodes": ["n1"], "pools": []}
    assert api.run("set", "shop:stripe", "--source", "cloud", "--node", "n1")[0] == 2


def test_the_rest_of_the_commands() -> None:
    """List, show, delete, rotate-key."""
    api = Api()
    for words in (("list",), ("show", "shop:stripe"), ("delete", "shop:stripe"), ("rotate-key",)):
        assert api.run(*words)[0] == 0
        assert api.run(*words, "--json")[0] == 0
    assert [one[0] for one in api.asked[::2]] == ["GET", "GET", "DELETE", "POST"]


@pytest.mark.parametrize(
    ("last", "status", "words"),
    [
        ({"texts": 9}, 0, "may leave the key file"),
        ({"texts": 8, "unopened": 1}, 1, "1 texts do not open"),
        ({"texts": 4, "stopped": "another leads"}, 1, "another leads"),
    ],
)
def test_rotating_waits_for_the_rows(
    last: dict[str, Any], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when all of it is done may the older key go, and the status says so to a script."""
    monkeypatch.setattr("orchestrator.cli.secrets.LOOK_EVERY_S", 0.0)
    running = {"key": "k2", "secrets": 3, "blobs": 2, "is_running": True}
    api = Api(running, running | {"secrets": 0, "blobs": 0}, {"key": "k2", "secrets": 0} | last)
    found, said = api.run("rotate-key")
    assert found == status
    assert [one[0] for one in api.asked] == ["POST", "GET", "GET"]
    assert f"3 secrets, 2 blobs and {last['texts']} texts" in " ".join(said.split())
    assert words in " ".join(said.split())


@pytest.mark.parametrize("name", ["shop", "shop:", ":x"])
def test_a_name_that_is_none_is_said_so(name: str) -> None:
    """Before anything is asked."""
    api = Api()
    status, said = api.run("show", name)
    assert (status, api.asked) == (2, [])
    assert "OWNER:NAME" in said


def test_a_key_file_is_made_and_then_added_to(tmp_path: Path) -> None:
    """The same command rotates."""
    api = Api()
    assert api.run("new-key", str(tmp_path / "keys"), "--kid", "k1")[0] == 0
    status, said = api.run("new-key", str(tmp_path / "keys"), "--kid", "k2")
    assert (status, read_keys(tmp_path / "keys").kids) == (0, ("k2", "k1"))
    assert "rotate-key" in said
