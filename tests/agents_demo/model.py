"""Who the agent thinks with: a double that knows its part, or a real model where its key is in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.testing.messages_double import MessagesDouble, text

KEY_OF_THE_DOUBLE = "not-a-secret"
WRONG, RIGHT = "goods if goods > FREE_FROM", "goods if goods >= FREE_FROM"


@dataclass(frozen=True, slots=True)
class Model:
    """What of it goes into the sidecar's lines of the servers file."""

    name: str
    key: str = field(repr=False)
    told: str
    """For the person who watches."""
    entry: Mapping[str, Any]


def real(environ: Mapping[str, str]) -> Model | None:
    """The first of ANTHROPIC_API_KEY and GLM_API_KEY that is set; MCPFLEET_DEMO_MODEL names another model."""
    named = environ.get("MCPFLEET_DEMO_MODEL")
    if key := environ.get("ANTHROPIC_API_KEY"):
        name = named or "claude-sonnet-5"
        return Model(name, key, f"{name}, the real one: this costs money", {"model": name})
    if key := environ.get("GLM_API_KEY"):
        name = named or "glm-4.7"
        entry = {
            "model": name,
            "url": "https://api.z.ai/api/anthropic",
            "bearer": True,
            "environ": {"CLAUDE_CODE_MAX_CONTEXT_TOKENS": "200000"},
        }
        return Model(name, key, f"{name}, the real one behind Claude Code: this costs money", entry)
    return None


def scripted(url: str) -> Model:
    """The double at that address."""
    prices = {"a-double": {"input": 3.0, "output": 15.0}}
    told = "a double that knows its part (set ANTHROPIC_API_KEY or GLM_API_KEY for a real model)"
    return Model("a-double", KEY_OF_THE_DOUBLE, told, {"model": "a-double", "url": url, "prices": prices})


def double() -> MessagesDouble:
    """It looks, reads, mends, looks again; what it says is written down, what its tools do is real."""
    tests = "python3 -m unittest"
    return MessagesDouble(
        [
            [text("First I see what fails."), _use(1, "Bash", command=tests, description="Run the tests")],
            [text("Shipping at exactly 50. I read the code."), _use(2, "Read", file_path="/workspace/cart.py")],
            [
                text("Free *from* 50 on: the comparison leaves 50 itself out."),
                _use(3, "Edit", file_path="/workspace/cart.py", old_string=WRONG, new_string=RIGHT),
            ],
            [text("Once more."), _use(4, "Bash", command=tests, description="Run the tests again")],
            [text("Orders of exactly 50 paid for shipping; `>=` mends it. Both tests pass.")],
        ]
    )


def _use(number: int, name: str, **given: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": given}
