"""`deploy/secrets.sh` makes certificates that clients accept, and changes nothing that is there."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from settings import read
from tests.deploy.conftest import make


@pytest.mark.parametrize("name", ["postgres", "rabbitmq", "openbao", "store"])
@pytest.mark.parametrize("host", ["-verify_hostname={}", "-verify_hostname=localhost", "-verify_ip=127.0.0.1"])
def test_a_servers_certificate_is_verified_by_the_ca(secrets: Path, name: str, host: str) -> None:
    option, _, value = host.format(name).partition("=")
    purpose = ["-x509_strict", "-purpose", "sslserver", option, value]
    verified = subprocess.run(
        [
            str(shutil.which("openssl")),
            "verify",
            "-CAfile",
            str(secrets / "ca.pem"),
            *purpose,
            str(secrets / f"{name}.pem"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_it_keeps_what_is_there_and_adds_what_is_missing(tmp_path: Path) -> None:
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "store.pem").unlink()
    make(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"store.pem", "store.key"}
    assert set(before) == set(after)


def test_only_the_folders_owner_may_look_into_it_and_the_cas_key_is_for_nobody_else(secrets: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [secrets, *secrets.iterdir()]}
    assert modes.pop(secrets.name) == 0o700
    assert modes.pop("ca.key") == 0o600
    assert modes.pop(".gitignore") == 0o644
    assert set(modes.values()) == {0o444}  # containers read them as users of their own


def test_no_two_passwords_are_alike(secrets: Path) -> None:
    words = [path.read_text().strip() for path in secrets.glob("*_password")]
    assert len(set(words)) == len(words) == 6


def test_production_accepts_the_urls(secrets: Path) -> None:
    files = ("database_url", "platform_database_url", "recorder_database_url", "owner_database_url", "broker_url")
    given = {f"COFFER_{name.upper()}_FILE": str(secrets / name) for name in files}
    others = {
        "COFFER_VAULT_ADDR": "https://openbao:8200",
        "COFFER_VAULT_CA_FILE": str(secrets / "ca.pem"),
        "COFFER_VAULT_API_ROLE_ID": "role",
        "COFFER_VAULT_API_SECRET_ID": "word",
        "COFFER_ISSUER": "https://crm.example.org",
        "COFFER_AUDIT_STORE": "s3://coffer-audit/main",
        "COFFER_MAIL_URL": "smtps://mail.example.org",
        "COFFER_MAIL_FROM": "coffer@crm.example.org",
    }
    settings = read(given | others)
    assert str(settings.owner_database_url).startswith("postgresql+asyncpg://coffer_owner:")
    assert settings.database_url.endswith("@postgres:5432/coffer?ssl=verify-full")
