"""moto's EC2 behind a front that keeps two of EC2's promises that moto does not, and that goes wrong on demand.

moto makes a new instance for a ClientToken it has seen, and no spot requests for instances on spot: the
front answers a repeated token as EC2 documents it, and the question for spot requests by itself. Faults
are those of `faulty_http`. boto3 speaks to the front over HTTP as it does to Amazon.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import httpx

from orchestrator.autoscaler.testing.faulty_http import Answer, Asked, Fault, FaultyServer

XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"
STARTS_WITHIN_S = 60.0
RUN, LIST = "RunInstances", "DescribeInstances"
OPERATIONS = (RUN, LIST, "TerminateInstances", "DescribeInstanceTypes")
STRICT = {"MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1", "MOTO_ENABLE_AMI_VALIDATION": "1"}
SHAPING = frozenset({"ClientToken"})
"""Not part of what a token stands for."""


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """The server that moto ships as a process, so that nothing of it is near boto3; ended by its pid."""
    program = Path(sys.executable).with_name("moto_server")
    environ = {"PATH": os.defpath, "HOME": str(log.parent), **STRICT}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", "0"], stdout=said, stderr=said, env=environ, cwd=log.parent
        )
    try:
        yield _url(process, log)
    finally:
        process.terminate()
        process.wait(STARTS_WITHIN_S)


@functools.cache
def moto_client(moto_url: str) -> Any:
    """boto3 straight to moto: what is really there."""
    return boto3.client(
        "ec2",
        region_name="eu-central-1",
        endpoint_url=moto_url,
        aws_access_key_id="not-a-key",
        aws_secret_access_key="not-a-secret",
    )


def living(moto_url: str, cluster: str) -> list[str]:
    """Instances with the cluster's tag that are not terminated, as moto itself says."""
    found = moto_client(moto_url).describe_instances(Filters=[{"Name": "tag:mcpfleet-cluster", "Values": [cluster]}])
    return [
        str(instance["InstanceId"])
        for reservation in found["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "terminated"
    ]


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Once it says where it listens."""
    tick = threading.Event()
    for _ in range(int(STARTS_WITHIN_S / 0.1)):
        found = re.search(r"Running on (http://[\d.:]+)", log.read_text())
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        tick.wait(0.1)
    raise TimeoutError(log.read_text())


class Ec2Front:
    """One account, for one test."""

    def __init__(self, moto_url: str) -> None:
        self.http = FaultyServer(self._reply, lambda asked: _form(asked).get("Action", ""))
        self.words = "as told"
        """In every error."""
        self.created: list[str] = []
        """Instances, in the order in which they were made."""
        self._http = httpx.Client(base_url=moto_url, timeout=30, trust_env=False)
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[dict[str, str], Answer]] = {}
        self._hidden_after: int | None = None
        self._marked: list[str] = []

    def lag(self, is_on: bool) -> None:
        """Instances made from now on are in no list, until it is over."""
        self._hidden_after = len(self.created) if is_on else None

    def mark(self, instance_id: str) -> None:
        """EC2 takes it back in two minutes."""
        self._marked.append(instance_id)

    def fail(self, operation: str, code: str, status: int, *, times: int = 1, retry_after_s: int | None = None) -> None:
        """So many requests are answered with this error, and not carried out."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.http.meet(operation, Fault(error(status, code, headers, self.words)), times)

    def close(self) -> None:
        """Stop."""
        self.http.close()
        self._http.close()

    def _reply(self, asked: Asked) -> Answer:
        form = _form(asked)
        match form.get("Action"):
            case "RunInstances":
                with self._lock:
                    return self._run(asked, form)
            case "DescribeSpotInstanceRequests":
                return _spot_requests(self._marked)
            case "DescribeInstances" if self._hidden_after is not None and "InstanceId.1" not in form:
                return _without(self._passed(asked), set(self.created[self._hidden_after :]))
        return self._passed(asked)

    def _run(self, asked: Asked, form: dict[str, str]) -> Answer:
        """A token stands for its parameters.

        Source: https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html.
        """
        token = form.get("ClientToken", "")
        wanted = {key: value for key, value in form.items() if key not in SHAPING}
        if token in self._tokens:
            before, answer = self._tokens[token]
            return answer if before == wanted else error(400, "IdempotentParameterMismatch")
        answer = self._passed(asked)
        made = re.findall(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.body)
        self.created += [each.decode() for each in made]
        if token and made:
            self._tokens[token] = (wanted, answer)
        return answer

    def _passed(self, asked: Asked) -> Answer:
        headers = {name: value for name, value in asked.headers.items() if name not in {"host", "content-length"}}
        answer = self._http.request(asked.method, asked.path, content=asked.body, headers=headers)
        return Answer(answer.status_code, answer.content, {"Content-Type": "text/xml"})


def error(status: int, code: str, headers: dict[str, str] | None = None, words: str = "no") -> Answer:
    """EC2's form of an error."""
    body = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{words}</Message></Error></Errors>"
        "<RequestID>0</RequestID></Response>"
    )
    return Answer(status, body.encode(), {"Content-Type": "text/xml", **(headers or {})})


def _form(asked: Asked) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(asked.body.decode(), keep_blank_values=True).items()}


def _without(answer: Answer, hidden: set[str]) -> Answer:
    """The same list without these instances."""
    tree = ET.fromstring(answer.body)
    named = {"aws": tree.tag.partition("}")[0].strip("{")}
    for holder in tree.iter(f"{{{named['aws']}}}instancesSet"):
        for item in list(holder):
            if item.findtext("aws:instanceId", namespaces=named) in hidden:
                holder.remove(item)
    return Answer(answer.status, ET.tostring(tree), answer.headers)


def _spot_requests(marked: list[str]) -> Answer:
    items = "".join(
        f"<item><spotInstanceRequestId>sir-{n:08d}</spotInstanceRequestId><instanceId>{each}</instanceId>"
        "<state>active</state><status><code>marked-for-termination</code>"
        "<updateTime>2026-01-01T00:00:00.000Z</updateTime></status></item>"
        for n, each in enumerate(marked)
    )
    body = (
        f'<DescribeSpotInstanceRequestsResponse xmlns="{XMLNS}"><requestId>0</requestId>'
        f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet></DescribeSpotInstanceRequestsResponse>"
    )
    return Answer(200, body.encode(), {"Content-Type": "text/xml"})
