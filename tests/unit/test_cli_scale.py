"""`mcpfleet scale …` against the real views of a pool that had a burst: what it prints, and its exit status."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.cli.changes import changes_of
from orchestrator.cli.durations import parse_at
from orchestrator.cli.exits import BadInput
from orchestrator.cli.main import run
from orchestrator.cli.scale_shown import BARS, bars
from orchestrator.testing.doors import OPERATOR_TOKEN
from orchestrator.testing.http import served
from tasks.scale_wire import MachineView, OverrideView, ScaleLogView, ScalePlanView, ScaleReplayView, ScaleView

NOON = 1_800_014_400.0


class Cli:
    """A command line with a fleet behind it."""

    def __init__(self, url: str, folder: Path) -> None:
        self._environ = {"MCPFLEET_URL": url, "MCPFLEET_TOKEN": OPERATOR_TOKEN, "MCPFLEET_STATE_DIR": str(folder)}

    def __call__(self, *words: str, **environ: str) -> tuple[int, str, str]:
        """Status, standard output, standard error."""
        out, err = io.StringIO(), io.StringIO()
        status = run(["scale", *words], environ=self._environ | environ, out=out, err=err, stdin=io.BytesIO())
        return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One fleet for the module: whoever steers it undoes that."""
    with served() as address:
        yield address


@pytest.fixture
def cli(url: str, tmp_path: Path) -> Cli:
    """A command line that is told where it is."""
    return Cli(url, tmp_path)


def test_status_says_what_there_is_and_why(cli: Cli) -> None:
    """Machines by state, the target, what it costs of what it may, and the rule that decided."""
    status, out, _ = cli()
    head, row, total = out.splitlines()
    assert status == 0
    assert head.split() == ["POOL", "BY", "MACHINES", "TARGET", "LIMITS", "€/H", "WHY"]
    assert re.match(r"builders +slo +1 booting, 1 ready +1 +1-6 +0\.0226 +1 machine: ", row)
    assert total == "prod: 2 machines, 0.0226 of 0.5 €/h"


def test_machines_are_listed_with_what_became_of_them(cli: Cli) -> None:
    """One that failed is shown with its error for a while, not only those that work."""
    _, out, _ = cli("machines")
    assert [line.split()[1] for line in out.splitlines()] == ["STATE", "booting", "gone", "ready"]
    assert "it has not joined within 900 s" in out
    assert "cx33 nbg1 spot" in out


def test_explain_says_why_in_words_and_numbers(cli: Cli) -> None:
    """The newest, one of a given time, or every turning point: load, machines, each rule's word."""
    _, newest, _ = cli("explain", "builders")
    assert newest.splitlines()[0].endswith("builders should have 1 machine, has 1")
    assert "0.5 arrive/s" in newest
    _, then, _ = cli("explain", "builders", "--at", "60m ago")
    assert "should have 6 machines, has 1" in then
    assert re.search(r"slo +tools: 12 calls/s at 1\.5 s need 19 slots .* → 6", then)
    _, turns, _ = cli("explain", "builders", "--since", "2h")
    changes = re.findall(r"should have (\d)", turns)
    assert changes == ["6", "5", "4", "3", "2", "1", "1"]
    assert "nothing was decided" in cli("explain", "builders", "--at", "2020-01-01T12:00")[2]


def test_plan_changes_the_policy_and_nothing_else(cli: Cli) -> None:
    """What would be decided with other fields; the next look at the fleet shows none of it."""
    status, out, _ = cli("plan", "builders", "--set", "min_machines=4")
    assert (status, "builders would have 4 machines, has 1" in out) == (0, True)
    assert json.loads(cli("--json")[1])["pools"][0]["min_machines"] == 1


def test_replay_shows_both_and_where_they_part(cli: Cli) -> None:
    """A row of bars each, machine-hours, and the first moments that differ with their reason."""
    status, out, _ = cli("replay", "builders", "--since", "2h", "--strategy", "threshold")
    was, would = (re.search(rf"  {label} +([{BARS}]+)\n", out) for label in ("was", "would"))
    assert status == 0
    assert was is not None
    assert would is not None
    assert was[1] != would[1]
    assert "machine-hours, at most 6" in out
    assert "utilisation 80% is over 70%" in out
    _, same, _ = cli("replay", "builders", "--since", "2h")
    assert "differs at 0 of 90 moments" in same
    assert "kept are 90 of about 1069 rounds" in same


def test_a_size_by_hand_holds_until_it_expires_or_is_taken_back(cli: Cli) -> None:
    """It says until when, shows on the status with who said it, and how to undo it."""
    status, out, err = cli("set", "builders", "3", "--for", "2h")
    assert (status, out) == (0, "")
    assert "for 2 h 00 m" in err.replace("\n", " ")
    assert "mcpfleet scale unset builders" in err.replace("\n", " ")
    assert "builders shall have 3" in cli()[2]
    assert "operator wants 3 machines" in cli("plan", "builders")[1]
    assert cli("unset", "builders")[0] == 0
    assert json.loads(cli("--json")[1])["pools"][0]["override"] is None


def test_a_size_beyond_the_limits_says_what_it_means(cli: Cli) -> None:
    """Nobody waits for a seventh machine that max_machines does not allow; nor is an undo said that undid nothing."""
    assert "max_machines is 6: that is what builders gets" in cli("set", "builders", "9", "--for", "1h")[2]
    assert "min_machines is 1: that is what builders gets" in cli("set", "builders", "0", "--for", "1h")[2]
    assert "machines is" not in cli("set", "builders", "2", "--for", "1h")[2]
    assert "decides again" in cli("unset", "builders")[2]
    assert "had no size by hand" in cli("unset", "builders")[2]


def test_since_is_one_grammar(cli: Cli) -> None:
    """A date, a time of day or how long ago, as `mcpfleet cost --since` takes them."""
    for since in ("2026-01-01", "2h", "2h ago"):
        assert cli("explain", "builders", "--since", since)[0] == 0, since
        assert cli("replay", "builders", "--since", since)[0] == 0, since


def test_where_nothing_was_decided_it_says_where_to_look(cli: Cli) -> None:
    """Which time was looked through, and what there is before it."""
    said = cli("explain", "builders", "--at", "2020-01-01T12:00")[2]
    assert "between 2020-01-01 11:00:00 and 2020-01-01 12:00:00 (without --since one hour is looked through)" in said
    assert "nothing before it is on record either, which goes back to the first start and a week at most" in said


def test_a_dry_run_is_said_wherever_it_matters(cli: Cli) -> None:
    """Nobody wonders why nothing is ordered."""
    assert "undo: mcpfleet scale dry-run off" in cli("dry-run", "on")[2].replace("\n", " ")
    assert "dry run" in cli()[2]
    assert "(dry run: not carried out)" in cli("plan")[1]
    assert "carried out" in cli("dry-run", "off")[2]
    assert "dry run" not in cli()[2]


def test_a_dry_run_says_which_machines_drain_on(tmp_path: Path) -> None:
    """Calls may wait beside them: nobody thinks that a dry run gave them back."""
    with served(draining=2) as address:
        cli = Cli(address, tmp_path)
        assert "2 machines are draining and stay so" in cli("dry-run", "on")[2].replace("\n", " ")
        assert "drain" not in cli("dry-run", "off")[2]


def test_scripts_get_the_wire_models(cli: Cli) -> None:
    """What `--json` prints is what docs/api.md promises."""
    ScaleView.model_validate_json(cli("--json")[1])
    assert [MachineView.model_validate(item) for item in json.loads(cli("machines", "--json")[1])]
    assert [ScaleLogView.model_validate(item) for item in json.loads(cli("explain", "builders", "--json")[1])]
    assert [ScalePlanView.model_validate(item) for item in json.loads(cli("plan", "--json")[1])]
    ScaleReplayView.model_validate_json(cli("replay", "builders", "--json")[1])
    OverrideView.model_validate_json(cli("set", "builders", "2", "--for", "1h", "--json")[1])
    assert json.loads(cli("unset", "builders", "--json")[1]) == {"pool": "builders", "override": None}
    for word, is_dry in (("on", True), ("off", False)):
        assert json.loads(cli("dry-run", word, "--json")[1]) == {"is_dry": is_dry}


@pytest.mark.parametrize(
    ("words", "status", "hint"),
    [
        (("explain", "bilders"), 3, "did you mean 'builders'"),
        (("plan", "bilders"), 3, "did you mean 'builders'"),
        (("set", "bilders", "1", "--for", "1h"), 3, "did you mean 'builders'"),
        (("unset", "bilders"), 3, "did you mean 'builders'"),
        (("plan", "--set", "max_machine=3"), 2, "did you mean 'max_machines'"),
        (("plan", "--set", "max_machines=many"), 2, "max_machines is 'many'"),
        (("plan", "--set", "min_machines=9"), 2, "max_machines is only 6"),
        (("plan", "--set", "triggers.cpu=7"), 2, "a share"),
        (("plan", "--set", "target_wait_s"), 2, "is not KEY=VALUE"),
        (("plan", "--set", "max_machines=many"), 2, "--set: max_machines is 'many': write a whole number"),
        (("plan", "--strategy", "guess"), 2, "--strategy is 'guess': write slo or threshold. Try: mcpfleet scale plan"),
        (("replay", "builders", "--since", "soon"), 2, "is not a time"),
        (("replay", "builders", "--since", "0s"), 2, "--since is '0s', which is not in the past: write 2h"),
        (("explain", "builders", "--since", "0s"), 2, "--since is '0s', which is not in the past: write 2h"),
        (("explain", "other"), 3, "pool 'other' is not sized: it has no ladder; sized are: builders"),
        (("replay", "other"), 3, "sized are: builders"),
        (("unset", "other"), 3, "sized are: builders"),
        (("set", "other", "1", "--for", "1h"), 3, "sized are: builders"),
        (("set", "builders", "3", "--for", "0s"), 2, "--for is '0s': write more than 0s and at most 30d"),
        (("set", "builders", "3", "--for", "99999d"), 2, "--for is '99999d': write more than 0s and at most 30d"),
        (("explain", "builders", "--at", "tea"), 2, "is not a time"),
        (("explain", "builders", "--at", "1h", "--since", "1h"), 2, "not both"),
        (("set", "builders", "3"), 2, "--for"),
        (("set", "builders", "3", "--fro", "1h"), 2, "--fro"),
        (("set", "builders", "-1", "--for", "1h"), 2, "N is -1: write 0 machines or more"),
        (("dry-run", "maybe"), 2, "is 'maybe': write on or off. Try: mcpfleet scale dry-run --help"),
    ],
)
def test_bad_words_are_one_line_and_a_status(cli: Cli, words: Sequence[str], status: int, hint: str) -> None:
    """What was wrong and what to write, nothing on standard output."""
    got, out, err = cli(*words)
    assert (got, out) == (status, "")
    assert hint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("columns", ["80", "160"])
def test_no_line_of_an_explanation_is_wider_than_the_terminal(cli: Cli, columns: str) -> None:
    """Long reasons go on below themselves."""
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": columns}
    for words in ((), ("machines",), ("explain", "builders", "--since", "2h"), ("replay", "builders", "--since", "2h")):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", cli(*words, **terminal)[1])
        assert max(map(len, shown.splitlines())) <= int(columns), words


def test_changes_are_typed_like_the_pools_file() -> None:
    """JSON where it is JSON, tables by a dot, text otherwise."""
    words = ["max_machines=20", "triggers.cpu=0.5", 'regions=["eu-*"]', "provision=ansible", "may_use_spot=true"]
    assert changes_of(words, "slo") == {
        "strategy": "slo",
        "max_machines": 20,
        "triggers": {"cpu": 0.5},
        "regions": ["eu-*"],
        "provision": "ansible",
        "may_use_spot": True,
    }
    for wrong in (["=3"], ["a=1", "a=2"], ["a=1", "a.b=2"]):
        with pytest.raises(BadInput):
            changes_of(wrong)


def test_a_time_of_day_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks about a decision that is yet to come."""
    monkeypatch.setenv("TZ", "UTC")
    midday = parse_at("12:00", NOON + 60)
    assert parse_at("12:00", midday) == midday
    assert parse_at("12:00", midday - 1) == midday - 86_400
    assert parse_at("90m", NOON) == NOON - 5400


def test_bars_hold_what_was_through_a_gap() -> None:
    """Moments are placed by time, not by number; nothing is an empty place."""
    assert bars([(0.0, 1), (1.0, 4), (9.0, 2)], 10, 4) == "▂████████▄"
    assert bars([(0.0, 0), (10.0, 2)], 4, 2) == "   █"
    assert bars([(5.0, 3)], 10, 3) == "█"
