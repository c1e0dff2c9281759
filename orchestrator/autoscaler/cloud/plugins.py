"""Opens a provider by its kind: an entry point of the group `mcpfleet.cloud`, ours or anybody's.

Owns the look-up and what is said when there is none. Knows no provider by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from orchestrator.autoscaler.cloud.provider import CloudProvider, OpenProvider, ProviderConfig
from tasks.errors import SettingsError, near

GROUP = "mcpfleet.cloud"


def open_provider(config: ProviderConfig, installed: Sequence[EntryPoint] | None = None) -> CloudProvider:
    """The provider of one `[providers.<name>]` table; talks to nobody yet.

    Args:
        config: the table.
        installed: entry points to choose from; those of the environment when absent.

    Raises:
        SettingsError: there is no such kind, it cannot be loaded, or an option is wrong.
    """
    points = list(entry_points(group=GROUP) if installed is None else installed)
    of_kind = {point.value: point for point in points if point.name == config.kind}
    if not of_kind:
        known = sorted({point.name for point in points})
        raise SettingsError(
            f"{config.place} is of kind {config.kind!r}, which nothing installed provides"
            f"{near(config.kind, known)}; there are {', '.join(known) or 'none'}"
        )
    if len(of_kind) > 1:
        raise SettingsError(
            f"{config.place} is of kind {config.kind!r}, which several plugins provide "
            f"({', '.join(sorted(of_kind))}); uninstall all but one"
        )
    return _loaded(config, next(iter(of_kind.values())))(config)


def _loaded(config: ProviderConfig, point: EntryPoint) -> OpenProvider:
    try:
        opener: OpenProvider = point.load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{config.place} is of kind {config.kind!r}, whose plugin {point.value} cannot be loaded "
            f"({error}); install what it needs"
        ) from error
    return opener
