"""Settings from the environment: misspelt ones stop the start, wrong ones say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from tasks.errors import SettingsError
from tasks.invocation import Lane
from tasks.settings import read
from worker.enrol import Credentials, Given
from worker.settings import PREFIX, NodeSettings

TOKEN = {"MCPFLEET_NODE_JOIN_TOKEN": "secret-token"}


def test_every_kind_of_field_is_read() -> None:
    """Text, numbers, paths, lists and mappings have one way each to be written."""
    settings = read(
        NodeSettings,
        PREFIX,
        TOKEN
        | {
            "MCPFLEET_NODE_NAME": "a1",
            "MCPFLEET_NODE_SLOTS_TOOLS": "3",
            "MCPFLEET_NODE_CAPABILITIES": "gpu, glm",
            "MCPFLEET_NODE_LABELS": "room=blue,rack=7",
            "MCPFLEET_NODE_STATE_DIR": "/var/lib/node",
            "PATH": "/bin",
        },
    )
    assert settings.slots == {Lane.TOOLS: 3, Lane.AGENTS: 2}
    assert settings.capabilities == {"gpu", "glm"}
    assert settings.labels == {"room": "blue", "rack": "7"}
    assert settings.state_dir == Path("/var/lib/node")


def test_json_is_read_where_it_looks_like_json() -> None:
    """A value with a comma in it can still be written."""
    settings = read(NodeSettings, PREFIX, TOKEN | {"MCPFLEET_NODE_LABELS": '{"note": "a,b"}'})
    assert settings.labels == {"note": "a,b"}


def test_unknown_variable_stops_the_start_and_names_the_nearest() -> None:
    """A misspelt setting that is silently ignored costs more than a start that says so."""
    with pytest.raises(SettingsError, match=r"SLOT_TOOLS is not a setting, .*'MCPFLEET_NODE_SLOTS_TOOLS'"):
        read(NodeSettings, PREFIX, TOKEN | {"MCPFLEET_NODE_SLOT_TOOLS": "3"})


def test_a_longer_prefix_may_belong_to_somebody_else() -> None:
    """The orchestrator leaves the worker's variables alone."""

    class Small(BaseModel):
        model_config = ConfigDict(frozen=True)
        port: int = 1

    env = {"MCPFLEET_PORT": "2", "MCPFLEET_NODE_ANYTHING": "x"}
    assert read(Small, "MCPFLEET_", env, excluding=(PREFIX,)).port == 2
    with pytest.raises(SettingsError, match="MCPFLEET_NODE_ANYTHING"):
        read(Small, "MCPFLEET_", env)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MCPFLEET_NODE_SLOTS_TOOLS", "many", "'many'"),
        ("MCPFLEET_NODE_POOL", "Bad_Pool", "'Bad_Pool'"),
        ("MCPFLEET_NODE_ORCHESTRATOR_URL", "localhost", "'localhost'"),
        ("MCPFLEET_NODE_VISIBILITY", "secret", "'secret'"),
    ],
)
def test_wrong_value_names_variable_and_value(variable: str, value: str, said: str) -> None:
    """The message says what was wrong, with what value."""
    with pytest.raises(SettingsError, match=variable) as caught:
        read(NodeSettings, PREFIX, TOKEN | {variable: value})
    assert said in caught.value.message


def test_a_node_with_nothing_to_join_with_says_what_to_set(tmp_path: Path) -> None:
    """Neither a token nor a credential: both ways of getting one are named, before anything is started."""
    with pytest.raises(SettingsError, match=r"MCPFLEET_NODE_ENROL_TOKEN .*mcpfleet node enrol a1 .*JOIN_TOKEN"):
        Credentials(tmp_path, "a1", Given("", ""), lambda: 0.5)


def test_missing_required_setting_is_named() -> None:
    """What has no default is asked for by its variable."""

    class Strict(BaseModel):
        token: SecretStr

    with pytest.raises(SettingsError, match="X_TOKEN is not set and has no default"):
        read(Strict, "X_", {})


def test_secrets_are_not_shown() -> None:
    """A refused secret must not end in a log."""

    class Strict(BaseModel):
        token: SecretStr

    with pytest.raises(SettingsError) as caught:
        read(Strict, "X_", {}, given={"token": 12345})
    assert "12345" not in caught.value.message
    assert "secret-token" not in repr(read(NodeSettings, PREFIX, TOKEN))


def test_command_line_beats_the_environment() -> None:
    """What is given wins; what is not given leaves the environment's value."""
    env = TOKEN | {"MCPFLEET_NODE_POOL": "from-env", "MCPFLEET_NODE_LOCATION": "here"}
    settings = read(NodeSettings, PREFIX, env, given={"pool": "given", "location": None})
    assert (settings.pool, settings.location) == ("given", "here")


def test_default_name_is_a_valid_node_name() -> None:
    """Whatever the host is called, the node's name can stand in a queue's name."""
    assert read(NodeSettings, PREFIX, TOKEN).name
