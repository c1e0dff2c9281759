"""The autoscaler put together: clouds opened, its parts on registry, enrolment and sensors, its views.

Between domains that do not know each other. A fleet whose pools file scales nothing, and whose ledger knows
no machines of an earlier one, runs its rounds over nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from orchestrator.autoscaler.act.nodes import Registry
from orchestrator.autoscaler.act.userdata import UserData
from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider
from orchestrator.autoscaler.decide.decision import decide
from orchestrator.autoscaler.decide.limits import fit
from orchestrator.autoscaler.loop import ScaleLoop
from orchestrator.autoscaler.observe.sensors import Sensors
from orchestrator.autoscaler.parts import Machinery, Surroundings, autoscaler_of
from orchestrator.autoscaler.provision.provisioner import AnsibleProvisioner
from orchestrator.autoscaler.show.views import ScaleViews
from orchestrator.core import Core
from orchestrator.pools_change import change_policy
from orchestrator.sensing import sensors_of


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the rest of the orchestrator needs of it."""

    loop: ScaleLoop
    views: ScaleViews
    begin: Callable[[], None]
    """This process leads from now on."""
    clouds: Mapping[str, CloudProvider]

    async def close(self) -> None:
        """Let go of the clouds; machines stay."""
        for cloud in self.clouds.values():
            await cloud.close()


def scaling_of(
    core: Core, url_for_nodes: str, renew_every_s: float, environ: Mapping[str, str], registry: CollectorRegistry
) -> Scaling:
    """All of it; talks to nobody yet.

    Args:
        core: whose fleet it sizes.
        url_for_nodes: where machines reach this orchestrator.
        renew_every_s: how often nodes report.
        environ: of Ansible's runs, which get little of it.
        registry: of metrics.

    Raises:
        SettingsError: a provider's options are wrong, or its plugin is not installed.
    """
    policies, clock = core.policies, core.stores.clock
    clouds = {name: open_provider(config) for name, config in policies.providers.items()}
    sensing: list[Sensors] = []

    def sensors(made: Machinery) -> Sensors:
        sensing.append(sensors_of(core, core.claims, has_notice=made.notices.has, renew_every_s=renew_every_s))
        return sensing[0]

    ansible = policies.ansible
    nodes = Registry(find=core.roster.find, desk=core.desk, attempts_of=core.attempts.of_node)
    given = Surroundings(
        book=core.claims,
        pools=core.pool_book,
        log=core.stores.ledger,
        clouds=clouds,
        nodes=nodes,
        enroller=core.enroller,
        provisioner=AnsibleProvisioner(ansible.options, environ),
        user_data=UserData(ansible.options.user, ansible.public_key, policies.limits.machine_ttl_s),
        url_for_nodes=url_for_nodes,
        policies=policies.scaled,
        limits=policies.limits,
        leads=core.proof.holds,
        clock=clock,
    )
    made = autoscaler_of(given, sensors=sensors, decide=decide, fit=fit, registry=registry)
    views = ScaleViews(
        policies=policies.scaled,
        limits=policies.limits,
        claims=core.claims,
        pools=core.pool_book,
        books=core.stores.ledger,
        sight=made.loop,
        change=lambda policy, changes: change_policy(policy, changes, policies.providers),
        node_state=nodes.state_of,
        clock=clock,
    )
    return Scaling(made.loop, views, sensing[0].begin, clouds)
