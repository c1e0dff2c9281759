"""What the Flower process is told: where it listens, its login, its broker, and who is let in."""

from __future__ import annotations

import base64
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest

from orchestrator.flower.doors import is_known
from orchestrator.flower.process import fault, listen
from orchestrator.flower.settings import ORCHESTRATORS, VARIABLES, FlowerSettings, read_flower_settings
from orchestrator.settings import OrchestratorSettings
from tasks.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

URL = "redis://broker:6379/0"


def _read(**more: str) -> FlowerSettings:
    given = {"REDIS_URL": URL, "LOGIN": "fleet:word"} | more
    return read_flower_settings({f"MCPFLEET_FLOWER_{name}": value for name, value in given.items() if value})


def _used(**more: str) -> tuple[object, ...]:
    settings = _read(**more)
    return settings.credentials(), settings.broker_url(), settings.server_context()


def test_a_given_address_is_bound() -> None:
    """A container has no parent that binds for it, so the address comes by the environment."""
    with closing(listen(_read(HOST="127.0.0.1", PORT="0"))) as found:
        host, port = found.getsockname()
        assert (host, port > 0, found.getblocking()) == ("127.0.0.1", True, False)


def test_without_an_address_it_stays_on_loopback() -> None:
    """Nothing is exposed by leaving a variable out."""
    assert FlowerSettings().host == "127.0.0.1"


def test_secrets_may_be_files(tmp_path: Path) -> None:
    """Docker, systemd and Kubernetes hand them over so."""
    url, login = tmp_path / "url", tmp_path / "login"
    url.write_text(f"{URL}\n")
    login.write_text("fleet:wo:rd\n")
    settings = _read(REDIS_URL="", LOGIN="", REDIS_URL_FILE=str(url), LOGIN_FILE=str(login))
    assert (settings.broker_url(), settings.credentials()) == (URL, ("fleet", "wo:rd"))


@pytest.mark.parametrize(
    ("set_so", "says"),
    [
        ({"LOGIN": ""}, "MCPFLEET_FLOWER_LOGIN is not set"),
        ({"LOGIN": "no-colon"}, "write user:password"),
        ({"LOGIN": "user:"}, "write user:password"),
        ({"LOGIN_FILE": "/there"}, "are both set"),
        ({"LOGIN": "", "LOGIN_FILE": "/is/not/there"}, "No such file"),
        ({"REDIS_CA": "/ca.pem"}, "rediss://"),
        ({"TLS_CERT": "/cert.pem"}, "belong together"),
        ({"TLS_CERT": "/is/not/there", "TLS_KEY": "/is/not/there"}, "cannot be used"),
    ],
)
def test_what_cannot_be_is_refused_without_its_value(set_so: dict[str, str], says: str) -> None:
    """A start without a login, or with half of one, is none; and no password stands in the message."""
    with pytest.raises(SettingsError, match=says) as refused:
        _used(**set_so)
    assert "no-colon" not in refused.value.message


def test_a_misspelt_variable_is_refused_with_the_right_one() -> None:
    """As everywhere under MCPFLEET_."""
    with pytest.raises(SettingsError, match="MCPFLEET_FLOWER_LOGIN"):
        _read(LOGINN="fleet:word")


def test_both_readers_of_the_prefix_know_whose_is_whose() -> None:
    """What feeds Flower is the orchestrator's; the names never overlap, so one environment serves both."""
    assert not set(ORCHESTRATORS) & set(VARIABLES)
    ours = {f"MCPFLEET_{name.upper()}" for name in OrchestratorSettings.model_fields}
    assert set(ORCHESTRATORS) == {name for name in ours if name.startswith("MCPFLEET_FLOWER_")}


@pytest.mark.parametrize(
    ("header", "is_let_in"),
    [
        ("Basic " + base64.b64encode(b"fleet:word").decode(), True),
        ("basic " + base64.b64encode(b"fleet:word").decode(), True),
        ("Basic " + base64.b64encode(b"fleet:wor").decode(), False),
        ("Basic " + base64.b64encode(b"fleet:words").decode(), False),
        ("Bearer fleet:word", False),
        ("Basic %%%", False),
        ("Basic é", False),
        ("Basic", False),
        ("", False),
    ],
)
def test_only_the_login_opens(header: str, is_let_in: bool) -> None:
    """One user and password, compared as a whole."""
    assert is_known(header, b"fleet:word") is is_let_in


def _flower(status: int, open_status: int = 401) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status if "authorization" in request.headers else open_status)

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(
    ("status", "open_status", "says"),
    [(200, 401, ""), (401, 401, "does not take the login"), (500, 401, "answers 500"), (200, 200, "to anybody")],
)
def test_health_is_an_answer_to_the_login_and_to_nobody_else(status: int, open_status: int, says: str) -> None:
    """A Flower that shows its metrics to everybody is not well."""
    found = fault(_read(), _flower(status, open_status))
    assert (says in found) if says else not found
