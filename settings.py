"""The only reader of the environment: frozen `Settings`, or one error that names every missing or bad variable."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

T = TypeVar("T")


class Mode(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SettingsError(Exception):
    """Each line names one variable and says what to do."""


@dataclass(frozen=True, slots=True)
class AppRole:
    role_id: str
    secret_id: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with. URLs may hold passwords, so they are not printed."""

    mode: Mode
    database_url: str = field(repr=False)
    platform_database_url: str = field(repr=False)
    recorder_database_url: str = field(repr=False)
    owner_database_url: str | None = field(repr=False)
    vault_address: str
    vault_ca_file: str | None
    transit_mount: str
    signing_key: str
    api_role: AppRole
    provisioner_role: AppRole | None
    rotator_role: AppRole | None = None  # None: this process rotates no key in the key store
    backup_role: AppRole | None = None  # None: this process makes no backups
    issuer: str
    host: str
    port: int
    cors_origins: tuple[str, ...]
    pool_size: int
    key_ttl_seconds: int
    log_level: str
    broker_url: str = field(repr=False, default="memory:")
    broker_ca_file: str | None = None
    broker_queue: str = "coffer"
    audit_store: str = field(repr=False, default_factory=lambda: _here("audit"))
    worker_threads: int = 8
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    otlp_endpoint: str | None = None
    otlp_ca_file: str | None = None
    mail_url: str = field(repr=False, default="console:")
    mail_from: str = "coffer@localhost"
    mail_ca_file: str | None = None
    portal_url: str | None = None  # None: the issuer's origin
    rate_percent: int = 100
    limits_url: str | None = field(repr=False, default=None)
    limits_ca_file: str | None = None
    sign_up: bool = False
    egress_allow: frozenset[str] = frozenset()
    backup_stores: tuple[str, ...] = ()  # of which a backup's shards take the first ones; empty: no backups
    backup_coding: str = "rs:4+2"


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises `SettingsError`. A value may stand in a file instead: COFFER_X_FILE names it, as Docker secrets do."""
    source = _Source(environment)
    mode = source.get("COFFER_ENV", "production", _mode)
    settings = {
        "mode": mode,
        "database_url": source.get("COFFER_DATABASE_URL", None, _database(mode)),
        "platform_database_url": source.get("COFFER_PLATFORM_DATABASE_URL", None, _database(mode)),
        "recorder_database_url": source.get("COFFER_RECORDER_DATABASE_URL", None, _database(mode)),
        "owner_database_url": source.get("COFFER_OWNER_DATABASE_URL", "", _optional(_database(mode))),
        "vault_address": source.get("COFFER_VAULT_ADDR", None, _vault),
        "vault_ca_file": source.get("COFFER_VAULT_CA_FILE", "", _optional(_file)),
        "transit_mount": source.get("COFFER_TRANSIT_MOUNT", "transit", str),
        "signing_key": source.get("COFFER_SIGNING_KEY", "coffer-access", str),
        "api_role": source.role("COFFER_VAULT_API"),
        "provisioner_role": source.optional_role("COFFER_VAULT_PROVISIONER"),
        "rotator_role": source.optional_role("COFFER_VAULT_ROTATOR"),
        "backup_role": source.optional_role("COFFER_VAULT_BACKUP"),
        "issuer": source.get("COFFER_ISSUER", None, _origin),
        "host": source.get("COFFER_HOST", "127.0.0.1", str),
        "port": source.get("COFFER_PORT", "8000", _port),
        "cors_origins": source.get("COFFER_CORS_ORIGINS", "", _origins),
        "pool_size": source.get("COFFER_POOL_SIZE", "10", _positive),
        "key_ttl_seconds": source.get("COFFER_KEY_TTL_SECONDS", "300", _positive),
        "audit_store": source.get(
            "COFFER_AUDIT_STORE", None if mode is Mode.PRODUCTION else _here("audit"), _audit_store
        ),
        "log_level": source.get("COFFER_LOG_LEVEL", "INFO", _level),
        "broker_url": source.get("COFFER_BROKER_URL", None if mode is Mode.PRODUCTION else "memory:", _broker(mode)),
        "broker_ca_file": source.get("COFFER_BROKER_CA_FILE", "", _optional(_file)),
        "broker_queue": source.get("COFFER_BROKER_QUEUE", "coffer", _filled),
        "worker_threads": source.get("COFFER_WORKER_THREADS", "8", _positive),
        "metrics_host": source.get("COFFER_METRICS_HOST", "127.0.0.1", _filled),
        "metrics_port": source.get("COFFER_METRICS_PORT", "9464" if mode is Mode.PRODUCTION else "", _optional(_port)),
        "otlp_endpoint": source.get("COFFER_OTLP_ENDPOINT", "", _optional(_origin)),
        "otlp_ca_file": source.get("COFFER_OTLP_CA_FILE", "", _optional(_file)),
        "mail_url": source.get("COFFER_MAIL_URL", None if mode is Mode.PRODUCTION else "console:", _mail(mode)),
        "mail_from": source.get(
            "COFFER_MAIL_FROM", None if mode is Mode.PRODUCTION else "coffer@localhost", _mail_address
        ),
        "mail_ca_file": source.get("COFFER_MAIL_CA_FILE", "", _optional(_file)),
        "portal_url": source.get("COFFER_PORTAL_URL", "", _optional(_origin)),
        "rate_percent": source.get("COFFER_RATE_PERCENT", "100", _percent),
        "limits_url": source.get("COFFER_LIMITS_URL", "", _optional(_redis)),
        "limits_ca_file": source.get("COFFER_LIMITS_CA_FILE", "", _optional(_file)),
        "sign_up": source.get("COFFER_SIGN_UP", "false", _switch),
        "backup_stores": source.get(
            "COFFER_BACKUP_STORES", "" if mode is Mode.PRODUCTION else _backup_folders(), _backup_stores
        ),
        "backup_coding": source.get("COFFER_BACKUP_CODING", "rs:4+2", _coding),
        "egress_allow": source.get("COFFER_EGRESS_ALLOW", "", _places(mode)),
    }
    if source.problems:
        raise SettingsError("\n".join(source.problems))
    return Settings(**settings)  # type: ignore[arg-type]  # every value was parsed above, or we raised


def read_owner_database_url(environment: Mapping[str, str] = os.environ) -> str:
    """All that a migration needs, so that whoever migrates holds no key of the key store. Raises `SettingsError`."""
    source = _Source(environment)
    mode = source.get("COFFER_ENV", "production", _mode)
    url = source.get("COFFER_OWNER_DATABASE_URL", None, _database(mode))
    if url is None:
        raise SettingsError("\n".join(source.problems))
    return url


class _Source:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def get(self, name: str, default: str | None, parse: Callable[[str], T]) -> T | None:
        """None where it is missing or bad; then `problems` says so. A bad value is never repeated: it may be secret."""
        try:
            text = self._text(name, default)
        except OSError:
            self.problems.append(f"{name}_FILE names a file that can't be read.")
            return None
        if text is None:
            self.problems.append(f"{name} is missing; see README, Settings.")
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{name} {error}.")
            return None

    def role(self, prefix: str) -> AppRole:
        role_id = self.get(f"{prefix}_ROLE_ID", None, _filled)
        secret_id = self.get(f"{prefix}_SECRET_ID", None, _filled)
        return AppRole(role_id or "", secret_id or "")

    def optional_role(self, prefix: str) -> AppRole | None:
        names = (f"{prefix}_ROLE_ID", f"{prefix}_SECRET_ID")
        given = any(name in self._environment or f"{name}_FILE" in self._environment for name in names)
        return self.role(prefix) if given else None

    def _text(self, name: str, default: str | None) -> str | None:
        if f"{name}_FILE" in self._environment:
            return Path(self._environment[f"{name}_FILE"]).read_text().strip()
        return self._environment.get(name, default)


def _mode(text: str) -> Mode:
    if text not in list(Mode):
        raise ValueError("must be production or development")
    return Mode(text)


def is_loopback(host: str | None) -> bool:
    return host in (None, "", "localhost", "127.0.0.1", "::1")


def _database(mode: Mode | None) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in ("postgresql", "postgresql+asyncpg") or not parts.username or len(parts.path) < 2:
            raise ValueError("must read postgresql://role:password@host:port/database")
        tls = {"require", "verify-ca", "verify-full"} if mode is not Mode.PRODUCTION else {"verify-ca", "verify-full"}
        query = parse_qs(parts.query)
        asked = query.get("sslmode", query.get("ssl", [""]))[0]
        if not is_loopback(parts.hostname) and asked not in tls:
            raise ValueError("must end in ?sslmode=verify-full: beyond loopback Postgres is reached over verified TLS")
        # asyncpg's dialect calls libpq's sslmode `ssl`
        return text.replace("postgresql://", "postgresql+asyncpg://", 1).replace("sslmode=", "ssl=")

    return parse


def _broker(mode: Mode | None) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        if text == "memory:":
            if mode is Mode.PRODUCTION:
                raise ValueError("may be memory: in development only; in production use amqps:// or rediss://")
            return text
        if parts.scheme not in ("amqp", "amqps", "redis", "rediss") or not parts.hostname:
            raise ValueError("must read amqps://user:password@host:port/vhost or rediss://user:password@host:port/0")
        if parts.scheme not in ("amqps", "rediss") and not is_loopback(parts.hostname):
            raise ValueError("must begin with amqps:// or rediss:// beyond loopback")
        if parts.query:
            raise ValueError("takes no options, because some of them would weaken TLS")
        return text

    return parse


def _redis(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError("must read rediss://user:password@host:port/0")
    if parts.scheme != "rediss" and not is_loopback(parts.hostname):
        raise ValueError("must begin with rediss:// beyond loopback")
    if parts.query:
        raise ValueError("takes no options, because some of them would weaken TLS")
    return text


def _mail(mode: Mode | None) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        if text == "console:":
            if mode is Mode.PRODUCTION:
                raise ValueError("may be console: in development only, because it prints what letters hold")
            return text
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("must read smtps://user:password@host:465 or smtp://user:password@host:587")
        if parts.path not in ("", "/") or parts.query:
            raise ValueError("takes no options, because some of them would weaken TLS")
        return text

    return parse


def _mail_address(text: str) -> str:
    name, at, domain = text.rpartition("@")
    if not (name and at and domain) or any(each.isspace() or each in "<>,;" for each in text):
        raise ValueError("must be an e-mail address without a name")
    return text


def _vault(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)):
        return text.rstrip("/")
    raise ValueError("must be an https:// address; http:// only on loopback")


def _here(name: str) -> str:
    """A folder of development; in production a place beside the database would be no second one."""
    return f"file://{Path('.coffer', name).resolve()}"


def _audit_store(text: str) -> str:
    parts = urlsplit(text)
    is_folder = parts.scheme == "file" and not parts.netloc and parts.path.strip("/")
    if not is_folder and not (parts.scheme == "s3" and parts.netloc):
        raise ValueError("must read file:///folder or s3://bucket/prefix")
    return text.rstrip("/")


def _backup_folders() -> str:
    return ",".join(_here(f"backups/{n}") for n in range(6))


def _backup_stores(text: str) -> tuple[str, ...]:
    stores = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for parts in map(urlsplit, stores):
        is_folder = parts.scheme == "file" and not parts.netloc and parts.path.strip("/")
        is_bucket = parts.scheme in ("s3", "gs", "az") and parts.netloc
        if not (is_folder or is_bucket) or parts.username or parts.query or parts.fragment:
            raise ValueError("must read file:///folder or s3://bucket/prefix, gs://…, az://…, separated by commas")
    if len(set(stores)) < len(stores):
        raise ValueError("names a store twice")
    return stores


def _coding(text: str) -> str:
    if not re.fullmatch(r"single|mirror:[1-9][0-9]?|rs:[1-9][0-9]?\+[1-9][0-9]?", text):
        raise ValueError("must read single, mirror:n or rs:k+m")
    return text


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise ValueError("must be an origin such as https://crm.example.org")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must be https:// beyond loopback")
    return text.rstrip("/")


def _origins(text: str) -> tuple[str, ...]:
    return tuple(_origin(part.strip()) for part in text.split(",") if part.strip())


def _places(mode: Mode | None) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        places = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
        if places and mode is Mode.PRODUCTION:
            raise ValueError("is for development only: what it names is reached in clear and inside your network")
        if not all(re.fullmatch(r"[a-z0-9.-]+:[0-9]{1,5}", place) for place in places):
            raise ValueError("must read host:port,host:port")
        return places

    return parse


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError("must be a port, 1 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise ValueError("must be a whole number from 1 to 100000")
    return int(text)


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100_000:
        raise ValueError("must be a whole number from 0 to 100000")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def _filled(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise ValueError("names no file")
    return text


def _optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    return lambda text: parse(text) if text else None
