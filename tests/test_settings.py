"""Settings are read at once, and everything wrong with them is told at once."""

import pytest

from settings import Mode, SettingsError, read

COMPLETE = {
    "COFFER_DATABASE_URL": "postgresql://coffer_app:secret@127.0.0.1/coffer",
    "COFFER_PLATFORM_DATABASE_URL": "postgresql://coffer_platform:secret@127.0.0.1/coffer",
    "COFFER_RECORDER_DATABASE_URL": "postgresql://coffer_recorder:secret@127.0.0.1/coffer",
    "COFFER_VAULT_ADDR": "https://vault.example.org:8200",
    "COFFER_VAULT_API_ROLE_ID": "role",
    "COFFER_VAULT_API_SECRET_ID": "hidden",
    "COFFER_ISSUER": "https://crm.example.org",
    "COFFER_AUDIT_STORE": "s3://coffer-audit",
    "COFFER_BROKER_URL": "amqps://coffer:secret@broker.example.org:5671/",
}


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read({})

    named = {line.split()[0] for line in str(refused.value).splitlines()}
    assert named == set(COMPLETE)


def test_the_least_that_is_needed_is_enough_and_means_production() -> None:
    settings = read(COMPLETE)

    assert settings.mode is Mode.PRODUCTION
    assert settings.database_url == "postgresql+asyncpg://coffer_app:secret@127.0.0.1/coffer"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COFFER_DATABASE_URL", "postgresql://coffer_app:hunter2@db.example.org/coffer"),
        ("COFFER_DATABASE_URL", "mysql://coffer_app:hunter2@127.0.0.1/coffer"),
        ("COFFER_VAULT_ADDR", "http://hunter2.example.org:8200"),
        ("COFFER_ISSUER", "http://hunter2.example.org"),
        ("COFFER_PORT", "hunter2"),
        ("COFFER_AUDIT_STORE", "https://hunter2.example.org"),
        ("COFFER_AUDIT_STORE", "file://hunter2"),
        ("COFFER_VAULT_CA_FILE", "/nowhere/hunter2.pem"),
        ("COFFER_VAULT_API_SECRET_ID_FILE", "/nowhere/hunter2"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_never_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read({**COMPLETE, name: value})

    assert str(refused.value).startswith(name)
    assert "hunter2" not in str(refused.value)


def test_settings_print_no_secret() -> None:
    shown = repr(read(COMPLETE))

    assert "hidden" not in shown
    assert "secret@" not in shown


def test_metrics_have_a_port_in_production_and_none_in_development_unless_told() -> None:
    development = {**COMPLETE, "COFFER_ENV": "development"}
    told = read({**development, "COFFER_METRICS_PORT": "9500"})
    ports = [settings.metrics_port for settings in (read(COMPLETE), read(development), told)]

    assert ports == [9464, None, 9500]
    assert told.metrics_host == "127.0.0.1"
