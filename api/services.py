"""What resolvers may use besides their unit; wired once in `api/app.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from api.tokens import AccessTokens
from tenants.audit.verify import ChainVerifier
from tenants.feeds import Feed
from tenants.recorder import Recorder
from tenants.sign_in import SignIns
from tenants.viewers import Viewer


@dataclass(frozen=True, slots=True)
class Services:
    """`columns` tells the sealed columns that an operation opens of a type; `disclosure` what it gets of each field.

    `wholes` tells in which type's rows the leaves of a type lie.
    """

    sign_ins: SignIns
    tokens: AccessTokens
    columns: Callable[[str, frozenset[str], Viewer], set[str]]
    disclosure: Callable[[frozenset[str], Viewer], list[dict[str, str]]]
    wholes: Mapping[str, str]
    recorder: Recorder
    feed: Feed
    audit_chain: ChainVerifier
