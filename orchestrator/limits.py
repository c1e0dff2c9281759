"""The orchestrator's settings, in the words of each part that needs some of them."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from ipaddress import ip_network

from orchestrator.api.edges import EdgeRules, networks_of
from orchestrator.api.settings import ApiSettings, hosts_for
from orchestrator.front.settings import LOOPBACK_HOSTS, LOOPBACK_ORIGINS, FrontSettings
from orchestrator.policy.zones import Zones
from orchestrator.registry.terms import Terms
from orchestrator.settings import OrchestratorSettings
from tasks.errors import SettingsError
from tasks.redis_tls import RedisTls, with_tls
from tasks.redis_url import parse
from tasks.retry import RetryPolicy

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def retry_policy(settings: OrchestratorSettings) -> RetryPolicy:
    """Of calls and tools that declare none."""
    return RetryPolicy(settings.retry_attempts, settings.retry_first_wait_s, cap_s=settings.retry_cap_s)


def terms_of(settings: OrchestratorSettings) -> Terms:
    """What every node is told at join.

    Raises:
        SettingsError: the address of Redis is wrong.
    """
    secret = settings.pool_secret or settings.join_token
    redis_url = (settings.redis_url_for_nodes or settings.redis_url).get_secret_value()
    parse(redis_url)  # a wrong one is to stop this start, not that of every node
    return Terms(
        redis_url=redis_url,
        lease_ttl_s=settings.lease_ttl_s,
        renew_every_s=settings.renew_every_s,
        inline_limit_bytes=settings.inline_limit_bytes,
        result_limit_bytes=settings.result_limit_bytes,
        pool_secret=secret.get_secret_value().encode(),
        capsule_limit_bytes=settings.capsule_limit_bytes,
    )


def seal_secret(settings: OrchestratorSettings) -> bytes:
    """What keys of sealed messages are derived from: never the join token, which nodes have."""
    return (settings.pool_secret or settings.token).get_secret_value().encode()


def redis_url_of(settings: OrchestratorSettings) -> str:
    """As this process reaches it.

    Raises:
        SettingsError: files for TLS without a `rediss://` address.
    """
    files = RedisTls(settings.redis_ca, settings.redis_cert, settings.redis_key)
    return with_tls(settings.redis_url.get_secret_value(), files)


def scheme_of(settings: OrchestratorSettings) -> str:
    """Of the doors."""
    return "https" if settings.tls else "http"


def url_for_nodes(settings: OrchestratorSettings, address: str) -> str:
    """Where a machine that is ordered finds this fleet, without a slash at the end.

    Args:
        settings: as read.
        address: HOST:PORT of the doors.
    """
    return (settings.url_for_nodes or f"{scheme_of(settings)}://{address}").rstrip("/")


def _hosts(settings: OrchestratorSettings) -> tuple[str, ...]:
    return tuple(host.strip() for host in settings.allowed_hosts.split(",") if host.strip())


def _origins(settings: OrchestratorSettings) -> tuple[str, ...]:
    """Pages that may ask: of this machine, of the names the fleet is served under, and those that are listed."""
    listed = (origin.strip().rstrip("/") for origin in settings.allowed_origins.split(","))
    served = [f"https://{host}" for host in _hosts(settings)]
    if settings.tls:  # the console's own forms: of this machine, and under the fleet's names with its own port
        served += [f"https{origin.removeprefix('http')}" for origin in LOOPBACK_ORIGINS]
        served += [f"https://{host}:{settings.port}" for host in _hosts(settings)]
    return (*LOOPBACK_ORIGINS, *served, *(one for one in listed if one))


def _is_metrics_open(settings: OrchestratorSettings) -> bool:
    if settings.open_metrics is not None:
        return settings.open_metrics
    return hosts_for(settings.host) is not None and not settings.trusted_proxies


def front_settings(settings: OrchestratorSettings) -> FrontSettings:
    """Of the MCP door."""
    named = _hosts(settings)
    return FrontSettings(
        version=version("mcpfleet"),
        sse_path="/sse" if settings.sse else None,
        allowed_hosts=(*LOOPBACK_HOSTS, *named, *(f"{host}:*" for host in named)),
        allowed_origins=_origins(settings),
        body_limit_bytes=settings.payload_limit_bytes,
        inline_window_s=settings.task_after_s,
    )


def api_settings(settings: OrchestratorSettings) -> ApiSettings:
    """Of the HTTP door."""
    hosts = hosts_for(settings.host)
    return replace(
        ApiSettings(),
        allowed_hosts=hosts and hosts | frozenset(_hosts(settings)),
        blob_limit_bytes=max(settings.result_limit_bytes, settings.capsule_limit_bytes),
        is_metrics_open=_is_metrics_open(settings),
        edges=EdgeRules(
            origins=_origins(settings),
            proxies=networks_of(settings.trusted_proxies, "MCPFLEET_TRUSTED_PROXIES"),
            networks=networks_of(settings.allowed_networks, "MCPFLEET_ALLOWED_NETWORKS"),
        ),
        version=version("mcpfleet"),
        trace_url=settings.trace_url,
    )


def zones_of(settings: OrchestratorSettings) -> Zones:
    """How much a connection is trusted.

    Raises:
        SettingsError: a network is none.
    """
    named = [one.strip() for one in settings.trusted_networks.split(",") if one.strip()]
    try:
        networks = tuple(ip_network(one) for one in named)
    except ValueError as error:
        raise SettingsError(f"MCPFLEET_TRUSTED_NETWORKS: {error}; write networks as 10.0.0.0/8") from error
    proxies = networks_of(settings.trusted_proxies, "MCPFLEET_TRUSTED_PROXIES")
    is_proxied = any(proxy.overlaps(one) for proxy in proxies for one in LOOPBACK if proxy.version == one.version)
    return Zones(networks, settings.trust_loopback and not is_proxied)
