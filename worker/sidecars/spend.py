"""Tokens to money. Pure: prices are configured, figures are the provider's own.

Source of the fields: Anthropic Messages API, `usage` (`message_start` has the input, `message_delta` the
output so far, both cumulative within one message); chat completions API, `usage` (once, at the end of an answer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.sidecars.sidecar import Usage

PER_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float
    cache_read: float = 0.0
    cache_write: float = 0.0

    def of(self, usage: Usage) -> float:
        """US dollars."""
        parts = (
            usage.input * self.input,
            usage.output * self.output,
            usage.cache_read * self.cache_read,
            usage.cache_write * self.cache_write,
        )
        return sum(parts) / PER_TOKENS


@dataclass(frozen=True, slots=True)
class Prices:
    """By model; a name that begins with another (`claude-sonnet-5-20260801`) has its price."""

    by_model: Mapping[str, Price] = field(default_factory=dict)

    def of(self, model: str) -> Price | None:
        """The longest name that the model's begins with; None where nobody said."""
        fitting = [name for name in self.by_model if model.startswith(name)]
        return self.by_model[max(fitting, key=len)] if fitting else None

    def billed(self, answered: str, asked: str) -> tuple[str, Price | None]:
        """Under which name a request counts, and its price: the model that answered, or else that was asked.

        A gateway may answer with a name of its own that nobody priced.
        """
        for name in (answered, asked):
            if name and (price := self.of(name)) is not None:
                return name, price
        return answered or asked, None


def usage_of(said: Mapping[str, Any]) -> Usage:
    """The provider's `usage`; what is absent, null or no number counts as none."""
    if "prompt_tokens" in said:
        return _of_chat(said)
    return Usage(
        _tokens(said, "input_tokens"),
        _tokens(said, "output_tokens"),
        _tokens(said, "cache_read_input_tokens"),
        _tokens(said, "cache_creation_input_tokens"),
    )


def _of_chat(said: Mapping[str, Any]) -> Usage:
    """Its prompt's tokens hold those that were cached."""
    details = said.get("prompt_tokens_details")
    asked = _tokens(said, "prompt_tokens")
    cached = min(asked, _tokens(details, "cached_tokens")) if isinstance(details, Mapping) else 0
    return Usage(asked - cached, _tokens(said, "completion_tokens"), cached)


def _tokens(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    return value if isinstance(value, int) and value > 0 else 0
