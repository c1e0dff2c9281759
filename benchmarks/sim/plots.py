"""Pictures of the runs: per trace the load, the machines and the waiting; and all rules by waiting and hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.sim.score import LIMITS, OURS, TARGET_S, Score
from benchmarks.sim.traces import HOUR_S, Drawn
from benchmarks.sim.world import Books

SHOWN = {"slo": "#0b6e4f", "threshold": "#c1440e", "HPA-like": "#7a5195", "clairvoyant": "#888888"}
WINDOW_S = 300.0
MARKERS = "osD^v<>PX*"


def slug(trace: str) -> str:
    """`hourly bursts` as a file name."""
    return trace.replace(" ", "-")


def draw_trace(drawn: Drawn, books: dict[str, Books], folder: Path) -> None:
    """Load, machines on the way or ready, and p95 of waiting, over the judged day."""
    plt = _pyplot()
    figure, (load, machines, waiting) = plt.subplots(3, 1, figsize=(9, 6.2), sharex=True, height_ratios=(1, 2, 2))
    hours, rates = _per_window(drawn.arrivals, drawn.trace.length_s)
    load.fill_between(hours, rates, step="post", color="#bbccdd")
    load.set_ylabel("calls/s")
    load.set_title(f"{drawn.trace.name}: one day (seed {drawn.seed}), machines of 4 slots, calls of 1.5 s")
    for rule, colour in SHOWN.items():
        style: dict[str, Any] = {"color": colour, "label": rule, "linewidth": 1.8 if rule == OURS else 1.1}
        style["linestyle"] = "--" if rule in LIMITS else "-"
        steps = _changes(books[rule].sizes)
        machines.step([at / HOUR_S for at, _ in steps], [live for _, live in steps], where="post", **style)
        hours, waits = _waits(drawn, books[rule])
        waiting.step(hours, waits, where="post", **style)
    machines.set_ylabel("machines")
    machines.set_ylim(0.0, 12.5)
    machines.legend(loc="upper left", fontsize=8, ncols=4)
    waiting.axhline(TARGET_S, color="black", linewidth=0.8, linestyle=":")
    waiting.set_yscale("symlog", linthresh=1.0)
    waiting.set_ylim(bottom=0.0)
    waiting.set_ylabel("p95 wait, s (5 min)")
    waiting.set_xlabel("hour of the day")
    figure.tight_layout()
    figure.savefig(folder / f"{slug(drawn.trace.name)}.png", dpi=85, metadata={"Software": None})
    plt.close(figure)


def draw_results(scores: list[Score], folder: Path) -> None:
    """Every rule as a point, per trace: left and low is better."""
    plt = _pyplot()
    traces = list(dict.fromkeys(one.trace for one in scores))
    rules = list(dict.fromkeys(one.rule for one in scores))
    figure, axes = plt.subplots(2, 4, figsize=(13, 6.4))
    for axis, trace in zip(axes.flat, traces, strict=False):
        for index, rule in enumerate(rules):
            for one in (one for one in scores if one.trace == trace and one.rule == rule):
                colour = SHOWN.get(rule, f"C{index}")
                size = 90 if rule == OURS else 40
                axis.scatter(one.billed_h, one.wait_p95_s, marker=MARKERS[index], color=colour, s=size, label=rule)
        axis.set_title(trace, fontsize=10)
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(bottom=-0.2)
        axis.set_xlim(left=0.0)
        axis.axhline(TARGET_S, color="black", linewidth=0.8, linestyle=":")
    for axis in axes.flat[len(traces) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, loc="center", fontsize=9, frameon=False)
    figure.supxlabel("machine-hours billed")
    figure.supylabel("p95 of waiting, s")
    figure.tight_layout()
    figure.savefig(folder / "results.png", dpi=80, metadata={"Software": None})
    plt.close(figure)


def _pyplot() -> Any:  # noqa: ANN401 -- the library's module
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _changes(sizes: list[tuple[float, int, int]]) -> list[tuple[float, int]]:
    return [
        (at, live)
        for index, (at, _, live) in enumerate(sizes)
        if index in {0, len(sizes) - 1} or live != sizes[index - 1][2]
    ]


def _per_window(times: list[float], length_s: float) -> tuple[list[float], list[float]]:
    counts = [0] * (int(length_s / WINDOW_S) + 1)
    for at in times:
        counts[int(at / WINDOW_S)] += 1
    return [index * WINDOW_S / HOUR_S for index in range(len(counts) - 1)], [count / WINDOW_S for count in counts[:-1]]


def _waits(drawn: Drawn, books: Books) -> tuple[list[float], list[float]]:
    windows: list[list[float]] = [[] for _ in range(int(drawn.trace.length_s / WINDOW_S) + 1)]
    for at, wait in zip(drawn.arrivals, books.waits, strict=True):
        windows[int(at / WINDOW_S)].append(wait)
    found = [(index * WINDOW_S / HOUR_S, sorted(waits)) for index, waits in enumerate(windows) if waits]
    return [hour for hour, _ in found], [waits[int(0.95 * len(waits))] for _, waits in found]
