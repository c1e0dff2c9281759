"""The plugin that docs/clouds.md shows, as it stands there, and the inventory service that it speaks to."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from orchestrator.autoscaler.cloud.plugins import GROUP, open_provider
from orchestrator.autoscaler.cloud.provider import CloudProvider, Machine, ProviderConfig
from orchestrator.autoscaler.testing.faulty_http import Answer, Asked, Fault, FaultyServer, json_answer
from tests.contract.cloud_rigs import SECRET, Rig
from tests.contract.cloud_suite import CLUSTER, Trouble

PAGE = Path(__file__).resolve().parents[2] / "docs/clouds.md"
MODULE = "our_shelf"


class ShelfRig(Rig):
    """A machine per claim, by PUT."""

    kind = "shelf"
    can = frozenset({Trouble.LOST, Trouble.EMPTY})
    secrets = (SECRET,)

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._machines: dict[str, dict[str, object]] = {}
        self.http = FaultyServer(self._reply, lambda asked: asked.method)
        example = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
        (self.folder / f"{MODULE}.py").write_text(example)
        request.getfixturevalue("monkeypatch").syspath_prepend(self.folder)
        sys.modules.pop(MODULE, None)

    def options(self) -> Mapping[str, object]:
        """As the page's dataclass has them."""
        return {"url": self.http.url, "token_env": "T"}

    def environ(self) -> Mapping[str, str]:
        """With the token."""
        return {"T": SECRET}

    def open(self) -> CloudProvider:
        """By the entry point that the page shows, as if it were installed."""
        config = ProviderConfig("shelf", self.kind, self.options(), self.folder / "state", self.environ())
        return open_provider(config, [EntryPoint(self.kind, f"{MODULE}:open_shelf", GROUP)])

    def there(self, cluster: str = CLUSTER) -> int:
        """On the shelf."""
        return sum(form["cluster"] == cluster for form in self._machines.values())

    def make(self, trouble: Trouble, machine: Machine | None = None) -> None:
        """By the service."""
        fault = Fault(is_carried_out=True) if trouble is Trouble.LOST else Fault(Answer(409))
        self.http.meet("PUT", fault)

    def close(self) -> None:
        """Stop."""
        self.http.close()
        sys.modules.pop(MODULE, None)

    def _reply(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {SECRET}":
            return Answer(401)
        match asked.method:
            case "GET":
                return json_answer(200, list(self._machines.values()))
            case "DELETE":
                self._machines.pop(asked.query.get("claim", [""])[0], None)
                return json_answer(200, None)
        claim, form = asked.path.rpartition("/")[2], json.loads(asked.body)
        if form["type"]:
            return Answer(422)
        return json_answer(200, self._machines.setdefault(claim, form | {"claim": claim}))
