"""Variables of other processes under the same prefix are left alone, and none of one's own is with them."""

from __future__ import annotations

import pytest

from orchestrator.cli.fleet import NOT_OURS
from orchestrator.settings import OrchestratorSettings
from tasks.settings import read, variable_of

NEEDED = {"MCPFLEET_TOKEN": "t", "MCPFLEET_JOIN_TOKEN": "j"}


def test_a_longer_name_than_the_command_lines_is_the_orchestrators() -> None:
    """`MCPFLEET_URL` is for clients; the address for nodes begins with the same letters, and was passed over."""
    environ = NEEDED | {"MCPFLEET_URL": "https://here", "MCPFLEET_URL_FOR_NODES": "http://orchestrator:8700"}
    assert read(OrchestratorSettings, "MCPFLEET_", environ, excluding=NOT_OURS).url_for_nodes == (
        "http://orchestrator:8700"
    )


@pytest.mark.parametrize("name", OrchestratorSettings.model_fields)
def test_no_setting_is_anothers(name: str) -> None:
    """Each is read where it is set: one that no value of its type can have is complained of."""
    variable = variable_of(name, "MCPFLEET_")
    others = [other for other in NOT_OURS if other == variable or (other.endswith("_") and variable.startswith(other))]
    assert not others
