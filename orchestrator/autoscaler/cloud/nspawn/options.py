"""The `[providers.<name>]` table of kind `local-vps`, read and checked.

Owns every option, its unit and its default. Refuses to look whether images or bridges are there: that is
asked when a machine is ordered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.wanted import Problem, wanted
from tasks.errors import SettingsError, near

MIB = 1024 * 1024
PREFIXES = range(16, 30)
"""Sizes of a subnet: from 65,534 addresses to 6."""
UNSAFE = frozenset(",:\\")
"""Separate words in the options of an overlay mount."""


class MachineType(BaseModel):
    """What one machine may use of its host. Enforced from outside, by its control group."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cpus: int = Field(default=1, ge=1)
    memory_bytes: int = Field(default=1024 * MIB, ge=128 * MIB)
    price_eur_h: float | None = Field(default=0.0, ge=0)
    billing_s: float = Field(default=1.0, gt=0)


class Options(BaseModel):
    """All of the table but its kind.

    Attributes:
        image: folder of a root file system, or a name from `images`; what a rung without an image boots.
        images: names for rungs, each with its folder.
        types: what rungs may name; one that names none gets the first.
        region: the one that its machines are in.
        max_machines: the quota.
        bridge: one that is there already and has an IPv4 address; its network is used, and it is left as it is.
        subnet: else: of a bridge of our own, which comes and goes with the machines; a free one by default.
        stop_s: a machine may shut down for so long before its processes are killed.
        has_uplink: machines send what is not for their network to the bridge, and get the host's resolvers.
            Forwarding and address translation are the operator's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    image: str = ""
    images: Mapping[str, Path] = Field(default_factory=dict)
    types: Mapping[str, MachineType] = Field(default_factory=lambda: {"small": MachineType()}, min_length=1)
    region: str = "local"
    max_machines: int = Field(4, ge=1, le=200)
    bridge: str = Field("", max_length=15)
    subnet: ipaddress.IPv4Network | None = None
    stop_s: float = Field(10.0, ge=0, le=40)
    has_uplink: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Options:
        if self.bridge and self.subnet:
            raise ValueError("give `bridge` (its own network is used) or `subnet`, not both")
        if self.subnet and (not self.subnet.is_private or self.subnet.prefixlen not in PREFIXES):
            raise ValueError(f"subnet {self.subnet} should be a private one between /16 and /29")
        return self

    def folder(self, image: str) -> Path:
        """Of an image that is named in a rung, or of the default; `.` where there is none."""
        wanted = image or self.image
        return Path(self.images.get(wanted, wanted))


def read(place: str, table: Mapping[str, object]) -> Options:
    """The table as options; `place` is it in messages.

    Raises:
        SettingsError: one is unknown or wrong.
    """
    try:
        return Options.model_validate(dict(table))
    except ValidationError as error:
        raise SettingsError(f"{place} {'; '.join(_said(each) for each in error.errors())}") from None


def _said(problem: Problem) -> str:
    option = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{option} is not an option of 'local-vps'{near(option, list(Options.model_fields))}"
    return f"{option} is {repr(problem['input'])[:80]}: {wanted(problem)}" if option else wanted(problem)
