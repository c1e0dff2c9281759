"""Every alert fires for what it is for, stays silent just below it, and resolves: by `promtool test rules`.

One case for each alert of deploy/prometheus; one without a case fails. What the series are is said by how they go:
well for a while, then badly, then well again.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus"
FILES = ("alerts.rules.yml", "slo.rules.yml")
DAY_M = 24 * 60
DAY_S = 86_400
MISSING = None
BUCKETS = (0.5, 1.0, 10.0, 30.0)
pytestmark = pytest.mark.live("prometheus")


@dataclass(frozen=True, slots=True)
class Gauge:
    """Values a minute: while all is well, while it is not, and while it nearly is not."""

    well: float | None
    bad: float | None
    nearly: float | None
    is_counter: bool = False
    """The three are increments then."""

    def values(self, lasts: Lasts, *, is_nearly: bool) -> str:
        """As promtool takes them."""
        bad = self.nearly if is_nearly else self.bad
        parts = ((self.well, lasts.well_m), (bad, lasts.bad_m), (self.well, lasts.after_m))
        steps = [value for value, minutes in parts for _ in range(minutes // lasts.step_m)]
        if self.is_counter:
            steps = list(_sums(steps))
        return " ".join("_" if step is None else f"{step:g}" for step in steps)


@dataclass(frozen=True, slots=True)
class Lasts:
    """Minutes; and how many lie between two samples, so that days are not reckoned by the minute."""

    well_m: int = 20
    bad_m: int = 30
    after_m: int = 40
    step_m: int = 1


@dataclass(frozen=True, slots=True)
class Case:
    """One alert, and how the series go that it looks at."""

    alert: str
    series: dict[str, Gauge]
    lasts: Lasts = Lasts()
    labels: str = ""
    """Of the alert, where one name has several."""


def counter(well: float, bad: float, nearly: float) -> Gauge:
    """Increments a minute."""
    return Gauge(well, bad, nearly, is_counter=True)


def histogram(name: str, labels: str, *, good_le: float, bad_le: float, nearly_le: float) -> dict[str, Gauge]:
    """100 observations a minute, all of them just in the bucket of that bound."""
    return {
        f'{name}_bucket{{{labels}le="{le:g}"}}': counter(*(100.0 * (le >= at) for at in (good_le, bad_le, nearly_le)))
        for le in BUCKETS
    } | {f'{name}_bucket{{{labels}le="+Inf"}}': counter(100, 100, 100)}


def share(name: str, bad: str, good: str, *, nearly: float, is_bad: float) -> dict[str, Gauge]:
    """1,000 events a minute, so many of them bad; one of 100,000 while all is well."""
    return {
        f"{name}{{{bad}}}": counter(0.01, 1000 * is_bad, 1000 * nearly),
        f"{name}{{{good}}}": counter(1000, 1000 * (1 - is_bad), 1000 * (1 - nearly)),
    }


def burn(objective: str, factor: float, budget: float, *, lasts: Lasts, severity: str) -> Case:
    """A tenth above the rate that wakes, and a tenth below."""
    which = f'objective="{objective}",verdict='
    events = share(
        "mcpfleet_objective_events_total",
        f'{which}"bad"',
        f'{which}"good"',
        nearly=0.9 * factor * budget,
        is_bad=1.1 * factor * budget,
    )
    labels = f',objective="{objective}",factor="{factor:g}",severity="{severity}"'
    return Case("ObjectiveBurn", events, lasts, labels)


def disk(**series: Gauge) -> dict[str, Gauge]:
    """Of one, as a node exporter shows it."""
    labels = 'instance="a:1",device="d",fstype="ext4",mountpoint="/"'
    return {f"node_filesystem_{name}{{{labels}}}": gauge for name, gauge in series.items()}


FULL = Gauge(100, 100, 100)
HOURS = Lasts(70, 10, 80)
"""For what looks an hour back."""
BURN_LASTS = {
    14.4: (Lasts(60, 90, 60), "page"),
    6.0: (Lasts(60, 7 * 60, 120, 5), "page"),
    3.0: (Lasts(60, DAY_M + 120, 5 * 60, 20), "ticket"),
    1.0: (Lasts(60, 3 * DAY_M + 120, 12 * 60, 60), "ticket"),
}
BUDGETS = {"short_calls_p99": 0.01, "availability": 0.001, "failover": 0.01}
CASES = [
    Case("OrchestratorDown", {'up{job="mcpfleet",instance="o:1"}': Gauge(1, 0, 1)}),
    Case("OrchestratorDown", {'up{job="mcpfleet",instance="o:1"}': Gauge(1, MISSING, 1)}),
    Case("NotLeading", {'mcpfleet_leading{instance="o:1"}': Gauge(1, 0, 1)}),
    Case("LedgerDown", {'mcpfleet_ledger_up{instance="o:1"}': Gauge(1, 0, 1)}),
    Case("RedisDown", {'mcpfleet_broker_up{instance="o:1"}': Gauge(1, 0, 1)}),
    Case(
        "EventLoopStalled",
        histogram("mcpfleet_event_loop_lag_seconds", 'instance="o:1",', good_le=0.5, bad_le=1, nearly_le=0.5),
    ),
    Case(
        "LeaderLoopStalled",
        {
            'mcpfleet_loop_age_seconds{loop="sweep",instance="o:1"}': Gauge(1, 64, 63),
            'mcpfleet_loop_period_seconds{loop="sweep",instance="o:1"}': Gauge(1, 1, 1),
        },
    ),
    Case(
        "NodeLost",
        {
            'mcpfleet_node_state{node="a",pool="p",state="lost"}': Gauge(MISSING, 1, MISSING),
            'mcpfleet_node_state{node="a",pool="p",state="active"}': Gauge(1, MISSING, 1),
        },
    ),
    Case(
        "NoNodes",
        {
            'mcp_worker_health{job="mcpfleet",node="a",pool="p"}': Gauge(1, 0, 0),
            'mcp_worker_health{job="mcpfleet",node="b",pool="p"}': Gauge(1, 0, 1),
        },
    ),
    Case("ClockSkew", {'mcpfleet_node_clock_ahead_seconds{node="a"}': Gauge(0.1, -2.1, -2)}),
    Case("CircuitOpen", {'mcpfleet_circuits_open{node="a",server="git"}': Gauge(MISSING, 1, MISSING)}),
    Case(
        "ServerUnhealthy",
        {
            'mcpfleet_servers_unhealthy{node="a",server="git"}': Gauge(MISSING, 1, MISSING),
            'mcpfleet_servers_unhealthy{node="a",server="claude"}': Gauge(MISSING, 1, 1),
            'mcpfleet_sidecar_credential{node="a",server="claude",state="refused"}': Gauge(MISSING, 1, 1),
        },
    ),
    Case(
        "SidecarCredential",
        {
            'mcpfleet_sidecar_credential{node="a",server="claude",state="refused"}': Gauge(MISSING, 1, MISSING),
            'mcpfleet_sidecar_credential{node="a",server="glm",state="spent"}': Gauge(MISSING, 1, 1),
        },
    ),
    Case("HostDiskFilling", disk(avail_bytes=Gauge(50, 9, 10), size_bytes=FULL)),
    Case("HostDiskFilling", disk(files_free=Gauge(50, 4, 5), files=FULL)),
    Case(  # what cannot be written is full by design
        "HostDiskFilling", disk(avail_bytes=Gauge(50, 9, 0), size_bytes=FULL, readonly=Gauge(0, 0, 1))
    ),
    Case("CallWaitsLong", {'mcp_oldest_wait_seconds{instance="o:1"}': Gauge(1, 1801, 1800)}),
    Case(
        "QueueStuck",
        {
            'mcp_oldest_wait_seconds{instance="o:1"}': Gauge(1, 500, 120),
            'mcp_placements_total{pool="p",reason="only"}': counter(10, 0, 0),
        },
    ),
    Case(
        "QueueStuck",  # long waits alone are none, while calls are placed
        {
            'mcp_oldest_wait_seconds{instance="o:1"}': Gauge(1, 500, 500),
            'mcp_placements_total{pool="p",reason="only"}': counter(10, 0, 10),
        },
    ),
    Case(
        "QueueWaitP95",
        histogram("mcp_queue_wait_seconds", 'lane="tools",', good_le=0.5, bad_le=30, nearly_le=10),
    ),
    Case(
        "ToolErrorRate",
        share(
            "mcp_requests_total",
            'job="mcpfleet",tool="t",state="failed"',
            'job="mcpfleet",tool="t",state="succeeded"',
            nearly=0.24,
            is_bad=0.26,
        ),
    ),
    Case(
        "ToolErrorRate",  # few calls are no rate
        {'mcp_requests_total{job="mcpfleet",tool="t",state="lost"}': counter(0, 2.5, 1.9)},
        Lasts(20, 60, 40),
    ),
    Case(
        "DoorErrorRate",
        share(
            "mcpfleet_door_requests_total",
            'door="api",operation="call",status="5xx"',
            'door="api",operation="call",status="2xx"',
            nearly=0.019,
            is_bad=0.021,
        ),
    ),
    Case(
        "DoorErrorRate",  # of few requests one is no rate
        {
            'mcpfleet_door_requests_total{door="mcp",operation="call",status="5xx"}': counter(0, 2, 1),
            'mcpfleet_door_requests_total{door="mcp",operation="call",status="2xx"}': counter(0, 2, 1),
        },
    ),
    Case("DeadLetters", {'mcpfleet_dead_letters{instance="o:1"}': Gauge(5, 17, 15)}, Lasts(40, 20, 60)),
    Case(
        "CredentialExpiring",  # promtool's clock begins at 0
        {'mcpfleet_expiry_timestamp_seconds{kind="api_key"}': Gauge(30 * DAY_S, 3 * DAY_S, 3 * DAY_S + 6 * 3600)},
    ),
    Case(
        "LeakedMachine",  # the first one ever
        {'mcpfleet_scale_leaks_total{provider="cloud",why="unknown"}': Gauge(MISSING, 1, MISSING)},
        HOURS,
    ),
    Case(
        "LeakedMachine",
        {'mcpfleet_scale_leaks_total{provider="cloud",why="unknown"}': counter(0, 1, 0)},
        HOURS,
    ),
    Case("AutoscalerAlerts", {'mcpfleet_scale_alerts{pool="p"}': Gauge(0, 1, 0)}),
    Case("AutoscalerAlerts", {'mcpfleet_scale_blind{pool="p"}': Gauge(0, 1, 0)}),
    Case(
        "BudgetNearlySpent",
        {
            'mcpfleet_scale_cost_eur_per_hour{pool="p"}': Gauge(1, 1.85, 1.8),
            'mcpfleet_scale_budget_eur_per_hour{pool="p"}': Gauge(2, 2, 2),
        },
    ),
    Case(
        "BudgetNearlySpent",
        {
            'mcpfleet_scale_cost_eur_per_hour{pool="p"}': Gauge(1, 1, 1),
            'mcpfleet_scale_cost_eur_per_hour{pool="q"}': Gauge(1, 3.7, 3.5),
            "mcpfleet_scale_fleet_budget_eur_per_hour": Gauge(5, 5, 5),
        },
    ),
    *(
        burn(objective, factor, budget, lasts=lasts, severity=severity)
        for objective, budget in BUDGETS.items()
        for factor, (lasts, severity) in BURN_LASTS.items()
    ),
    burn("short_calls_p50", 1.0, 0.5, lasts=BURN_LASTS[1.0][0], severity="ticket"),
]


def alerts() -> list[dict[str, Any]]:
    """All of both files."""
    forms = [yaml.safe_load((RULES / name).read_text(encoding="utf-8")) for name in FILES]
    return [rule for form in forms for group in form["groups"] for rule in group["rules"] if "alert" in rule]


def which(case: Case) -> str:
    """For a person who reads the report."""
    return f"{case.alert}{case.labels.replace(',', ' ').replace(chr(34), '')}"


def test_every_alert_has_a_case() -> None:
    """One that is added needs one; every factor of every objective too."""
    written = {(one["alert"], one["labels"].get("objective"), one["labels"].get("factor")) for one in alerts()}
    tried = {(case.alert, *_burnt(case.labels)) for case in CASES}
    assert written == tried


@pytest.mark.parametrize("case", CASES, ids=which)
def test_an_alert_fires_and_resolves_and_does_not_fire_just_below(case: Case, tmp_path: Path) -> None:
    """Silent while all is well, firing at the end of what is bad, silent again at the end; and never just below."""
    lasts, found = case.lasts, f'ALERTS{{alertname="{case.alert}",alertstate="firing"{case.labels}}}'
    bad_until, step = lasts.well_m + lasts.bad_m, f"{lasts.step_m}m"
    end = bad_until + lasts.after_m
    fires = {
        "interval": step,
        "input_series": [
            {"series": name, "values": s.values(lasts, is_nearly=False)} for name, s in case.series.items()
        ],
        "promql_expr_test": [
            _asked(found, lasts.well_m - lasts.step_m, is_there=False),
            _asked(found, bad_until - lasts.step_m, is_there=True),
            _asked(found, end - lasts.step_m, is_there=False),
        ],
    }
    below = {
        "interval": step,
        "input_series": [
            {"series": name, "values": s.values(lasts, is_nearly=True)} for name, s in case.series.items()
        ],
        "promql_expr_test": [_asked(f"count_over_time({found}[{end}m])", end - lasts.step_m, is_there=False)],
    }
    file = FILES[case.alert == "ObjectiveBurn"]
    said = _promtool(tmp_path, file, step, [fires, below])
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_tells_what_to_do() -> None:
    """Who is woken, what it is, and a section of the runbooks; nothing else decides between page and ticket."""
    sections = {
        line.lstrip("#").strip().lower()
        for line in (ROOT / "docs/runbooks.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("### ")
    }
    for alert in alerts():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        page, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert (page, section) == ("docs/runbooks.md", alert["alert"].lower())
        assert section in sections, f"docs/runbooks.md has no `### {alert['alert']}`"


def test_the_files_are_taken_by_their_programs(tmp_path: Path) -> None:
    """Prometheus's own check of its configuration, and Alertmanager's of its own."""
    for file in RULES.glob("*.yml"):
        text = file.read_text(encoding="utf-8").replace("/run/secrets/", f"{tmp_path}/")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    for name in ("metrics_token", "pager_token", "tickets_token"):
        (tmp_path / name).touch()
    for command in (
        ["promtool", "check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml")],
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *(str(tmp_path / name) for name in FILES)],
        ["amtool", "check-config", str(tmp_path / "alertmanager.yml")],
    ):
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
        assert said.returncode == 0, said.stdout + said.stderr


def test_a_circuit_that_is_half_open_for_moments_is_told_all_the_same(tmp_path: Path) -> None:
    """Each minute a probe may go: what is open but for that is open."""
    asked = 'ALERTS{alertname="CircuitOpen",alertstate="firing"}'
    flaps = " ".join(["1 1 stale stale"] * 10)
    test = {
        "interval": "1m",
        "input_series": [{"series": 'mcpfleet_circuits_open{node="a",server="git"}', "values": flaps}],
        "promql_expr_test": [_asked(asked, 30, is_there=True)],
    }
    said = _promtool(tmp_path, FILES[0], "1m", [test])
    assert said.returncode == 0, said.stdout + said.stderr


def test_what_alertmanager_inhibits_are_alerts() -> None:
    """A name that nothing fires under is a typing error."""
    form = yaml.safe_load((RULES / "alertmanager.yml").read_text(encoding="utf-8"))
    named = {
        name
        for rule in form["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
        if matcher.startswith("alertname")
        for name in matcher.partition('"')[2].rstrip('"').split("|")
    }
    assert named <= {alert["alert"] for alert in alerts()}


def _promtool(folder: Path, file: str, step: str, tests: Sequence[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    shutil.copy(RULES / file, folder)
    form = {"rule_files": [file], "evaluation_interval": step, "tests": list(tests)}
    (folder / "case.yml").write_text(yaml.safe_dump(form), encoding="utf-8")
    command = ["promtool", "test", "rules", str(folder / "case.yml")]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)


def _asked(selected: str, minute: int, *, is_there: bool) -> dict[str, Any]:
    """Whether anything is selected then."""
    samples = [{"labels": "{}", "value": 1}] if is_there else []
    return {"expr": f"count({selected}) > bool 0", "eval_time": f"{minute}m", "exp_samples": samples}


def _sums(steps: Sequence[float | None]) -> Iterator[float | None]:
    total = 0.0
    for step in steps:
        total += step or 0.0
        yield total


def _burnt(labels: str) -> tuple[str | None, str | None]:
    words = dict(word.partition("=")[::2] for word in labels.strip(",").split(",") if word)
    return tuple(words[key].strip('"') if key in words else None for key in ("objective", "factor"))  # type: ignore[return-value]
