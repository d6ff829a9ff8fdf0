"""docker-compose.yml names nothing that settings, `deploy/` or `deploy/secrets.sh` do not know."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
README = (ROOT / "README.md").read_text()
STEPS = README.partition("## Run it in production")[2].partition("\n## ")[0]
OURS = ("api", "worker", "migrate")
_ROLES = ("API", "PROVISIONER", "ROTATOR", "BACKUP")
ONCE = ("migrate",)  # ends by itself, so nothing asks for its health


def variables(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}


def mounted(service: str) -> dict[str, str]:
    """The paths at which a service finds its secrets, each with the secret's name."""
    listed = [each if isinstance(each, dict) else {"source": each} for each in SERVICES[service].get("secrets", [])]
    return {each.get("target", f"/run/secrets/{each['source']}"): each["source"] for each in listed}


def started(service: str) -> str:
    """All that a service is started with, and the files of ours that it reads."""
    definition = {key: value for key, value in SERVICES[service].items() if key != "secrets"}
    sources = [ROOT / volume.split(":")[0] for volume in definition.get("volumes", []) if volume.startswith("./")]
    return str(definition) + "".join(path.read_text() for path in sources if path.is_file())


@pytest.mark.parametrize("service", OURS)
def test_settings_know_every_variable(service: str) -> None:
    known = (ROOT / "settings.py").read_text()
    roles = {f"COFFER_VAULT_{role}_{part}" for role in _ROLES for part in ("ROLE_ID", "SECRET_ID")}
    named = {name.removesuffix("_FILE") for name in variables(service) if name.startswith("COFFER_")}
    unread = {name for name in named - roles if f'"{name}"' not in known}
    files = {name for name in variables(service) if f'"{name}"' in known and name.endswith("_CA_FILE")}
    assert unread - {name.removesuffix("_FILE") for name in files} == set()


@pytest.mark.parametrize("service", OURS)
def test_readme_tells_of_every_variable(service: str) -> None:
    ours = {name for name in variables(service) if name.startswith(("AWS_", "SSL_", "COFFER_STORE_", "COFFER_AUDIT_"))}
    assert {name for name in ours if name not in README} == set()


def test_every_secret_is_made_by_the_script_or_by_a_step_of_readme(secrets: Path) -> None:
    made = {path.name for path in secrets.iterdir()}
    needed = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    needed |= {Path(file).name for service in SERVICES.values() for file in [service.get("env_file")] if file}
    told = {f"vault_{role}_{part}" for role in map(str.lower, _ROLES) for part in ("role_id", "secret_id")}
    assert needed - made == told
    assert "for role in api provisioner rotator backup" in STEPS
    assert all(f"secrets/vault_${{role}}_{part}" in STEPS for part in ("role_id", "secret_id"))


def test_every_file_that_is_mounted_exists() -> None:
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = [ROOT / volume.split(":")[0] for volume in volumes if volume.startswith(".")]
    assert files
    assert [path for path in files if not path.exists()] == []
    named = {volume.split(":")[0] for volume in volumes if not volume.startswith(".")}
    assert named == set(COMPOSE["volumes"])


@pytest.mark.parametrize("service", SERVICES)
def test_every_secret_that_a_service_reads_is_mounted_and_known(service: str) -> None:
    read = set(re.findall(r"/run/secrets/\w+", started(service)))
    if "20-database.sh" in started(service):
        read |= {f"/run/secrets/{role}_password" for role in ("owner", "app", "platform", "recorder")}
    if service == "store":
        read |= set(re.findall(r"/run/secrets/\w+", (ROOT / "deploy" / "store" / "setup.sh").read_text()))
    assert read - set(mounted(service)) == set()
    assert set(mounted(service).values()) - set(COMPOSE["secrets"]) == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_secret_that_it_does_not_read(service: str) -> None:
    needless = {path for path in mounted(service) if path.startswith("/run/secrets/") and path not in started(service)}
    if service == "postgres":
        needless -= {f"/run/secrets/{role}_password" for role in ("owner", "app", "platform", "recorder")}
    if service == "store":
        needless -= {"/run/secrets/store_env"}
    assert needless == set()


@pytest.mark.parametrize("service", [name for name in SERVICES if name not in ONCE])
def test_every_service_that_stays_has_a_health_check(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_waits_for_is_there_and_can_come(service: str) -> None:
    for name, wish in SERVICES[service].get("depends_on", {}).items():
        assert wish["condition"] == ("service_completed_successfully" if name in ONCE else "service_healthy")
        assert name in SERVICES


def test_postgres_is_healthy_only_once_its_scripts_have_run() -> None:
    """While they run it listens on its socket alone."""
    assert "-h, 127.0.0.1" in str(SERVICES["postgres"]["healthcheck"]["test"]).replace("'", "")


def test_the_store_is_reached_over_tls_by_the_name_in_its_certificate() -> None:
    for service in ("api", "worker"):
        assert variables(service)["AWS_ENDPOINT_URL"] == "https://store:9000"
        assert mounted(service)[variables(service)["SSL_CERT_FILE"]] == "ca"
        assert SERVICES[service]["env_file"] == "./secrets/store.env"
    targets = mounted("store")
    assert (targets["/certs/public.crt"], targets["/certs/private.key"]) == ("store_cert", "store_key")
    assert "--certs-dir /certs" in SERVICES["store"]["command"]


def test_readmes_steps_name_commands_and_scripts_that_exist() -> None:
    scripts = set(re.findall(r"deploy/[\w./-]+\.(?:sh|sql)", STEPS))
    assert {"deploy/secrets.sh", "deploy/vault/setup.sh", "deploy/store/setup.sh"} <= scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    services = set(re.findall(r"docker compose exec (?:-\S+(?: \S+=\S+)? )*(\w+)", STEPS))
    assert services
    assert services <= set(SERVICES)
