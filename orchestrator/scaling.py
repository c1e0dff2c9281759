"""The autoscaler put together: clouds opened, its parts on registry, enrolment and sensors, its views.

Between domains that do not know each other. A fleet whose pools file scales nothing gets no loop.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from orchestrator.autoscaler.cloud.plugins import open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider
from orchestrator.autoscaler.decide import decide
from orchestrator.autoscaler.limits import fit
from orchestrator.autoscaler.loop import ScaleLoop
from orchestrator.autoscaler.nodes import Registry
from orchestrator.autoscaler.parts import Machinery, Surroundings, autoscaler_of
from orchestrator.autoscaler.provision import AnsibleOptions, AnsibleProvisioner
from orchestrator.autoscaler.sensors import Sensors
from orchestrator.autoscaler.userdata import UserData
from orchestrator.autoscaler.views import NotRunning, ScaleViews, Sight
from orchestrator.core import Core
from orchestrator.pools_change import change_policy
from orchestrator.sensing import sensors_of
from orchestrator.settings import OrchestratorSettings
