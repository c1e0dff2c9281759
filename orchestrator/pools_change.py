"""A pool's policy with some fields as they would be, under the same rules as the pools file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from orchestrator.autoscaler.cloud.provider import ProviderConfig
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.pools_scale import read_scale_policy
from orchestrator.pools_table import Place
from tasks.errors import InvalidCall, SettingsError

PLACE = Place(Path("--set"))
"""Stands in messages where the file's name would: what the command line calls it."""


def change_policy(
    policy: ScalePolicy, changes: Mapping[str, object], providers: Mapping[str, ProviderConfig]
) -> ScalePolicy:
    """The policy with these fields; of `triggers`, those that are named.

    Raises:
        InvalidCall: a field is unknown or wrong, with its name and what to write.
    """
    if not changes:
        return policy
    table = TypeAdapter(ScalePolicy).dump_python(policy, mode="json")
    del table["pool"]
    triggers = changes.get("triggers")
    merged = {"triggers": {**table["triggers"], **triggers}} if isinstance(triggers, Mapping) else {}
    try:
        return read_scale_policy(PLACE, policy.pool, {**table, **changes, **merged}, providers)
    except SettingsError as error:
        raise InvalidCall(error.message) from error
