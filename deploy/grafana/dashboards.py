"""The four dashboards, written beside this file by `make docs`: Fleet, Calls, Autoscaler and cost, Objectives.

Every expression of every panel is asked of a real Prometheus by tests/flow/test_prometheus.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from panels import Dashboard, Panel, Query, Row, form_of

FOLDER = Path(__file__).with_name("dashboards")
GOOD_AT_1 = (("red", None), ("green", 1.0))
BAD_AT_1 = (("green", None), ("red", 1.0))
SHARE = (("green", None), ("orange", 0.8), ("red", 0.95))
EVERY = "$__rate_interval"
OURS = 'job="mcpfleet"'
"""Nodes have metrics of the same names, of attempts; without this both would be added up."""


def quantiles(metric: str, by: str, where: str = "") -> tuple[Query, ...]:
    """p50, p95 and p99 of a histogram."""
    inner = f"sum by ({by}le) (rate({metric}_bucket{{{where}}}[{EVERY}]))"
    names = " ".join(f"{{{{{word.strip()}}}}}" for word in by.split(",") if word.strip())
    return tuple(
        Query(f"histogram_quantile({share}, {inner})", f"p{round(share * 100)} {names}".strip())
        for share in (0.5, 0.95, 0.99)
    )


FLEET = Dashboard(
    "mcpfleet-fleet",
    "mcpfleet / Fleet",
    "Nodes, lanes and the orchestrator itself: utilisation, saturation, errors.",
    (
        Row("Now", (
            Panel("Nodes that take work", (Query(f"sum(mcp_worker_health{{{OURS}}})"),), "Active, with a good lease.",
                  kind="stat", width=4, steps=GOOD_AT_1),
            Panel("Nodes lost", (Query('sum(mcpfleet_node_state{state="lost"}) or vector(0)'),),
                  "Their leases are over. Runbook: NodeLost.", kind="stat", width=4, steps=BAD_AT_1),
            Panel("Calls waiting", (Query('sum(mcp_task_queue_depth{kind="waiting"})'),), "In the ledger, due now.",
                  kind="stat", width=4),
            Panel("Oldest wait", (Query("max(mcp_oldest_wait_seconds)"),), "Minutes here are a queue that is stuck.",
                  unit="s", kind="stat", width=4, steps=(("green", None), ("orange", 10.0), ("red", 120.0))),
            Panel("Dead letters", (Query("max(mcpfleet_dead_letters)"),), "Nobody replayed or discarded them.",
                  kind="stat", width=4, steps=(("green", None), ("orange", 1.0), ("red", 50.0))),
            Panel("Ledger, Redis, leader",
                  (Query("min(mcpfleet_ledger_up)", "ledger"), Query("min(mcpfleet_broker_up)", "Redis"),
                   Query("max(mcpfleet_leading)", "leads")),
                  "1 is well.", kind="stat", width=4, steps=GOOD_AT_1),
        )),
        Row("Nodes and lanes", (
            Panel("Slots in use",
                  (Query('sum by (pool, lane) (mcpfleet_node_running{pool=~"$pool"})'
                         ' / (sum by (pool, lane) (mcpfleet_node_slots{pool=~"$pool"}) > 0)', "{{pool}} {{lane}}"),),
                  "Utilisation. Near 1 for long: too few nodes for what comes.", unit="percentunit", least=0, most=1),
            Panel("Released and not running",
                  (Query("sum by (node, lane) (mcpfleet_node_waiting)", "{{node}} {{lane}}"),),
                  "Saturation of a node: more than a handful means that its consumer is slow or deaf."),
            Panel("CPU of the machines", (Query('mcpfleet_node_cpu_ratio{pool=~"$pool"}', "{{node}}"),),
                  "As nodes say with each renewal.", unit="percentunit", least=0, most=1),
            Panel("Memory of the machines", (Query('mcpfleet_node_memory_ratio{pool=~"$pool"}', "{{node}}"),),
                  "As nodes say with each renewal.", unit="percentunit", least=0, most=1),
            Panel("Silence of nodes", (Query("mcpfleet_node_silent_seconds", "{{node}}"),),
                  "Since the last renewal: 2 s is usual, a lease is good for 7 s.", unit="s"),
            Panel("Clocks ahead", (Query("mcpfleet_node_clock_ahead_seconds", "{{node}}"),),
                  "A node's clock less the orchestrator's.", unit="s"),
            Panel("Circuits open", (Query("sum by (node, server) (mcpfleet_circuits_open)", "{{node}} {{server}}"),),
                  "Where nothing goes for now."),
            Panel("Credentials that fail",
                  (Query("sum by (server, state) (mcpfleet_sidecar_credential)", "{{server}} {{state}}"),),
                  "Of agents: spent ones come back by themselves, refused and missing ones need a person."),
        )),
        Row("The orchestrator", (
            Panel("Event loop, late turns", quantiles("mcpfleet_event_loop_lag_seconds", ""),
                  "Every call waits for it: beyond 50 ms something blocks.", unit="s"),
            Panel("Age of the leader's loops",
                  (Query("topk(5, mcpfleet_loop_age_seconds / mcpfleet_loop_period_seconds)", "{{loop}}"),),
                  "In periods of each: a few at most."),
            Panel("CPU", (Query(f'rate(process_cpu_seconds_total{{job="mcpfleet"}}[{EVERY}])', "{{instance}}"),),
                  "Cores: one process has one event loop, near 1 it is full."),
            Panel("Memory", (Query('process_resident_memory_bytes{job="mcpfleet"}', "{{instance}}"),),
                  "What grows, and what bounds it: docs/memory.md.", unit="bytes"),
        )),
    ),
    {"pool": "mcp_worker_health"},
)  # fmt: skip

CALLS = Dashboard(
    "mcpfleet-calls",
    "mcpfleet / Calls",
    "What callers ask for and get: rate, errors, duration, of doors and tools.",
    (
        Row("Calls", (
            Panel("Calls that ended",
                  (Query(f"sum by (state) (rate(mcp_requests_total{{{OURS}}}[{EVERY}]))", "{{state}}"),),
                  "By how.", unit="reqps", is_stacked=True),
            Panel("Accepted", (Query(f"sum(rate(mcp_accepted_total[{EVERY}]))", "accepted"),),
                  "More than ends for long: the backlog grows.", unit="reqps"),
            Panel("Wait for a slot", quantiles("mcp_queue_wait_seconds", "lane, "),
                  "Accepted, or due, to released. A dot is one call's trace.", unit="s", has_exemplars=True),
            Panel("Waiting and outstanding", (Query("sum by (kind) (mcp_task_queue_depth)", "{{kind}}"),),
                  "Delayed ones wait for their own time."),
            Panel("Why there", (Query(f"sum by (reason) (rate(mcp_placements_total[{EVERY}]))", "{{reason}}"),),
                  "The reason that decided each placement.", unit="reqps", is_stacked=True),
            Panel("How attempts end", (Query(f"sum by (ending) (rate(mcp_attempts_total[{EVERY}]))", "{{ending}}"),),
                  "More attempts than calls: retries, or lost nodes.", unit="reqps"),
        )),
        Row("Tools", (
            Panel("Calls by tool",
                  (Query(f'topk(10, sum by (tool) (rate(mcp_requests_total{{{OURS},tool=~"$tool"}}[{EVERY}])))',
                         "{{tool}}"),),
                  "The busiest ten.", unit="reqps"),
            Panel("Bad ends by tool",
                  (Query("topk(10, sum by (tool) (rate(mcp_requests_total"
                         f'{{{OURS},state=~"failed|lost|expired",tool=~"$tool"}}[{EVERY}])))', "{{tool}}"),),
                  "The worst ten.", unit="reqps"),
            Panel("Duration, p95 by tool",
                  (Query("topk(10, histogram_quantile(0.95, sum by (tool, le) "
                         f'(rate(mcp_request_duration_seconds_bucket{{{OURS},tool=~"$tool"}}[{EVERY}]))))',
                         "{{tool}}"),),
                  "Released to ended. A dot is one call's trace.", unit="s", has_exemplars=True),
            Panel("Errors by code", (Query(f"sum by (code) (rate(mcp_errors_total{{{OURS}}}[{EVERY}]))", "{{code}}"),),
                  "docs/errors.md says what each means.", unit="reqps"),
        )),
        Row("Doors", (
            Panel("Requests",
                  (Query(f"topk(10, sum by (door, operation) (rate(mcpfleet_door_requests_total[{EVERY}])))",
                         "{{door}} {{operation}}"),),
                  "Renewals of nodes are among them: one every two seconds each.", unit="reqps"),
            Panel("Errors",
                  (Query("sum by (door, status) "
                         f'(rate(mcpfleet_door_requests_total{{status=~"4xx|5xx|gone"}}[{EVERY}]))',
                         "{{door}} {{status}}"),),
                  "5xx is ours, 4xx the caller's, gone: the caller went first.", unit="reqps"),
            Panel("Duration, p95",
                  (Query("topk(10, histogram_quantile(0.95, sum by (door, operation, le) "
                         f"(rate(mcpfleet_door_seconds_bucket[{EVERY}]))))", "{{door}} {{operation}}"),),
                  "Waits that callers asked for are in it.", unit="s", has_exemplars=True, width=24),
        )),
        Row("As nodes see it", (
            Panel("Time in the tool, p95",
                  (Query("topk(10, histogram_quantile(0.95, sum by (tool, le) "
                         f'(rate(mcp_request_duration_seconds_bucket{{job="mcpfleet-node"}}[{EVERY}]))))',
                         "{{tool}}"),),
                  "Without the way there and back.", unit="s"),
            Panel("Outcomes not settled", (Query("sum by (node) (mcpfleet_journal_entries)", "{{node}}"),),
                  "In nodes' journals. They grow while the orchestrator or Redis is away."),
        )),
    ),
    {"tool": "mcp_requests_total"},
)  # fmt: skip

COST = Dashboard(
    "mcpfleet-cost",
    "mcpfleet / Autoscaler and cost",
    "Machines, why there are so many, what they cost, and what agents spend.",
    (
        Row("Machines", (
            Panel("Machines by state",
                  (Query('sum by (pool, state) (mcpfleet_scale_machines{pool=~"$pool"}) > 0', "{{pool}} {{state}}"),),
                  "Claims: ordered, booting, ready, draining.", is_stacked=True),
            Panel("Wanted", (Query("mcpfleet_scale_target_machines", "{{pool}}"),), "By the last decision."),
            Panel("Decisions",
                  (Query("sum by (pool, direction) "
                         f'(rate(mcpfleet_scale_decisions_total{{direction!="keep"}}[{EVERY}]))',
                         "{{pool}} {{direction}}"),),
                  "Up and down; often both is a pool that swings.", unit="cpm"),
            Panel("Order to ready, p90",
                  (Query("histogram_quantile(0.9, sum by (pool, provider, le) "
                         f"(rate(mcpfleet_scale_boot_seconds_bucket[{EVERY}])))", "{{pool}} {{provider}}"),),
                  "Boot and provisioning.", unit="s"),
            Panel("Came to nothing",
                  (Query(f"sum by (pool, why) (rate(mcpfleet_scale_failures_total[{EVERY}]))", "{{pool}} {{why}}"),),
                  "Orders that failed, machines that were lost."),
            Panel("Leaks", (Query("sum by (provider, why) (mcpfleet_scale_leaks_total)", "{{provider}} {{why}}"),),
                  "Machines under our tag that no claim accounted for. Runbook: LeakedMachine."),
        )),
        Row("What it sees", (
            Panel("Waiting, as the autoscaler sees it",
                  (Query("sum by (pool, lane) (mcpfleet_scale_seen_waiting)", "{{pool}} {{lane}}"),),
                  "Its first input."),
            Panel("Arrivals", (Query("sum by (pool, lane) (mcpfleet_scale_seen_arrivals_per_second)",
                                     "{{pool}} {{lane}}"),), "Of the last minute.", unit="reqps"),
            Panel("Wait p95, as it sees it", (Query("mcpfleet_scale_seen_wait_p95_seconds", "{{pool}} {{lane}}"),),
                  "Against the pool's objective.", unit="s"),
            Panel("Blind, or with alerts",
                  (Query("max by (pool) (mcpfleet_scale_blind)", "{{pool}} blind"),
                   Query("max by (pool) (mcpfleet_scale_alerts)", "{{pool}} alerts")),
                  "`mcpfleet scale explain` has the words."),
        )),
        Row("Money", (
            Panel("Machines, EUR an hour",
                  (Query("sum by (pool) (mcpfleet_scale_cost_eur_per_hour)", "{{pool}}"),
                   Query("mcpfleet_scale_budget_eur_per_hour", "{{pool}} budget")),
                  "Where prices are known.", unit="currencyEUR"),
            Panel("All machines against the budget",
                  (Query("sum(mcpfleet_scale_cost_eur_per_hour) / max(mcpfleet_scale_fleet_budget_eur_per_hour)"),),
                  "Of the fleet's own limit.", unit="percentunit", kind="gauge", least=0, most=1, steps=SHARE),
            Panel("Agents, USD an hour",
                  (Query(f"sum by (model) (rate(mcpfleet_agent_cost_usd_total[{EVERY}])) * 3600", "{{model}}"),),
                  "Of requests with a price; `mcpfleet cost` has projects.", unit="currencyUSD", is_stacked=True),
            Panel("Tokens", (Query(f"sum by (model, kind) (rate(mcpfleet_agent_tokens_total[{EVERY}]))",
                                   "{{model}} {{kind}}"),), "Cached ones cost less."),
        )),
    ),
    {"pool": "mcpfleet_scale_machines"},
)  # fmt: skip

OBJECTIVES = Dashboard(
    "mcpfleet-objectives",
    "mcpfleet / Objectives",
    "What is promised, how much of it is kept, and how fast error budgets go. docs/slo.md says what counts.",
    (
        Row("Of four weeks", (
            Panel("Good, of all",
                  (Query("1 - mcpfleet:objective_bad:ratio28d", "{{objective}}"),),
                  "Against the targets beside it.", unit="percentunit", kind="stat", width=8),
            Panel("Target", (Query("mcpfleet:objective:target", "{{objective}}"),), "What is promised.",
                  unit="percentunit", kind="stat", width=8),
            Panel("Error budget left",
                  (Query("1 - mcpfleet:objective_bad:ratio28d / on (objective) (1 - mcpfleet:objective:target)",
                         "{{objective}}"),),
                  "1 is untouched; below 0 the promise is broken: stop what is risky, mend first.",
                  unit="percentunit", kind="stat", width=8,
                  steps=(("red", None), ("orange", 0.0), ("green", 0.5))),
        )),
        Row("How fast it goes", (
            Panel("Burn rate, last hour",
                  (Query("mcpfleet:objective_bad:ratio1h / on (objective) (1 - mcpfleet:objective:target)",
                         "{{objective}}"),),
                  "1 spends the budget just in time; 14.4 wakes somebody, with the last 5 minutes agreeing."),
            Panel("Burn rate, last 6 hours",
                  (Query("mcpfleet:objective_bad:ratio6h / on (objective) (1 - mcpfleet:objective:target)",
                         "{{objective}}"),),
                  "6 wakes somebody."),
            Panel("Events", (Query(f"sum by (objective) (rate(mcpfleet_objective_events_total[{EVERY}]))",
                                   "{{objective}}"),),
                  "Samples a second: few of them make ratios jump."),
            Panel("Events that were not good",
                  (Query(f'sum by (objective) (rate(mcpfleet_objective_events_total{{verdict="bad"}}[{EVERY}]))',
                         "{{objective}}"),),
                  "What spends the budget."),
        )),
    ),
)  # fmt: skip

DASHBOARDS = {"fleet": FLEET, "calls": CALLS, "cost": COST, "objectives": OBJECTIVES}


def text(name: str) -> str:
    """One dashboard's file."""
    return json.dumps(form_of(DASHBOARDS[name]), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
