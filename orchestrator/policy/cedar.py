"""Cedar's engine behind one pure question. Nothing else knows it.

An error in any policy is a no: the engine itself passes by a `forbid` that it cannot evaluate, and would say yes.
Source: Cedar 4 through cedarpy 4.12.2, whose maker is not Cedar's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cedarpy

from orchestrator.policy.question import Attribute, Decision, Question
from orchestrator.policy.schema import SCHEMA
from tasks.errors import SettingsError

KEPT = 16_384
"""Answers remembered: about 10 MB. They depend on nothing but the question and the policies."""
_SCHEMA = cedarpy.Schema.from_str(SCHEMA)


class Rules:
    """A set of policies that was checked. Frozen."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Parse and check.

        Args:
            texts: by name of the file.

        Raises:
            SettingsError: one is no Cedar, names what the schema does not have, or lacks an `@id` of its own.
        """
        self._ids: dict[str, str] = {}
        whole = "\n".join(_checked(name, text) for name, text in sorted(texts.items()))
        self._policies = cedarpy.PolicySet.from_str(whole)
        forms = json.loads(cedarpy.policies_to_json_str(whole))["staticPolicies"]
        for key, form in forms.items():
            own = (form.get("annotations") or {}).get("id")
            if not own:
                raise SettingsError(f'a policy lacks its id: write @id("a-name") before each permit and forbid ({key})')
            if own in self._ids.values():
                raise SettingsError(f"two policies have the id {own!r}; each needs one of its own")
            self._ids[key] = own
        self.decide = lru_cache(KEPT)(self._decide)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all policies, as they stand in the files."""
        return tuple(self._ids.values())

    def _decide(self, question: Question) -> Decision:
        thing, who = question.thing, question.who
        request = {
            "principal": _uid("Principal", f"{who.tenant}/{who.id}"),
            "action": _uid("Action", question.action),
            "resource": _uid(thing.kind, thing.id),
            "context": {"trust": who.trust, **{name: _value(value) for name, value in question.context}},
        }
        parents = [
            _uid("Tenant", who.tenant),
            *(_uid("Role", role) for role in sorted(who.roles)),
            *(_uid("Group", f"{who.tenant}/{group}") for group in sorted(who.groups)),
        ]
        entities = [
            {
                "uid": _uid("Principal", f"{who.tenant}/{who.id}"),
                "attrs": {"id": who.id, "tenant": who.tenant},
                "parents": parents,
            },
            {
                "uid": _uid(thing.kind, thing.id),
                "attrs": {name: _value(value) for name, value in thing.attributes},
                "parents": [] if thing.parent is None else [_uid(*thing.parent)],
            },
        ]
        result = cedarpy.is_authorized(request, self._policies, entities, _SCHEMA)
        rules = tuple(sorted(self._ids.get(key, key) for key in result.diagnostics.reasons))
        errors = tuple(str(error)[:300] for error in result.diagnostics.errors)
        return Decision(result.decision is cedarpy.Decision.Allow and not errors, rules, errors)


def _checked(name: str, text: str) -> str:
    try:
        found = cedarpy.validate_policies(text, _SCHEMA)
    except ValueError as error:
        raise SettingsError(f"{name} is no Cedar: {str(error)[:300]}") from error
    if not found.validation_passed:
        first = found.errors[0]
        raise SettingsError(f"{name}: {str(first.error)[:300]}; docs/policy.md lists what policies may speak of")
    return text


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _value(value: Attribute) -> Any:  # noqa: ANN401 - JSON
    return sorted(value) if isinstance(value, frozenset) else value
