"""Which addresses of Redis are understood, and what is said of the others."""

from __future__ import annotations

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from orchestrator.local.logfile import masked
from tasks.app import make_app
from tasks.errors import SettingsError
from tasks.redis_url import Sentinels, parse
from tasks.sentinel import Known, is_demoted, known_of, left_for

HOSTS = (("h1", 26379), ("h2", 26380), ("::1", 26379))


def test_a_sentinel_address_says_everything() -> None:
    """Nodes learn one address at their join and need no setting beside it."""
    text = "sentinel://user:p%40ss@h1,h2:26380,[::1]/mymaster/3?sentinel_username=s&sentinel_password=t"
    assert parse(text) == Sentinels(HOSTS, "mymaster", 3, "user", "p@ss", "s", "t")
    assert parse("sentinel://h1/mymaster") == Sentinels((("h1", 26379),), "mymaster")


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://u:p@h", "unix:///run/redis.sock?db=1"])
def test_one_server_is_left_to_the_clients(url: str) -> None:
    """What worked before works as before."""
    assert parse(url) is None
    assert make_app(url).conf.broker_transport is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("h1:26379", "begins with 'h1'"),
        ("http://h1", "begins with 'http'"),
        ("", "begins with 'no scheme'"),
        ("sentinel://h1,h2", "names no master"),
        ("sentinel://h1/my master", "names the master 'my master'"),
        ("sentinel://h1/m/zero", "names the database 'zero'"),
        ("sentinel://h1,,h2/m", "holds an empty host"),
        ("sentinel://h1:port/m", "holds 'h1:port', which is not host:port"),
        ("sentinel://:secret@h1:1;sentinel://:secret@h2:2/0", "separate sentinels by ','"),
        ("sentinel://:sec/ret@h1/m", "write / as %2F"),
        ("sentinel://[h1/m", "cannot be read"),
        ("sentinel://h1/m?master=x", "has the option 'master'"),
    ],
)
def test_a_wrong_address_is_told_apart(url: str, words: str) -> None:
    """The message says what is wrong and what to write, and no password."""
    with pytest.raises(SettingsError) as said:
        parse(url)
    assert words in said.value.message
    assert "mymaster" in said.value.message
    assert "sec" not in said.value.message.replace("secrets", "")


def test_nothing_that_is_shown_holds_a_password() -> None:
    """Logs, errors and `repr` name hosts only."""
    url = "sentinel://user:hidden@h1,h2/m?sentinel_password=hidden"
    found = parse(url)
    assert found is not None
    assert "hidden" not in repr(found) + found.shown() + masked(url)
    with make_app(url).connection() as connection:
        assert connection.as_uri() == "sentinel://user:**@h1:26379/0"


def _state(epoch: int, port: int = 1, **more: object) -> dict[str, object]:
    flags = {"is_master": True, "is_sdown": False, "is_odown": False}
    return {"ip": "m", "port": port, "config-epoch": epoch, **flags, **more}


THREE = Sentinels((("a", 1), ("b", 1), ("c", 1)), "m")


@pytest.mark.parametrize(
    ("states", "known"),
    [
        pytest.param([], Known(None, 0, is_most=False), id="nobody answers"),
        pytest.param([_state(1, 1)], Known(("m", 1), 1, is_most=False), id="one of three"),
        pytest.param([_state(1, 1), _state(2, 2)], Known(("m", 2), 2, is_most=True), id="one slept"),
        pytest.param([_state(1), _state(1, is_sdown=True)], Known(("m", 1), 2, is_most=True), id="one doubts it"),
        pytest.param([_state(1, is_odown=True), _state(1)], Known(None, 2, is_most=True), id="it is down"),
    ],
)
def test_the_newest_word_of_the_sentinels_counts(states: list[dict[str, object]], known: Known) -> None:
    """A sentinel that was away knows the master before; its epoch is older."""
    assert known_of(states, THREE) == known


@pytest.mark.parametrize(
    ("known", "is_left"),
    [
        pytest.param(Known(("m", 2), 2, is_most=True), True, id="another one"),
        pytest.param(Known(("m", 1), 2, is_most=True), False, id="the same"),
        pytest.param(Known(("m", 2), 1, is_most=False), False, id="a minority says so"),
        pytest.param(Known(None, 2, is_most=True), False, id="no other yet"),
    ],
)
def test_an_open_connection_is_left_for_good_reason_only(known: Known, is_left: bool) -> None:
    """A sentinel that lags behind must not take clients back to a demoted master."""
    assert (left_for(known, ("m", 1)) is not None) is is_left


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (ReadOnlyError("You can't write against a read only replica."), True),
        (ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), True),
        (ResponseError("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), True),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), False),
    ],
)
def test_what_a_demoted_master_says_is_known(error: ResponseError, is_one: bool) -> None:
    """Celery's worker would end of an UNBLOCKED, and never leave a READONLY."""
    assert is_demoted(error) is is_one
