"""Sessions that an agent keeps in files of its own form, between runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from worker.sidecars import acp_sessions
from worker.sidecars.acp_sessions import SessionFiles
from worker.sidecars.sidecar import AgentTask, RunLimits, Session, SessionMode

PATHS = (".agent/{session}.db", ".agent/more", ".not-there")


def a_run(folder: Path, name: str, project: str | None = "shop") -> AgentTask:
    """With a HOME of its own."""
    home = folder / name
    home.mkdir()
    return AgentTask(name, "do it", folder, home, RunLimits(0, 0), project=project)


def leave(task: AgentTask, text: str) -> None:
    """What an agent has written."""
    more = task.home / ".agent/more"
    more.mkdir(parents=True, exist_ok=True)
    (task.home / ".agent/s-1.db").write_bytes(b"\xff" + text.encode())
    (more / "log").write_text(text)


def test_a_session_comes_back_as_it_was_and_to_its_project_only(tmp_path: Path) -> None:
    """Bytes that are no text too; what it does not name stays behind."""
    kept = SessionFiles(tmp_path / "kept", PATHS)
    first, second, other = (a_run(tmp_path, name) for name in ("a", "b", "c"))
    leave(first, "one")
    (first.home / ".agent/other.db").write_text("not of it")
    assert kept.keep("s-1", first)
    assert kept.put("s-1", second)
    assert (second.home / ".agent/s-1.db").read_bytes() == b"\xffone"
    assert sorted(path.name for path in second.home.rglob("*") if path.is_file()) == ["log", "s-1.db"]
    assert not kept.put("s-1", replace(other, project="other"))
    assert not kept.put("s-1", replace(other, project=None))
    assert not kept.put("../p-shop/s-1", other)


def test_a_run_writes_no_session_but_its_own(tmp_path: Path) -> None:
    """A new run that says another's id changes nothing; the one that goes on from it replaces it."""
    kept = SessionFiles(tmp_path / "kept", PATHS)
    first, liar, heir = (a_run(tmp_path, name) for name in ("a", "b", "c"))
    for task, text in ((first, "one"), (liar, "lie"), (heir, "two")):
        leave(task, text)
    assert kept.keep("s-1", first)
    assert not kept.keep("s-1", liar)
    assert kept.keep("s-1", replace(heir, session=Session(SessionMode.RESUME, "s-1")))
    assert (tmp_path / "kept/p-shop/s-1/.agent/more/log").read_text() == "two"
    assert [path.name for path in (tmp_path / "kept/p-shop").iterdir()] == ["s-1"]


def test_what_is_no_file_is_left_and_what_is_too_much_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to holds nobody up."""
    kept = SessionFiles(tmp_path / "kept", PATHS)
    task = a_run(tmp_path, "a")
    leave(task, "one")
    os.mkfifo(task.home / ".agent/more/pipe")
    (task.home / ".agent/more/link").symlink_to("/etc")
    assert kept.keep("s-1", task)
    assert sorted(path.name for path in (tmp_path / "kept/p-shop/s-1/.agent/more").iterdir()) == ["log"]
    for name, most in (("FILES_MAX", 0), ("BYTES_MAX", 2)):
        with monkeypatch.context() as less:
            less.setattr(acp_sessions, name, most)
            assert not kept.keep("s-2", replace(task, session=Session()))
    assert [path.name for path in (tmp_path / "kept/p-shop").iterdir()] == ["s-1"]
