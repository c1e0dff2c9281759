"""One real local fleet and one real Chromium for each file; a window of its own for each test.

Nothing outlives its file: Playwright runs an event loop in this thread, and other tests begin loops of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from orchestrator.testing.local import Local, upped
from tests.browser.browser_rig import PHONE, SWITCHES, Desk, desk_of, program
from tests.browser.staged_rig import Stage, staged

SHOTS = "MCPFLEET_SHOTS_DIR"
"""Where `make screenshots` wants them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs Chromium, and time on a busy machine."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.live("chromium"))
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Two pools, three nodes, the built-in server `probe`. Tests leave it as they found it."""
    folder = tmp_path_factory.mktemp("console")
    servers = folder / "none.json"
    servers.write_text('{"mcpServers": {}}')
    environ = {name: value for name, value in os.environ.items() if name != SHOTS}
    with upped(folder, "--no-flower", "--servers", str(servers), environ=environ) as local:
        yield local


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are kept."""
    wanted = os.environ.get(SHOTS)
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def desk(fleet: Local, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """Logged in as the fleet's own operator, on a wide screen."""
    yield from _desk(desk_of(chromium, fleet.url, fleet.token, shots))


@pytest.fixture
def dark_desk(fleet: Local, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """The same, of somebody whose system is dark."""
    yield from _desk(desk_of(chromium, fleet.url, fleet.token, shots, color_scheme="dark"))


@pytest.fixture
def phone(fleet: Local, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """The same, on a phone."""
    options = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    yield from _desk(desk_of(chromium, fleet.url, fleet.token, shots, **options))


@pytest.fixture
def plain_desk(fleet: Local, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """The same, with scripts off."""
    yield from _desk(desk_of(chromium, fleet.url, fleet.token, shots, java_script_enabled=False))


def _desk(desk: Desk) -> Iterator[Desk]:
    try:
        desk.log_in()
        yield desk
        assert desk.faults() == []
    finally:
        desk.context.close()


@pytest.fixture(scope="module", autouse=True)
def _without_proxies() -> Iterator[None]:
    """Chromium would ask a proxy of the environment for loopback addresses too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A console with something on every page, on a core of its own. Tests change only what is theirs."""
    with staged(tmp_path_factory.mktemp("stage")) as ready:
        yield ready


@pytest.fixture
def staged_desk(stage: Stage, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """A window on it."""
    yield from _desk(desk_of(chromium, stage.url, stage.token, shots))


@pytest.fixture
def staged_phone(stage: Stage, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """The same, on a phone."""
    options = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
    yield from _desk(desk_of(chromium, stage.url, stage.token, shots, **options))


@pytest.fixture
def staged_dark_desk(stage: Stage, chromium: Browser, shots: Path) -> Iterator[Desk]:
    """The same, of somebody whose system is dark."""
    yield from _desk(desk_of(chromium, stage.url, stage.token, shots, color_scheme="dark"))
