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
    "COFFER_MAIL_URL": "smtps://coffer:secret@mail.example.org:465",
    "COFFER_MAIL_FROM": "coffer@crm.example.org",
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
        ("COFFER_LIMITS_URL", "redis://:hunter2@redis.example.org:6379/0"),
        ("COFFER_LIMITS_URL", "rediss://:hunter2@redis.example.org:6380/0?ssl_cert_reqs=none"),
        ("COFFER_RATE_PERCENT", "hunter2"),
        ("COFFER_RATE_PERCENT", "-1"),
        ("COFFER_SIGN_UP", "hunter2"),
        ("COFFER_EGRESS_ALLOW", "hunter2.example.org:8080"),
        ("COFFER_VAULT_API_SECRET_ID_FILE", "/nowhere/hunter2"),
        ("COFFER_MAIL_URL", "console:"),
        ("COFFER_MAIL_URL", "https://hunter2@mail.example.org"),
        ("COFFER_MAIL_URL", "smtps://coffer:hunter2@mail.example.org:465?verify=no"),
        ("COFFER_MAIL_FROM", "Coffer <hunter2@example.org>"),
        ("COFFER_PORTAL_URL", "http://hunter2.example.org"),
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


def test_nobody_signs_up_and_limits_hold_unless_told() -> None:
    told = read({**COMPLETE, "COFFER_SIGN_UP": "true", "COFFER_RATE_PERCENT": "0"})

    assert [(each.sign_up, each.rate_percent) for each in (read(COMPLETE), told)] == [(False, 100), (True, 0)]


def test_in_development_letters_are_printed_unless_told() -> None:
    settings = read(
        {**{name: value for name, value in COMPLETE.items() if "MAIL" not in name}, "COFFER_ENV": "development"}
    )

    assert (settings.mail_url, settings.portal_url) == ("console:", None)


def test_places_inside_are_reached_in_development_alone() -> None:
    inside = {"COFFER_ENV": "development", "COFFER_EGRESS_ALLOW": "127.0.0.1:9000, Login.Local:80"}

    assert read({**COMPLETE, **inside}).egress_allow == {"127.0.0.1:9000", "login.local:80"}
    for bad in ("http://127.0.0.1:9000", "127.0.0.1", "127.0.0.1:9000/x", "a b:1"):
        with pytest.raises(SettingsError, match="COFFER_EGRESS_ALLOW"):
            read({**COMPLETE, **inside, "COFFER_EGRESS_ALLOW": bad})
