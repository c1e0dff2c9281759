"""Where the command line finds its fleet."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.settings import find_target, is_private, read_settings
from orchestrator.local.statefile import FLEET_FILE, FleetFile, read_fleet_file, write_private
from tasks.client.settings import state_file
from tasks.errors import NotAllowed, OrchestratorDown, SettingsError

LOCAL = FleetFile(url="http://127.0.0.1:1", token="t-local", join_token="j")


def _settings(tmp_path: Path, **environ: str):  # noqa: ANN202
    return read_settings({"MCPFLEET_STATE_DIR": str(tmp_path), **environ})


def test_local_fleet_is_found_by_its_file(tmp_path: Path) -> None:
    """After `mcpfleet up` nothing has to be set."""
    write_private(tmp_path / FLEET_FILE, LOCAL)
    target = find_target(_settings(tmp_path))
    assert (target.url, target.token) == (LOCAL.url, LOCAL.token)


def test_environment_beats_the_file(tmp_path: Path) -> None:
    """Whoever names a fleet means that one."""
    write_private(tmp_path / FLEET_FILE, LOCAL)
    target = find_target(_settings(tmp_path, MCPFLEET_URL="https://fleet.example/", MCPFLEET_TOKEN="t"))
    assert (target.url, target.token) == ("https://fleet.example", "t")


def test_local_token_is_never_sent_elsewhere(tmp_path: Path) -> None:
    """Naming another address without a token is an error, not a leak of the local one."""
    write_private(tmp_path / FLEET_FILE, LOCAL)
    with pytest.raises(NotAllowed, match="MCPFLEET_TOKEN"):
        find_target(_settings(tmp_path, MCPFLEET_URL="https://fleet.example"))
    assert find_target(_settings(tmp_path, MCPFLEET_URL=LOCAL.url)).token == LOCAL.token


def test_nothing_set_and_nothing_running_says_what_to_do(tmp_path: Path) -> None:
    """The first message a newcomer may see."""
    with pytest.raises(OrchestratorDown, match="mcpfleet up"):
        find_target(_settings(tmp_path))


def test_address_without_scheme_is_refused(tmp_path: Path) -> None:
    """A host name alone would be taken for a path."""
    with pytest.raises(SettingsError, match="http://"):
        _settings(tmp_path, MCPFLEET_URL="fleet.example")


def test_state_files_are_private_and_whole(tmp_path: Path) -> None:
    """They hold tokens: mode 0600 from the first byte, and never half a file."""
    path = tmp_path / FLEET_FILE
    write_private(path, LOCAL)
    write_private(path, LOCAL)
    assert is_private(path)
    assert read_fleet_file(tmp_path) == LOCAL
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_state_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    """Not silently 'no fleet'."""
    (tmp_path / FLEET_FILE).write_text("{")
    with pytest.raises(SettingsError, match=r"fleet\.json is damaged"):
        read_fleet_file(tmp_path)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"MCPFLEET_STATE_DIR": "/x"}, "/x"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/mcpfleet"),
        ({"HOME": "/h"}, "/h/.local/state/mcpfleet"),
    ],
)
def test_state_directory_follows_the_conventions(environ: dict[str, str], folder: str) -> None:
    """Ours first, then XDG's, then the default."""
    assert str(read_settings(environ).state_dir) == folder


def test_a_user_without_a_home_may_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passing one of systemd's (DynamicUser): no HOME, and no entry that names one. `mcpfleet flower` is run so."""

    def nobody(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    assert read_settings({}).state_dir == Path("/.local/state/mcpfleet")
    assert state_file({}).parent == Path("/.local/state/mcpfleet")
