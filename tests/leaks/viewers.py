"""Who asks, and what each may get of a value: written out here from the design, and from the roles as they are made.

Nothing of this is taken from the code that decides, so that a slip in one shows in the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from domain import masks
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, SearchRight, Sensitivity
from tenants.documents import Mask
from tenants.viewers import Credential
from tests.api.test_disclosure import CLASSES, TABLE

I, C, L, G, B, N = "IDENTITY", "CONTACT", "LOCATION", "GOVERNMENT_ID", "BIRTH", "FREE_TEXT"  # noqa: E741
# Of each personal leaf: its class, its mask, and the field of a customer that it shows.
LEAVES: dict[str, tuple[str, Mask, str]] = {
    "Customer.givenName": (I, Mask.NAME, "given_name"),
    "Customer.familyName": (I, Mask.NAME, "family_name"),
    "Customer.displayName": (I, Mask.NAME, "display_name"),
    "Customer.emails": (C, Mask.EMAIL, "emails"),
    "Customer.phones": (C, Mask.PHONE, "phones"),
    "Customer.birthDate": (B, Mask.NOTHING, "birth_date"),
    "Customer.birthYear": (B, Mask.KEEP, "birth_date"),
    "Customer.governmentId": (G, Mask.LAST2, "government_id"),
    "Customer.note": (N, Mask.TEXT, "note"),
    "Customer.externalId": (I, Mask.LAST2, "external_id"),
    "Address.lines": (L, Mask.ADDRESS_LINE, "address_lines"),
    "Address.city": (L, Mask.KEEP, "city"),
    "Address.postalCode": (L, Mask.ADDRESS_LINE, "postal_code"),
    "Address.country": (L, Mask.KEEP, "country"),
    "Tag.name": (I, Mask.TEXT, ""),
    "Member.name": (I, Mask.NAME, ""),
    "Member.email": (C, Mask.EMAIL, ""),
    "LegalHold.reason": (N, Mask.TEXT, ""),
    "Device.userAgent": (C, Mask.TEXT, ""),
    "Device.address": (L, Mask.TEXT, ""),
}
LETTERS = {"H": Level.HIDDEN, "M": Level.MASKED, "P": Level.PLAIN}
NOTHING = "HHHHHHHH"
ALL_SEARCHES = frozenset({"IDENTITY", "CONTACT", "GOVERNMENT_ID", "EXTERNAL_ID"})


class Nearness(StrEnum):
    """How a customer stands to a viewer; NONE is for what is no customer."""

    STRANGER = "STRANGER"
    MATE = "MATE"
    OWN = "OWN"
    NONE = "NONE"


_WITHIN = {
    "ALL": {*Nearness},
    "TEAM": {Nearness.MATE, Nearness.OWN, Nearness.NONE},
    "OWN": {Nearness.OWN, Nearness.NONE},
}


@dataclass(frozen=True)
class Says:
    """What one role says; letters by class in the order of `CLASSES`."""

    letters: str = NOTHING
    scope: str = "ALL"
    own: str = NOTHING
    fields: Mapping[str, str] = field(default_factory=dict)
    own_fields: Mapping[str, str] = field(default_factory=dict)
    permissions: frozenset[str] = frozenset(Permission)
    searches: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def level(self, class_: str, name: str, near: Nearness) -> Level:
        if near not in _WITHIN[self.scope]:
            return Level.HIDDEN
        said = [self.letters[CLASSES.index(class_)], self.fields.get(name, "H")]
        if near is Nearness.OWN:
            said += [self.own[CLASSES.index(class_)], self.own_fields.get(name, "H")]
        return max(LETTERS[each] for each in said)

    def spec(self) -> RoleSpec:
        """The same as the product keeps it."""
        grants = Grants(
            permissions=frozenset(map(Permission, self.permissions)),
            levels=_levels(self.letters),
            searches=frozenset(map(SearchRight, self.searches)),
            writes=frozenset(map(Sensitivity, self.writes)),
            fields={name: LETTERS[letter] for name, letter in self.fields.items()},
        )
        own = {name: LETTERS[letter] for name, letter in self.own_fields.items()}
        return RoleSpec(grants, Scope(self.scope), Grants(levels=_levels(self.own), fields=own))


def _levels(letters: str) -> dict[Sensitivity, Level]:
    return {Sensitivity(name): LETTERS[letter] for name, letter in zip(CLASSES, letters, strict=True)}


_READ = {"CUSTOMERS_READ"}
_EDIT = {"CUSTOMERS_WRITE", "CUSTOMERS_STAGE", "CUSTOMERS_CLASSIFY", "CUSTOMERS_ARCHIVE", "CUSTOMERS_IMPORT"}
_OTHERS = frozenset(Permission) - _READ
BUILT_IN = {
    Role.OWNER: Says(TABLE[Role.OWNER], searches=ALL_SEARCHES, writes=frozenset(CLASSES)),
    Role.ADMIN: Says(TABLE[Role.ADMIN], permissions=frozenset({*_READ, "API_KEYS_MANAGE", "JOBS_READ"})),
    Role.MANAGER: Says(
        TABLE[Role.MANAGER],
        permissions=frozenset(
            {*_READ, *_EDIT, "CUSTOMERS_HAND_OVER", "CUSTOMERS_REVEAL", "CUSTOMERS_ERASE", "TAGS_MANAGE", "JOBS_READ"}
        ),
        searches=frozenset({"IDENTITY", "CONTACT", "EXTERNAL_ID"}),
        writes=frozenset({I, C, L, B, N}),
    ),
    Role.AGENT: Says(
        TABLE[Role.AGENT],
        permissions=frozenset({*_READ, "CUSTOMERS_WRITE", "CUSTOMERS_STAGE", "CUSTOMERS_REVEAL"}),
        searches=frozenset({"IDENTITY"}),
        writes=frozenset({I, C, N}),
    ),
    Role.ANALYST: Says(TABLE[Role.ANALYST], permissions=frozenset(_READ)),
    Role.AUDITOR: Says(TABLE[Role.AUDITOR], permissions=frozenset({*_READ, "JOBS_READ"})),
    Role.INTEGRATION: Says(
        TABLE[Role.INTEGRATION],
        permissions=frozenset({*_READ, *_EDIT}),
        searches=frozenset({"EXTERNAL_ID"}),
        writes=frozenset(CLASSES),
    ),
}
# Roles of a tenant's own; several add up for the customers that are in the scope of each.
OWN_ROLES: dict[str, list[Says]] = {
    "masked, own plain": [
        Says(
            "MMMMMMMM",
            own="PPPPPPPP",
            fields={"note": "M"},
            own_fields={"note": "P"},
            searches=ALL_SEARCHES,
            writes=frozenset(CLASSES),
        )
    ],
    "team": [Says("PPPPPPPP", "TEAM", searches=ALL_SEARCHES, writes=frozenset(CLASSES))],
    "own": [Says("PPPPPPPP", "OWN", searches=ALL_SEARCHES, writes=frozenset(CLASSES))],
    "single fields": [Says(fields={"birth_date": "P", "emails": "M", "note": "P"}, own_fields={"phones": "P"})],
    "wide masked, team plain": [Says("MMMHMHHH"), Says("PPPPPPPP", "TEAM")],
    "searches own alone": [Says("MMMMMMMM"), Says("HHHHHHHH", "OWN", searches=ALL_SEARCHES)],
    "levels without reading": [Says("PPPPPPPP", permissions=_OTHERS), Says("MMMMMMMM", "OWN")],
    "reads without levels": [Says(), Says("PPPPPPPP", "OWN", permissions=_OTHERS)],
}
NOBODY = "no role"


@dataclass(frozen=True)
class Viewer:
    """`member` is the global id; without a credential nobody is signed in. `mates` are members of the same team."""

    name: str
    says: tuple[Says, ...] = ()
    credential: Credential | None = None
    member: str = ""
    mates: frozenset[str] = frozenset()
    is_capped: bool = False  # has seen so much already that nothing is plain any more

    def near(self, owner: str | None) -> Nearness:
        if owner is None:
            return Nearness.STRANGER
        return Nearness.OWN if owner == self.member else Nearness.MATE if owner in self.mates else Nearness.STRANGER

    def level(self, coordinate: str, near: Nearness) -> Level:
        class_, _, name = LEAVES[coordinate]
        level = max((each.level(class_, name, near) for each in self.says), default=Level.HIDDEN)
        return min(level, Level.MASKED) if self.is_capped else level

    def may(self, permission: str, near: Nearness = Nearness.NONE) -> bool:
        return any(permission in each.permissions and near in _WITHIN[each.scope] for each in self.says)

    def may_search(self, right: str, near: Nearness = Nearness.OWN) -> bool:
        return any(right in each.searches and near in _WITHIN[each.scope] for each in self.says)

    def may_write(self, class_: str, near: Nearness = Nearness.OWN) -> bool:
        return any(class_ in each.writes and near in _WITHIN[each.scope] for each in self.says)


def shown(coordinate: str, level: Level, plain: Any) -> Any:
    """What is seen of a value at that level."""
    mask = LEAVES[coordinate][1]
    if level is Level.PLAIN or plain is None:
        return plain
    if level is Level.HIDDEN:
        return None
    return [masks.apply(mask, each) for each in plain] if isinstance(plain, list) else masks.apply(mask, plain)


def is_kept(coordinate: str) -> bool:
    """Whether its mask shows it whole."""
    return LEAVES[coordinate][1] is Mask.KEEP
