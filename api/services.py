"""What resolvers may use besides their unit; wired once in `api/app.py`."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from api.code_flow import CodeFlow
from api.directives import Rule
from api.errands import Errands
from api.signing_up import SigningUp
from api.tokens import AccessTokens
from tenants.access import Level, Relation
from tenants.audit.verify import ChainVerifier
from tenants.documents import PersonalField
from tenants.feeds import Feed
from tenants.recorder import Recorder
from tenants.signing_in.live_keys import LiveKeys
from tenants.signing_in.new_passwords import NewPasswords
from tenants.signing_in.refresh_tokens import Refreshing
from tenants.signing_in.sign_in import SignIns
from tenants.viewers import Viewer


@dataclass(frozen=True, slots=True)
class Services:
    """`columns` tells the sealed columns that an operation opens of a type; `disclosure` what it gets of each field.

    `shown` tells the level of each selected field of a type's rows that is not hidden in that relation. `rule_at` tells
    the rule of a type's field and the personal field behind it, `wholes` in which type's rows the leaves of each type
    lie. `is_issuer` tells whether an address can be one of another house.
    `check_address` refuses a tenant one that webhooks must not be sent to: `AddressRefused`, `NotReached`.
    """

    sign_ins: SignIns
    tokens: AccessTokens
    refreshing: Refreshing
    new_passwords: NewPasswords
    errands: Errands
    signing_up: SigningUp
    code_flow: CodeFlow
    is_issuer: Callable[[str], bool]
    columns: Callable[[str, frozenset[str], Viewer], set[str]]
    disclosure: Callable[[frozenset[str], Viewer], list[dict[str, Any]]]
    rule_at: Callable[[str, str], tuple[Rule, PersonalField | None] | None]
    wholes: Mapping[str, str]
    shown: Callable[[str, frozenset[str], Viewer, Relation], list[tuple[str, Level]]]
    recorder: Recorder
    live_keys: LiveKeys
    feed: Feed
    audit_chain: ChainVerifier
    check_address: Callable[[str, Hashable], Awaitable[None]]
    keeps_backups: bool = True  # whether stores are configured
