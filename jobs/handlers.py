"""Which handler leads which kind of job. A new kind is declared beside its noun, and gets its line here."""

from collections.abc import Mapping
from typing import Any

from domain.imports import IMPORT
from domain.tidying import TIDY
from jobs.handling import Handler
from jobs.imports import import_customers
from jobs.provisioning import provision_by
from jobs.tidying import tidy
from tenants.jobs import KINDS, JobKind
from tenants.provisioning import PROVISION, Provisioning


def all_handlers(provisioning: Provisioning | None) -> dict[JobKind[Any], Handler]:
    return {
        IMPORT: import_customers,
        PROVISION: provision_by(provisioning),
        TIDY: tidy,
    }


def refuse_incomplete(handlers: Mapping[JobKind[Any], Handler], kinds: Mapping[str, JobKind[Any]] = KINDS) -> None:
    """Raises TypeError naming every declared kind that nobody handles: its jobs would wait for ever."""
    if missing := sorted(set(kinds) - {kind.name for kind in handlers}):
        raise TypeError(f"no handler in jobs/handlers.py for: {', '.join(missing)}")
