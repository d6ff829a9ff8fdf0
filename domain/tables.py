"""Every module that declares a table: a check, a backup, a proof or a purge goes by what is declared by then."""

from importlib import import_module

MODULES = (
    "domain.customers.rows",
    "domain.holds",
    "domain.imports",
    "domain.outcomes",
    "domain.tags",
    "tenants.api_keys",
    "tenants.attempts",
    "tenants.audit.entries",
    "tenants.audit.tables",
    "tenants.backups",
    "tenants.erasures",
    "tenants.events",
    "tenants.jobs",
    "tenants.key_files",
    "tenants.keys",
    "tenants.members",
    "tenants.offboardings",
    "tenants.one_time_tokens",
    "tenants.refresh_tokens",
    "tenants.roles",
    "tenants.rotations",
    "tenants.second_factors",
    "tenants.sessions",
    "tenants.sign_on",
    "tenants.subjects",
    "tenants.usage",
    "tenants.webhooks",
)


def load() -> None:
    for module in MODULES:
        import_module(module)
