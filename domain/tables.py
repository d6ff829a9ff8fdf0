"""Every module that declares a table: a check, a backup, a proof or a purge goes by what is declared by then."""

from importlib import import_module

MODULES = (
    "domain.customers.rows",
    "domain.holds",
    "domain.imports",
    "domain.outcomes",
    "domain.tags",
    "tenants.audit.entries",
    "tenants.audit.tables",
    "tenants.backups",
    "tenants.erasures",
    "tenants.erasures.offboardings",
    "tenants.events",
    "tenants.jobs",
    "tenants.keys",
    "tenants.keys.key_files",
    "tenants.keys.rotations",
    "tenants.members",
    "tenants.roles",
    "tenants.signing_in.api_keys",
    "tenants.signing_in.attempts",
    "tenants.signing_in.one_time_tokens",
    "tenants.signing_in.refresh_tokens",
    "tenants.signing_in.second_factors",
    "tenants.signing_in.sessions",
    "tenants.signing_in.sign_on",
    "tenants.subjects",
    "tenants.usage",
    "tenants.webhooks",
)


def load() -> None:
    for module in MODULES:
        import_module(module)
