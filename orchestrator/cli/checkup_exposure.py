"""Doctor: what a fleet that others can reach must not leave open. A fleet of one machine may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from orchestrator.cli.findings import Finding, Health, is_loopback
from tasks.errors import FleetError
from tasks.settings import value_of

OK, WARN, FAIL, SKIP = Health.OK, Health.WARN, Health.FAIL, Health.SKIP
OFF = frozenset({"false", "0", "no", "off"})


def check_sealing(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Deliveries and stored secrets, where the orchestrator's settings are on this machine."""
    if not is_shared(environ):
        return
    if environ.get("MCPFLEET_SEAL_DELIVERIES", "").lower() in OFF:
        mend = "unset MCPFLEET_SEAL_DELIVERIES: whoever reads Redis reads arguments and results"
        yield Finding(check="sealing", health=FAIL, detail="deliveries are not sealed", mend=mend)
    elif not environ.get("MCPFLEET_KEY_FILE"):
        mend = "make one and set MCPFLEET_KEY_FILE: docs/secrets.md"
        yield Finding(check="sealing", health=WARN, detail="no key file: no secret can be kept", mend=mend)
    else:
        yield Finding(check="sealing", health=OK, detail="deliveries are sealed, and there are keys for secrets")


def check_flower(environ: Mapping[str, str], local_url: str) -> Iterator[Finding]:
    """The Flower whose settings are here, or the local fleet's."""
    from orchestrator.flower.process import fault, fault_at
    from orchestrator.flower.settings import ORCHESTRATORS, PREFIX, read_flower_settings

    try:
        if any(name.startswith(PREFIX) and name not in ORCHESTRATORS for name in environ):
            why = fault(read_flower_settings(environ))
        elif local_url:
            parts = urlsplit(local_url)
            login = (parts.username or "", parts.password or "")
            why = fault_at(f"{parts.scheme}://{parts.hostname}:{parts.port}", login)
        else:
            return
    except FleetError as error:
        why = error.message
    if why:
        mend = "look at its log; MCPFLEET_FLOWER_* say where it listens and its login: docs/flower.md"
        yield Finding(check="flower", health=FAIL, detail=why, mend=mend)
    else:
        yield Finding(check="flower", health=OK, detail="answers to its login, and to nobody else")


def is_shared(environ: Mapping[str, str]) -> bool:
    """Whether the orchestrator's settings are here, and others reach it or its Redis."""
    host = environ.get("MCPFLEET_HOST", "127.0.0.1")
    try:
        url = value_of(environ, "MCPFLEET_REDIS_URL")
    except FleetError:
        url = None  # found by the check of the broker
    redis = urlsplit(url or "redis://127.0.0.1").hostname or "127.0.0.1"
    return not (is_loopback(host) and is_loopback(redis))
