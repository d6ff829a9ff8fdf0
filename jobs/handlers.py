"""Which handler leads which kind of job. A new kind is declared beside its noun, and gets its line here."""

from collections.abc import Mapping
from typing import Any

from domain.hand_overs import HAND_OVER
from domain.imports import IMPORT
from domain.tidying import TIDY
from jobs.hand_overs import hand_over_customers
from jobs.handling import Handler
from jobs.imports import import_customers
from jobs.mails import send_by
from jobs.provisioning import provision_by
from jobs.tidying import tidy
from mail import Post
from tenants.jobs import KINDS, JobKind
from tenants.mails import SEND_MAIL
from tenants.provisioning import PROVISION, Provisioning


def all_handlers(
    provisioning: Provisioning | None, post: Post | None = None, portal: str = ""
) -> dict[JobKind[Any], Handler]:
    """`portal` is the origin that the links of letters lead to."""
    return {
        HAND_OVER: hand_over_customers,
        IMPORT: import_customers,
        PROVISION: provision_by(provisioning),
        SEND_MAIL: send_by(post, portal),
        TIDY: tidy,
    }


def refuse_incomplete(handlers: Mapping[JobKind[Any], Handler], kinds: Mapping[str, JobKind[Any]] = KINDS) -> None:
    """Raises TypeError naming every declared kind that nobody handles: its jobs would wait for ever."""
    if missing := sorted(set(kinds) - {kind.name for kind in handlers}):
        raise TypeError(f"no handler in jobs/handlers.py for: {', '.join(missing)}")
