"""Where a client finds its fleet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.client import settings
from tasks.client.settings import ClientSettings, find, state_file
from tasks.errors import NotAllowed, OrchestratorDown, SettingsError

LOCAL = {"url": "http://127.0.0.1:8600", "token": "local", "pid": 1}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Of a machine on which `mcpfleet up` runs."""
    (tmp_path / "fleet.json").write_text(json.dumps(LOCAL))
    return {"MCPFLEET_STATE_DIR": str(tmp_path)}


def test_the_local_fleet_is_found(environ: dict[str, str]) -> None:
    """Nothing needs to be set on the machine of `mcpfleet up`."""
    assert find(environ=environ) == ClientSettings("http://127.0.0.1:8600", "local")


def test_what_is_passed_wins_over_the_environment_over_the_file(environ: dict[str, str]) -> None:
    """The nearest word counts."""
    environ |= {"MCPFLEET_URL": "https://fleet.example/", "MCPFLEET_TOKEN": "env"}
    assert find(environ=environ) == ClientSettings("https://fleet.example", "env")
    assert find("http://other", "mine", environ=environ) == ClientSettings("http://other", "mine")


def test_the_local_token_is_not_sent_elsewhere(environ: dict[str, str]) -> None:
    """A token belongs to the address it was found with."""
    with pytest.raises(NotAllowed, match="MCPFLEET_TOKEN"):
        find("http://elsewhere:8600", environ=environ)
    assert find("http://127.0.0.1:8600/", environ=environ).token == "local"


def test_no_fleet_anywhere_says_what_to_do(tmp_path: Path) -> None:
    """The message names both ways out."""
    with pytest.raises(OrchestratorDown, match="mcpfleet up"):
        find(environ={"MCPFLEET_STATE_DIR": str(tmp_path)})


@pytest.mark.parametrize("content", ["not json", "[]"])
def test_a_broken_state_file_is_named(tmp_path: Path, content: str) -> None:
    """Not an absent fleet: a file that somebody should look at."""
    (tmp_path / "fleet.json").write_text(content)
    with pytest.raises(SettingsError, match=r"fleet\.json"):
        find(environ={"MCPFLEET_STATE_DIR": str(tmp_path)})


def test_an_address_without_a_scheme_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(SettingsError, match="http"):
        find("fleet.example:8600", "t", environ={})


def test_the_state_file_is_where_the_command_line_looks() -> None:
    """XDG, unless named."""
    assert state_file({"HOME": "/home/node"}) == Path("/home/node/.local/state/mcpfleet/fleet.json")
    assert state_file({"XDG_STATE_HOME": "/x"}) == Path("/x/mcpfleet/fleet.json")


def test_a_token_is_not_shown() -> None:
    """Settings may be logged."""
    assert "secret" not in repr(ClientSettings("http://a", "secret"))


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Its owner alone: a key in a shared file is everybody's."""
    path = tmp_path / "key"
    path.write_text("t\n")
    path.chmod(mode)
    tmp_path.chmod(0o711)
    with pytest.raises(SettingsError, match="chmod 600"):
        find("http://h", environ={"MCPFLEET_TOKEN_FILE": str(path)})
    path.chmod(0o600)
    assert find("http://h", environ={"MCPFLEET_TOKEN_FILE": str(path)}).token == "t"


def test_a_folder_that_is_shut_guards_what_is_in_it(tmp_path: Path) -> None:
    """As deploy/compose-secrets leaves it: the containers' users are not the operator, so 0600 would be no use."""
    path, elsewhere = tmp_path / "key", tmp_path / "open" / "link"
    path.write_text("t\n")
    path.chmod(0o444)
    tmp_path.chmod(0o700)
    elsewhere.parent.mkdir()
    elsewhere.symlink_to(path)
    for name in (path, elsewhere):
        assert find("http://h", environ={"MCPFLEET_TOKEN_FILE": str(name)}).token == "t"


def test_what_is_mounted_for_one_container_may_be_readable_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker and Kubernetes set such modes themselves."""
    path = tmp_path / "key"
    path.write_text("t\n")
    path.chmod(0o444)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(settings, "MOUNTED", (f"{tmp_path}/",))
    assert find("http://h", environ={"MCPFLEET_TOKEN_FILE": str(path)}).token == "t"
