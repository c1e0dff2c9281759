"""A project's files on a node are its tenant's alone, whoever knows its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.testing.clock import FakeClock
from tests.contract.workspace_rig import Rig
from worker.sidecars.places import Places, ProjectUnknown
from worker.sidecars.sidecar import AgentTask, RunLimits
from worker.sidecars.sidecars_file import parse_projects
from worker.sidecars.transcripts import Transcripts
from worker.workspaces.names import Project
from worker.workspaces.quota import WorkspaceLimits


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A remote with a commit."""
    made = Rig(tmp_path)
    made.begin()
    return made


async def test_another_tenants_project_does_not_exist(rig: Rig) -> None:
    """The answer is the one for a project that nobody ever named; nothing is lent either."""
    projects = {"shop": Project.of("shop", str(rig.remote), ("files",), tenant="acme")}
    places = Places(rig.node, WorkspaceLimits(), projects, FakeClock())
    await places.start()
    async with places.open("run-1", "shop", None, "acme") as place:
        assert any(place.workspace.iterdir())
    for tenant, project in (("default", "shop"), ("other", "shop"), ("acme", "nobodys")):
        with pytest.raises(ProjectUnknown) as refused:
            async with places.open("run-2", project, None, tenant):
                pass
        assert str(refused.value) == str(ProjectUnknown(project))
    assert (places.servers("shop", "acme"), places.servers("shop", "default")) == (("files",), ())


def test_a_project_is_the_fleets_own_unless_its_line_says_whose() -> None:
    """And a tenant that cannot be is refused when the file is read."""
    listed = json.loads('{"a": {"git": "/srv/a.git"}, "b": {"git": "/srv/b.git", "tenant": "acme"}}')
    read = parse_projects(listed, "file", ())
    assert (read["a"].tenant, read["b"].tenant) == ("default", "acme")
    with pytest.raises(SettingsError, match="tenant"):
        parse_projects({"a": {"git": "/srv/a.git", "tenant": "../x"}}, "file", ())


def test_a_session_is_gone_on_with_by_its_tenant_alone(tmp_path: Path) -> None:
    """By runs without a project too, which have no files of their own to tell them apart."""

    def task(tenant: str, home: str, project: str | None = None) -> AgentTask:
        (tmp_path / home).mkdir()
        return AgentTask("run", "do", tmp_path, tmp_path / home, RunLimits(9.0, 9.0), project, tenant=tenant)

    kept = Transcripts(tmp_path / "sessions", "s/{}.jsonl")
    hers = task("acme", "h1")
    assert kept.place("0" * 8 + "-s", "said", hers)
    kept.keep("0" * 8 + "-s", hers)
    assert kept.put("0" * 8 + "-s", task("acme", "h2"))
    for number, (tenant, project) in enumerate((("default", None), ("other", None), ("acme", "shop"))):
        assert not kept.put("0" * 8 + "-s", task(tenant, f"o{number}", project))
