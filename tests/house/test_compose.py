"""docker-compose.yml, as far as it can be checked without Docker. `make compose-test` starts it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compose.bases import STANDS_IN
from tests.compose.stack import BY_HAND, NOT_MADE

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (make setup)")
OURS = {"orchestrator", "worker", "flower", "backup"}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")
ANSWERS_WITHIN_S = 120


@pytest.fixture
def text(root: Path) -> str:
    """As it is written."""
    return (root / "docker-compose.yml").read_text()


@pytest.fixture
def compose(text: str) -> dict[str, Any]:
    """The file, merged, with the default of each variable in its place."""
    form: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda found: found[2] or "", text))
    return form


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """What `deploy/compose-secrets` needs, elsewhere."""
    shutil.copytree(root / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets"))
    return tmp_path


def test_everything_named_is_there(compose: dict[str, Any], root: Path) -> None:
    """A service depends on services that exist, mounts what is declared or there, joins networks that are declared."""
    services = compose["services"]
    mounts = [entry for service in services.values() for entry in service.get("volumes", []) if ":" in entry]
    sources = {entry.partition(":")[0] for entry in mounts}
    folders = {"./deploy/grafana/provisioning", "./deploy/grafana/dashboards"}  # Grafana starts with them empty
    files = [source for source in sources - folders if source.startswith("./")]
    files += [service["build"]["dockerfile"] for service in services.values() if "build" in service]
    assert {name for service in services.values() for name in service.get("depends_on", [])} <= set(services)
    assert {source for source in sources if not source.startswith((".", "/"))} <= set(compose["volumes"])
    assert {name for service in services.values() for name in service["networks"]} == set(compose["networks"])
    assert {name for service in services.values() for name in service.get("secrets", [])} == set(compose["secrets"])
    assert not [file for file in files if not (root / file).exists()]


def test_every_variable_has_a_default_and_is_explained(text: str, root: Path) -> None:
    """`.env` can be left out; what it offers is what the file asks for, with the same defaults."""
    asked = dict(VARIABLE.findall(text))
    example = (root / "deploy/compose.env.example").read_text()
    offered = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    images = {"MCPFLEET_IMAGE", "MCPFLEET_NODE_IMAGE", "MCPFLEET_BACKUP_IMAGE"}  # of who builds elsewhere
    assert "" not in asked.values()
    assert {name: value for name, value in asked.items() if name not in images} == {
        name: value for name, value in offered.items() if name != "COMPOSE_PROJECT_NAME"
    }


def test_one_port_is_published_and_on_loopback(compose: dict[str, Any]) -> None:
    """Nothing is exposed by accident; data and metrics have no way out."""
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"proxy": ["127.0.0.1:8443:8443"]}
    assert all(compose["networks"][name].get("internal") for name in ("broker", "ledger", "metrics", "pages"))
    assert compose["services"]["postgres"]["networks"] == ["ledger"]
    assert compose["services"]["redis"]["networks"] == ["broker"]


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    """No root, no writable root, no capability, a limit on everything, a health check, logs that end."""
    for name, service in compose["services"].items():
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "cpus", "pids_limit", "healthcheck", "logging"} <= set(service), name
        assert service["cpus"] <= 1, f"{name}: a host with one processor refuses more"


def test_it_is_what_both_versions_of_compose_take(compose: dict[str, Any]) -> None:
    """Version 1 knows no top-level name and no configs outside a swarm, and would leave `deploy` out."""
    assert set(compose) <= {"services", "networks", "volumes", "secrets", "x-service", "x-ours"}
    assert not [name for name, service in compose["services"].items() if {"deploy", "configs"} & set(service)]


def test_settings_it_sets_exist(compose: dict[str, Any]) -> None:
    """An unknown MCPFLEET_ variable stops a start: find it here first. Secrets come as files."""
    from orchestrator.flower.settings import VARIABLES
    from orchestrator.settings import OrchestratorSettings
    from worker.settings import NodeSettings

    known = {
        "orchestrator": {f"MCPFLEET_{field.upper()}" for field in OrchestratorSettings.model_fields},
        "worker": {f"MCPFLEET_NODE_{field.upper()}" for field in NodeSettings.model_fields},
        "flower": set(VARIABLES),
    }
    known["backup"] = known["orchestrator"] | {"BACKUPS_KEPT"}
    for name, fields in known.items():
        asked = compose["services"][name]["environment"]
        assert not [variable for variable in asked if not {variable, variable.removesuffix("_FILE")} & fields]


def test_no_secret_stands_in_an_environment(compose: dict[str, Any]) -> None:
    """What is a secret names its file, and the service is given that file."""
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE"):
                assert Path(value).parent == Path("/run/secrets"), variable
                assert Path(value).name in service["secrets"], f"{name}: {variable}"
            else:
                assert not re.search(r"PASSWORD|TOKEN|SECRET|LOGIN|DATABASE_URL$", variable), f"{name}: {variable}"


def test_a_node_has_time_to_drain(compose: dict[str, Any]) -> None:
    """Docker's grace is longer than everything the process does after SIGTERM; then it kills, and outcomes are lost."""
    from worker.drain import SETTLE_S, STOP_S

    worker = compose["services"]["worker"]
    drain_s = float(worker["environment"]["MCPFLEET_NODE_DRAIN_S"])
    assert float(worker["stop_grace_period"].removesuffix("s")) > drain_s + STOP_S + SETTLE_S + SETTLE_S


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/kubernetes/overlays/small/redis.yaml"])
def test_redis_knows_its_users_as_the_code_does(root: Path, file: str) -> None:
    """The rules of both are those that `mcpfleet redis acl` would print."""
    from orchestrator.redis_users import FLOWER, MANAGES, ORCHESTRATOR

    lines = [
        line.strip() for line in (root / file).read_text().splitlines() if line.strip().startswith("user mcpfleet")
    ]
    rules = {line.split()[1]: line.partition(") ")[2] for line in lines}
    assert rules == {"mcpfleet": " ".join((*ORCHESTRATOR, *MANAGES)), "mcpfleet.flower": " ".join(FLOWER)}


def test_flower_has_no_credential_of_the_orchestrators(compose: dict[str, Any]) -> None:
    """What opens every queue is not where a web application runs."""
    services = compose["services"]
    assert not set(services["flower"]["secrets"]) & set(services["orchestrator"]["secrets"])


def test_what_is_tested_is_what_is_written(compose: dict[str, Any]) -> None:
    """`make compose-test` has a stand-in under the name of every image that is not ours, or says that it has none."""
    theirs = {service["image"] for name, service in compose["services"].items() if name not in OURS | NOT_MADE.keys()}
    assert theirs == {image for image in STANDS_IN if not image.startswith("python:")}


def test_what_up_does_not_start_is_what_has_a_profile(compose: dict[str, Any]) -> None:
    """The test that starts the file runs these by hand."""
    assert {name for name, service in compose["services"].items() if "profiles" in service} == BY_HAND


def test_secrets_are_made_once(checkout: Path, compose: dict[str, Any]) -> None:
    """All that the file names, in a closed folder; a second time nothing changes, and nothing is printed."""
    script = [str(checkout / "deploy" / "compose-secrets")]
    first = subprocess.run(script, check=True, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S)
    folder = checkout / "deploy" / "secrets"
    made = {file.name: file.read_text() for file in folder.iterdir()}
    assert set(made) == {*compose["secrets"], "ca.pem"}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not [name for name, value in made.items() if value.strip() in first.stdout]
    (checkout / ".env").write_text("DOMAIN=fleet.example.com\n")
    subprocess.run(script, check=True, capture_output=True, timeout=ANSWERS_WITHIN_S)
    assert {file.name: file.read_text() for file in folder.iterdir()} == made
    assert (checkout / ".env").read_text() == "DOMAIN=fleet.example.com\n"


def test_the_certificate_is_for_the_name_that_is_asked_for(checkout: Path) -> None:
    """And its key file is one that the orchestrator reads."""
    from cryptography import x509

    from orchestrator.secrets.keyfile import read_keys

    (checkout / ".env").write_text("DOMAIN=fleet.example.com\nSECRETS_DIR=./elsewhere\n")
    script = [str(checkout / "deploy" / "compose-secrets")]
    subprocess.run(script, check=True, capture_output=True, timeout=ANSWERS_WITHIN_S)
    folder = checkout / "elsewhere"
    leaf, authority = x509.load_pem_x509_certificates((folder / "tls_cert").read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example.com", "localhost"]
    leaf.verify_directly_issued_by(authority)
    assert (folder / "ca.pem").read_text() in (folder / "tls_cert").read_text()
    (folder / "key_file").chmod(0o400)
    assert read_keys(folder / "key_file").kids


def test_a_build_gets_what_it_copies_and_no_more(root: Path) -> None:
    """`.dockerignore` shuts everything out but what deploy/Dockerfile names."""
    lines = (root / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!").rstrip("/") for line in lines if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", (root / "deploy/Dockerfile").read_text(), re.MULTILINE)
    sources = {re.sub("^(deploy/docker)/.*", r"\1", source) for words in copies for source in words.split()}
    assert "*" in lines
    assert sources == let_in


def test_it_has_the_form_of_the_specification(root: Path) -> None:
    """By the schema of the Compose specification."""
    check = shutil.which("check-jsonschema", path=str(root / ".venv/bin")) or shutil.which("check-jsonschema")
    if check is None:
        pytest.skip("check-jsonschema is not installed (make setup)")
    words = [check, "--builtin-schema", "vendor.compose-spec", str(root / "docker-compose.yml")]
    told = subprocess.run(words, check=False, capture_output=True, text=True, timeout=ANSWERS_WITHIN_S)
    assert told.returncode == 0, told.stdout + told.stderr


def test_compose_itself_takes_it(root: Path, checkout: Path) -> None:
    """Whichever version is installed."""
    words = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    shutil.copy(root / "docker-compose.yml", checkout)
    try:
        told = subprocess.run(
            [*words, "-f", "docker-compose.yml", "config", "-q"],
            cwd=checkout,
            check=False,
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
        )
    except FileNotFoundError:
        pytest.skip("Docker Compose is not installed (apt-get install docker-compose)")
    if "is not a docker command" in told.stderr:
        pytest.skip("Docker Compose is not installed (apt-get install docker-compose)")
    assert told.returncode == 0, told.stderr
