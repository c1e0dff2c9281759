"""A setting by the file that holds it: how secrets reach a container without standing in its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr

from orchestrator.cli.fleet import NOT_OURS
from orchestrator.settings import OrchestratorSettings
from tasks.errors import SettingsError
from tasks.settings import FILE_LIMIT_BYTES, read
from worker.settings import PREFIX, NodeSettings


class Small(BaseModel):
    """One of each kind that matters here."""

    token: SecretStr = SecretStr("")
    port: int = 1
    names: tuple[str, ...] = ()
    key: str = Field("", pattern="^k")
    key_file: Path | None = None


def kept(folder: Path, text: str | bytes) -> str:
    """A file with this content, by its path."""
    path = folder / "value"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_value_is_what_the_file_holds(tmp_path: Path, end: str) -> None:
    """Without the line end that editors put there; other white space may be part of a secret."""
    settings = read(Small, "X_", {"X_TOKEN_FILE": kept(tmp_path, f" s3 {end}")})
    assert settings.token.get_secret_value() == " s3 "


def test_every_kind_of_field_can_come_by_file(tmp_path: Path) -> None:
    """Numbers and lists are read as they are from the environment."""
    assert read(Small, "X_", {"X_PORT_FILE": kept(tmp_path, "8\n")}).port == 8
    assert read(Small, "X_", {"X_NAMES_FILE": kept(tmp_path, "a, b\n")}).names == ("a", "b")


def test_a_field_that_ends_so_itself_keeps_its_meaning(tmp_path: Path) -> None:
    """`MCPFLEET_KEY_FILE` names the key file; nobody reads `MCPFLEET_KEY` from it."""
    settings = read(Small, "X_", {"X_KEY_FILE": kept(tmp_path, "kk")})
    assert (settings.key_file, settings.key) == (tmp_path / "value", "")


def test_both_processes_take_their_secrets_so(tmp_path: Path) -> None:
    """What deploy files rely on."""
    path = kept(tmp_path, "postgresql+psycopg://u:p@h/d\n")
    env = {
        f"MCPFLEET_{name}_FILE": path
        for name in ("DATABASE_URL", "REDIS_URL", "TOKEN", "JOIN_TOKEN", "POOL_SECRET", "REDIS_URL_FOR_NODES")
    }
    assert (
        read(OrchestratorSettings, "MCPFLEET_", env, excluding=NOT_OURS).database_url == "postgresql+psycopg://u:p@h/d"
    )
    node = read(NodeSettings, PREFIX, {f"{PREFIX}{name}_FILE": path for name in ("JOIN_TOKEN", "ENROL_TOKEN")})
    assert node.join_token.get_secret_value().startswith("postgresql")


def test_both_ways_at_once_are_refused(tmp_path: Path) -> None:
    """Which one counts would be a guess."""
    with pytest.raises(SettingsError, match="X_TOKEN and X_TOKEN_FILE are both set; keep one"):
        read(Small, "X_", {"X_TOKEN": "a", "X_TOKEN_FILE": kept(tmp_path, "b")})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        (b"\xff\xfe", "not text"),
        ("x" * (FILE_LIMIT_BYTES + 1), "larger than"),
    ],
)
def test_a_file_without_a_value_stops_the_start(tmp_path: Path, content: str | bytes, said: str) -> None:
    """An empty secret would be a door without a lock."""
    with pytest.raises(SettingsError, match=rf"X_TOKEN_FILE names .*{said}"):
        read(Small, "X_", {"X_TOKEN_FILE": kept(tmp_path, content)})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the variable, so that one knows which of ten."""
    with pytest.raises(SettingsError, match=r"X_TOKEN_FILE names /.*/none: No such file"):
        read(Small, "X_", {"X_TOKEN_FILE": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match=r"X_TOKEN_FILE names /.*: Is a directory"):
        read(Small, "X_", {"X_TOKEN_FILE": str(tmp_path)})


def test_what_came_by_file_is_not_shown(tmp_path: Path) -> None:
    """Whoever put it into a file meant it to stay there, whatever the field's type."""
    with pytest.raises(SettingsError, match="X_PORT_FILE names a file with a value that is not shown") as caught:
        read(Small, "X_", {"X_PORT_FILE": kept(tmp_path, "hunter2")})
    assert "hunter2" not in caught.value.message


def test_a_misspelt_one_stops_the_start(tmp_path: Path) -> None:
    """`_FILE` behind what is no setting is no setting."""
    with pytest.raises(SettingsError, match="X_TOKN_FILE is not a setting"):
        read(Small, "X_", {"X_TOKN_FILE": kept(tmp_path, "a")})
