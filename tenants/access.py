"""Who may do what: permissions, the classes and levels of personal data, the built-in roles, and how roles add up.

A new permission is one line in `Permission` and one in the roles that hold it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any


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


class Relation(IntEnum):
    """How a customer stands to a viewer, by its owner; NONE is for whatever is no customer.

    Each of the first three is granted all that the ones before it are.
    """

    OTHER = 0
    TEAM = 1
    OWN = 2
    NONE = 3


class Scope(StrEnum):
    """Of which customers a role speaks: all, those that team mates own, or those that the member owns."""

    ALL = "ALL"
    TEAM = "TEAM"
    OWN = "OWN"


class Permission(StrEnum):
    CUSTOMERS_READ = "CUSTOMERS_READ"
    CUSTOMERS_WRITE = "CUSTOMERS_WRITE"
    CUSTOMERS_STAGE = "CUSTOMERS_STAGE"
    CUSTOMERS_CLASSIFY = "CUSTOMERS_CLASSIFY"
    CUSTOMERS_ARCHIVE = "CUSTOMERS_ARCHIVE"
    CUSTOMERS_HAND_OVER = "CUSTOMERS_HAND_OVER"
    CUSTOMERS_IMPORT = "CUSTOMERS_IMPORT"
    CUSTOMERS_REVEAL = "CUSTOMERS_REVEAL"
    CUSTOMERS_ERASE = "CUSTOMERS_ERASE"
    CUSTOMERS_HOLD = "CUSTOMERS_HOLD"
    CUSTOMERS_EXPORT = "CUSTOMERS_EXPORT"
    TAGS_MANAGE = "TAGS_MANAGE"
    MEMBERS_READ = "MEMBERS_READ"
    MEMBERS_MANAGE = "MEMBERS_MANAGE"
    ROLES_MANAGE = "ROLES_MANAGE"
    API_KEYS_MANAGE = "API_KEYS_MANAGE"
    SIGN_ON_MANAGE = "SIGN_ON_MANAGE"
    TENANT_MANAGE = "TENANT_MANAGE"
    TENANT_CLOSE = "TENANT_CLOSE"
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


def _none() -> Mapping[Any, Level]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Grants:
    """Allow-lists: what is not named here is not allowed.

    `fields` and `field_writes` name single fields of a customer (`birth_date`), and only add to those of the classes.
    """

    permissions: frozenset[Permission] = frozenset()
    levels: Mapping[Sensitivity, Level] = field(default_factory=_none)
    searches: frozenset[SearchRight] = frozenset()
    writes: frozenset[Sensitivity] = frozenset()
    fields: Mapping[str, Level] = field(default_factory=_none)
    field_writes: frozenset[str] = frozenset()

    def level(self, sensitivity: Sensitivity, name: str = "") -> Level:
        return max(self.levels.get(sensitivity, Level.HIDDEN), self.fields.get(name, Level.HIDDEN))

    def may_write(self, sensitivity: Sensitivity, name: str = "") -> bool:
        return sensitivity in self.writes or name in self.field_writes


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """What one role grants: `grants` for customers in its scope, and besides `own` levels for those the member owns."""

    grants: Grants = field(default_factory=Grants)
    scope: Scope = Scope.ALL
    own: Grants = field(default_factory=Grants)

    def on(self, relation: Relation) -> Grants:
        if relation is Relation.NONE:
            return self.grants
        if relation < _REACH[self.scope]:
            return Grants()
        return together([self.grants, self.own]) if relation is Relation.OWN else self.grants

    def dump(self) -> dict[str, Any]:
        """JSON: sorted names; levels by name."""
        return {
            "scope": self.scope.value,
            "permissions": sorted(self.grants.permissions),
            "searches": sorted(self.grants.searches),
            "writes": sorted(self.grants.writes),
            "fieldWrites": sorted(self.grants.field_writes),
            "levels": _named(self.grants.levels),
            "fields": _named(self.grants.fields),
            "ownLevels": _named(self.own.levels),
            "ownFields": _named(self.own.fields),
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "RoleSpec":
        """Names that this version does not know grant nothing."""
        grants = Grants(
            permissions=frozenset(Permission(each) for each in stored["permissions"] if each in list(Permission)),
            searches=frozenset(SearchRight(each) for each in stored["searches"] if each in list(SearchRight)),
            writes=frozenset(Sensitivity(each) for each in stored["writes"] if each in list(Sensitivity)),
            field_writes=frozenset(stored["fieldWrites"]),
            levels=_class_levels(stored["levels"]),
            fields=_levels(stored["fields"]),
        )
        own = Grants(levels=_class_levels(stored["ownLevels"]), fields=_levels(stored["ownFields"]))
        return cls(grants, Scope(stored["scope"]), own)


_REACH = {Scope.ALL: Relation.OTHER, Scope.TEAM: Relation.TEAM, Scope.OWN: Relation.OWN}


def _named(levels: Mapping[Any, Level]) -> dict[str, str]:
    return {str(each): level.name for each, level in sorted(levels.items()) if level is not Level.HIDDEN}


def _levels(stored: Mapping[str, str]) -> Mapping[str, Level]:
    return MappingProxyType({each: Level[name] for each, name in stored.items()})


def _class_levels(stored: Mapping[str, str]) -> Mapping[Sensitivity, Level]:
    known = {Sensitivity(each): Level[name] for each, name in stored.items() if each in list(Sensitivity)}
    return MappingProxyType(known)


def together(many: Collection[Grants]) -> Grants:
    """Rights add up: their union, and of each class and field the most generous level."""
    return Grants(
        permissions=frozenset().union(*(each.permissions for each in many)),
        levels=_highest([each.levels for each in many]),
        searches=frozenset().union(*(each.searches for each in many)),
        writes=frozenset().union(*(each.writes for each in many)),
        fields=_highest([each.fields for each in many]),
        field_writes=frozenset().union(*(each.field_writes for each in many)),
    )


def _highest(many: Collection[Mapping[Any, Level]]) -> Mapping[Any, Level]:
    names = {name for levels in many for name in levels}
    return MappingProxyType({name: max(levels.get(name, Level.HIDDEN) for levels in many) for name in names})


@dataclass(frozen=True, slots=True)
class Access:
    """What the roles of one viewer add up to; `on` is by `Relation`.

    What a role grants holds for the customers in its scope alone: a wide role with few rights and a narrow one with
    many do not make a wide one with many.
    """

    on: tuple[Grants, Grants, Grants, Grants]
    is_uniform: bool  # the same for every customer

    @classmethod
    def of(cls, specs: Collection[RoleSpec]) -> "Access":
        other, team, own, none = (together([spec.on(relation) for spec in specs]) for relation in Relation)
        return cls((other, team, own, none), other == team == own)

    def capped(self) -> "Access":
        """The same with no level above MASKED."""
        other, team, own, none = map(_capped, self.on)
        return Access((other, team, own, none), self.is_uniform)


def _capped(grants: Grants) -> Grants:
    return replace(grants, levels=_masked(grants.levels), fields=_masked(grants.fields))


def _masked(levels: Mapping[Any, Level]) -> Mapping[Any, Level]:
    return MappingProxyType({name: min(level, Level.MASKED) for name, level in levels.items()})


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
                Permission.CUSTOMERS_HOLD,
                Permission.MEMBERS_READ,
                Permission.MEMBERS_MANAGE,
                Permission.ROLES_MANAGE,
                Permission.API_KEYS_MANAGE,
                Permission.SIGN_ON_MANAGE,
                Permission.TENANT_MANAGE,
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
                Permission.CUSTOMERS_REVEAL,
                Permission.CUSTOMERS_ERASE,
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
            permissions=_READS | {Permission.CUSTOMERS_WRITE, Permission.CUSTOMERS_STAGE, Permission.CUSTOMERS_REVEAL},
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


SPECS: Mapping[Role, RoleSpec] = MappingProxyType({role: RoleSpec(grants) for role, grants in BUILT_IN.items()})


@lru_cache(maxsize=1024)
def access_of(roles: frozenset[Role]) -> Access:
    """Of built-in roles alone."""
    return Access.of([SPECS[role] for role in roles])
