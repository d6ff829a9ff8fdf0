"""Who may do what: permissions, the classes and levels of personal data, and the built-in roles.

A new permission is one line in `Permission` and one in the roles that hold it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache
from types import MappingProxyType


class Level(IntEnum):
    """What a viewer gets of a personal field; ordered, so that the most generous of several roles is `max`."""

    HIDDEN = 0
    MASKED = 1
    PLAIN = 2


class Sensitivity(StrEnum):
    """The class of a personal field: how sensitive it is."""

    IDENTITY = "IDENTITY"
    CONTACT = "CONTACT"
    LOCATION = "LOCATION"
    GOVERNMENT_ID = "GOVERNMENT_ID"
    BIRTH = "BIRTH"
    FINANCIAL = "FINANCIAL"
    HEALTH = "HEALTH"
    FREE_TEXT = "FREE_TEXT"


class SearchRight(StrEnum):
    """By what a viewer may find people; a right of its own, because finding by a value confirms it."""

    IDENTITY = "IDENTITY"
    CONTACT = "CONTACT"
    GOVERNMENT_ID = "GOVERNMENT_ID"
    EXTERNAL_ID = "EXTERNAL_ID"


class Permission(StrEnum):
    CUSTOMERS_READ = "CUSTOMERS_READ"
    CUSTOMERS_WRITE = "CUSTOMERS_WRITE"
    CUSTOMERS_STAGE = "CUSTOMERS_STAGE"
    CUSTOMERS_CLASSIFY = "CUSTOMERS_CLASSIFY"
    CUSTOMERS_ARCHIVE = "CUSTOMERS_ARCHIVE"
    CUSTOMERS_HAND_OVER = "CUSTOMERS_HAND_OVER"
    CUSTOMERS_IMPORT = "CUSTOMERS_IMPORT"
    TAGS_MANAGE = "TAGS_MANAGE"
    MEMBERS_READ = "MEMBERS_READ"
    MEMBERS_MANAGE = "MEMBERS_MANAGE"
    ROLES_MANAGE = "ROLES_MANAGE"
    KEYS_MANAGE = "KEYS_MANAGE"
    BACKUPS_MANAGE = "BACKUPS_MANAGE"
    WEBHOOKS_MANAGE = "WEBHOOKS_MANAGE"
    AUDIT_READ = "AUDIT_READ"
    ANALYTICS_READ = "ANALYTICS_READ"
    JOBS_READ = "JOBS_READ"
    JOBS_MANAGE = "JOBS_MANAGE"


class Role(StrEnum):
    OWNER = "OWNER"
    ADMIN = "ADMIN"
    MANAGER = "MANAGER"
    AGENT = "AGENT"
    ANALYST = "ANALYST"
    AUDITOR = "AUDITOR"
    INTEGRATION = "INTEGRATION"


@dataclass(frozen=True, slots=True)
class Grants:
    """Allow-lists: what is not named here is not allowed."""

    permissions: frozenset[Permission] = frozenset()
    levels: Mapping[Sensitivity, Level] = field(default_factory=lambda: MappingProxyType({}))
    searches: frozenset[SearchRight] = frozenset()
    writes: frozenset[Sensitivity] = frozenset()

    def level(self, sensitivity: Sensitivity) -> Level:
        return self.levels.get(sensitivity, Level.HIDDEN)


_READS = {Permission.CUSTOMERS_READ}
_EDITS = {
    Permission.CUSTOMERS_WRITE,
    Permission.CUSTOMERS_STAGE,
    Permission.CUSTOMERS_CLASSIFY,
    Permission.CUSTOMERS_ARCHIVE,
}
_LETTERS = {"P": Level.PLAIN, "M": Level.MASKED, "H": Level.HIDDEN}


def _grants(
    letters: str,
    *,
    permissions: Iterable[Permission],
    searches: Iterable[SearchRight] = (),
    writes: Iterable[Sensitivity] = (),
) -> Grants:
    """`letters` gives the level of each class in the order of `Sensitivity`."""
    levels = {sensitivity: _LETTERS[letter] for sensitivity, letter in zip(Sensitivity, letters, strict=True)}
    return Grants(frozenset(permissions), MappingProxyType(levels), frozenset(searches), frozenset(writes))


BUILT_IN: Mapping[Role, Grants] = MappingProxyType(
    {
        Role.OWNER: _grants("PPPPPPPP", permissions=Permission, searches=SearchRight, writes=Sensitivity),
        Role.ADMIN: _grants(
            "MMMHMHHH",
            permissions=_READS
            | {
                Permission.MEMBERS_READ,
                Permission.MEMBERS_MANAGE,
                Permission.ROLES_MANAGE,
                Permission.KEYS_MANAGE,
                Permission.BACKUPS_MANAGE,
                Permission.WEBHOOKS_MANAGE,
                Permission.JOBS_READ,
                Permission.JOBS_MANAGE,
            },
        ),
        Role.MANAGER: _grants(
            "PPPMPMHP",
            permissions=_READS
            | _EDITS
            | {
                Permission.CUSTOMERS_HAND_OVER,
                Permission.CUSTOMERS_IMPORT,
                Permission.TAGS_MANAGE,
                Permission.MEMBERS_READ,
                Permission.JOBS_READ,
            },
            searches={SearchRight.IDENTITY, SearchRight.CONTACT, SearchRight.EXTERNAL_ID},
            writes={
                Sensitivity.IDENTITY,
                Sensitivity.CONTACT,
                Sensitivity.LOCATION,
                Sensitivity.BIRTH,
                Sensitivity.FREE_TEXT,
            },
        ),
        Role.AGENT: _grants(
            "PMMHMHHH",
            permissions=_READS | {Permission.CUSTOMERS_WRITE, Permission.CUSTOMERS_STAGE},
            searches={SearchRight.IDENTITY},
            writes={Sensitivity.IDENTITY, Sensitivity.CONTACT, Sensitivity.FREE_TEXT},
        ),
        Role.ANALYST: _grants("HHMHMHHH", permissions=_READS | {Permission.ANALYTICS_READ}),
        Role.AUDITOR: _grants(
            "MMMMMMHH",
            permissions=_READS | {Permission.AUDIT_READ, Permission.MEMBERS_READ, Permission.JOBS_READ},
        ),
        Role.INTEGRATION: _grants(
            "HHHHHHHH",
            permissions=_READS | _EDITS | {Permission.CUSTOMERS_IMPORT},
            searches={SearchRight.EXTERNAL_ID},
            writes=Sensitivity,
        ),
    }
)


@lru_cache(maxsize=1024)
def grants_of(roles: frozenset[Role]) -> Grants:
    """Roles add up: the union of rights, and of each class the most generous level."""
    held = [BUILT_IN[role] for role in roles]
    levels = {
        sensitivity: max((g.level(sensitivity) for g in held), default=Level.HIDDEN) for sensitivity in Sensitivity
    }
    return Grants(
        permissions=frozenset().union(*(g.permissions for g in held)),
        levels=MappingProxyType(levels),
        searches=frozenset().union(*(g.searches for g in held)),
        writes=frozenset().union(*(g.writes for g in held)),
    )
