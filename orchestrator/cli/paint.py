"""Colours and words for states and reasons; one place, so every screen says the same."""

from __future__ import annotations

from rich.text import Text

from tasks.invocation import State
from tasks.node import NodeState

_STATES = {
    State.WAITING: ("◌", "yellow"),
    State.RELEASED: ("◐", "cyan"),
    State.RUNNING: ("●", "cyan"),
    State.UNREACHABLE: ("?", "magenta"),
    State.SUCCEEDED: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.CANCELLED: ("⊘", "dim"),
    State.EXPIRED: ("⧗", "red"),
    State.LOST: ("!", "bold red"),
}
_NODES = {
    NodeState.ACTIVE: "green",
    NodeState.CORDONED: "yellow",
    NodeState.DRAINING: "yellow",
    NodeState.LOST: "bold red",
    NodeState.LEFT: "dim",
}
_BAR_CELLS = 8


def state(value: State) -> Text:
    """`✓ succeeded`, in its colour. The word alone where it is piped."""
    glyph, style = _STATES[value]
    return Text(f"{glyph} {value}", style)


def ending(value: str | None) -> Text:
    """How an attempt ended; the words that are no states (disowned, superseded) are dim."""
    if value is None:
        return Text("open", "cyan")
    try:
        return state(State(value))
    except ValueError:
        return Text(f"↺ {value}", "dim")


def node_state(value: NodeState) -> Text:
    """A node's state in its colour."""
    return Text(value, _NODES[value])


def paused(is_paused: bool) -> Text:
    """`paused`, loudly, or nothing."""
    return Text("paused", "bold yellow") if is_paused else Text("")


def meter(used: int, room: int, *, has_bar: bool = True) -> Text:
    """`▰▰▱▱▱▱▱▱ 2/8`: what is taken of what there is."""
    share = 0.0 if room <= 0 else min(1.0, used / room)
    full = min(_BAR_CELLS, round(share * _BAR_CELLS) or (1 if used else 0))
    style = "red" if share >= 1 else "yellow" if share > 0.75 else "green"  # noqa: PLR2004 - three colours
    if not has_bar:
        return Text(f"{used}/{room}", style)
    return Text.assemble(("▰" * full, style), ("▱" * (_BAR_CELLS - full), "dim"), f" {used}/{room}")


def tool(name: str) -> Text:
    """`server.tool` with the server quiet."""
    server, dot, rest = name.partition(".")
    return Text.assemble((f"{server}{dot}", "dim"), (rest, "bold")) if dot else Text(name, "bold")
