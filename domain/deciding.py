"""Which grants of which roles decided what a viewer may; what they add up to is said by the viewer itself."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain import roles
from tenants.access import SPECS, Level, Permission, Relation, Role, RoleSpec, Scope
from tenants.documents import PersonalField
from tenants.unit import Unit


class GrantKind(StrEnum):
    """The part of a role that a grant stands in."""

    PERMISSION = "PERMISSION"
    CLASS = "CLASS"
    FIELD = "FIELD"
    OWN_CLASS = "OWN_CLASS"
    OWN_FIELD = "OWN_FIELD"


@dataclass(frozen=True, slots=True)
class NamedSpec:
    """`role_id` is None for a built-in role."""

    name: str
    role_id: UUID | None
    spec: RoleSpec


@dataclass(frozen=True, slots=True)
class Deciding:
    """One grant: `name` is a permission, a class, or a field's own name. `level` is None for a permission."""

    role: NamedSpec
    kind: GrantKind
    name: str
    level: Level | None = None

    @property
    def scope(self) -> Scope:
        return self.role.spec.scope


async def named(unit: Unit, built_in: Collection[Role], own: Collection[UUID]) -> list[NamedSpec]:
    found = await roles.get_many(unit, sorted(own))
    mine = [NamedSpec(role.name, role.id, role.spec) for role in found if role is not None]
    return [NamedSpec(role.value, None, SPECS[role]) for role in sorted(built_in)] + mine


def permitting(held: Collection[NamedSpec], permission: Permission) -> list[Deciding]:
    return [
        Deciding(role, GrantKind.PERMISSION, permission.value)
        for role in held
        if permission in role.spec.grants.permissions
    ]


def levelling(held: Collection[NamedSpec], field: PersonalField, relation: Relation) -> list[Deciding]:
    """The grants of the highest level in that relation; none where all is hidden."""
    found = [grant for role in held for grant in _levels(role, field, relation)]
    highest = max((grant.level or Level.HIDDEN for grant in found), default=Level.HIDDEN)
    return [grant for grant in found if grant.level is highest] if highest else []


def _levels(role: NamedSpec, field: PersonalField, relation: Relation) -> Iterator[Deciding]:
    grants, own = role.spec.grants, role.spec.own
    parts: list[tuple[GrantKind, Mapping[Any, Level], str]] = [
        (GrantKind.CLASS, grants.levels, field.sensitivity),
        (GrantKind.FIELD, grants.fields, field.name),
    ]
    if relation is Relation.OWN:
        parts += [
            (GrantKind.OWN_CLASS, own.levels, field.sensitivity),
            (GrantKind.OWN_FIELD, own.fields, field.name),
        ]
    most = role.spec.on(relation).level(field.sensitivity, field.name)  # none at all beyond its scope
    for kind, levels, name in parts:
        if most is not Level.HIDDEN and levels.get(name) is most:
            yield Deciding(role, kind, name, most)
