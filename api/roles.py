"""Roles over GraphQL: the built-in ones, and those of the tenant's own; what they grant is no secret among its members.

Who makes or changes a role grants nothing beyond its own rights; see `domain.granting`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import UNSET, Info
from strawberry.dataloader import DataLoader

from api.directives import Input, argument, input_, label, public, requires
from api.meanings import described
from api.operation import Operation, fingerprint, key_of
from api.paging import Node, UserError, global_id, local_id, user_errors
from domain import outcomes, roles
from domain.customers import FIELDS
from domain.errors import BadInput, Refused
from domain.errors import UserError as Reason
from domain.roles import RoleView
from tenants.access import SPECS, Grants, Level, Permission, Role, RoleSpec, Scope, SearchRight, Sensitivity

_MANAGE = Permission.ROLES_MANAGE
_READ = Permission.MEMBERS_READ
_SHAPE = "the shape of a payload"
_OPEN = "what a role grants is no secret among those who work with it"
_GRANT = "nobody grants beyond their own rights"

# Of the fields' own table, so that a new field can be granted as well.
_FIELDS = Enum("CustomerField", {label(name).removeprefix("Customer."): name for name in FIELDS})  # type: ignore[misc]  # made of a table
CustomerField = described(
    cast("type[Enum]", _FIELDS),
    "A personal field of a customer, as its directives name it.",
    **{each.name: f"Of the class {FIELDS[each.value].sensitivity}." for each in _FIELDS},
)


@strawberry.type(description="The level of all fields of a class.")
class ClassLevel:
    class_: Sensitivity = public(_OPEN, name="class")
    level: Level = public(_OPEN)


@strawberry.type(description="The level of one field of a customer.")
class FieldLevel:
    field: CustomerField = public(_OPEN)  # type: ignore[valid-type]  # an enum made of the fields' table
    level: Level = public(_OPEN)


@strawberry.type(description="What a role grants. Roles add up, and what none of them names is not allowed.")
class RoleGrants:
    spec: strawberry.Private[RoleSpec]

    @public(_OPEN, description="The customers for which it grants this: all, those of team mates, or one's own.")
    def scope(self) -> Scope:
        return self.spec.scope

    @public(_OPEN)
    def permissions(self) -> list[Permission]:
        return sorted(self.spec.grants.permissions)

    @public(_OPEN)
    def levels(self) -> list[ClassLevel]:
        return _class_levels(self.spec.grants)

    @public(_OPEN, description="Levels of single fields; they only add to those of the classes.")
    def fields(self) -> list[FieldLevel]:
        return _field_levels(self.spec.grants)

    @public(_OPEN, description="Levels for customers that the member owns, besides the others.")
    def own_levels(self) -> list[ClassLevel]:
        return _class_levels(self.spec.own)

    @public(_OPEN, description="Levels of single fields for customers that the member owns, besides the others.")
    def own_fields(self) -> list[FieldLevel]:
        return _field_levels(self.spec.own)

    @public(_OPEN)
    def searches(self) -> list[SearchRight]:
        return sorted(self.spec.grants.searches)

    @public(_OPEN, description="Classes whose fields may be written.")
    def writes(self) -> list[Sensitivity]:
        return sorted(self.spec.grants.writes)

    @public(_OPEN, description="Single fields that may be written as well.")
    def field_writes(self) -> list[CustomerField]:  # type: ignore[valid-type]  # an enum made of the fields' table
        return _known(self.spec.grants.field_writes)


@strawberry.type(description="A role that every tenant has.")
class BuiltInRole:
    role: Role = public(_OPEN)

    @public(_OPEN)
    def grants(self) -> RoleGrants:
        return RoleGrants(spec=SPECS[self.role])


@strawberry.type(description="A role of the tenant's own.")
class OwnRole(Node):
    name: str = public(_OPEN)
    description: str = public(_OPEN)
    version: int = public(_OPEN, description="Send it back with an update.")
    created_at: datetime = public(_OPEN)
    updated_at: datetime = public(_OPEN)

    @public(_OPEN)
    def grants(self: Any) -> RoleGrants:
        return RoleGrants(spec=self.spec)

    @requires(_READ, description="How many members have it; it can't be deleted meanwhile.")
    async def holders(self: Any, info: Info[Operation]) -> int:
        return await _holders_of(info.context).load(self.id)

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, RoleView)


@strawberry.input(description="The level of all fields of a class.")
class ClassLevelInput:
    class_: Sensitivity = input_(_GRANT, name="class", description="Given once in a list.")
    level: Level = input_(_GRANT, description="HIDDEN is as if it were left out.")


@strawberry.input(description="The level of one field of a customer.")
class FieldLevelInput:
    field: CustomerField = input_(_GRANT, description="Given once in a list.")  # type: ignore[valid-type]  # an enum made of the fields' table
    level: Level = input_(_GRANT, description="HIDDEN is as if it were left out.")


@strawberry.input(
    description="What to set. A part that is left out stays as it is; null and an empty list grant nothing."
)
class RoleInput:
    name: str | None = input_("a word for a kind of work", default=UNSET, description="1 to 60 characters; unique.")
    description: str | None = input_("says what the role is for", default=UNSET, description="For those who give it.")
    scope: Scope | None = input_(_GRANT, default=UNSET, description="ALL unless told.")
    permissions: list[Permission] | None = input_(_GRANT, default=UNSET, description="What its members may do.")
    levels: list[ClassLevelInput] | None = input_(
        _GRANT, default=UNSET, description="What they see, by class; a class that is left out is HIDDEN."
    )
    fields: list[FieldLevelInput] | None = input_(
        _GRANT, default=UNSET, description="Levels of single fields; they only add to those of the classes."
    )
    own_levels: list[ClassLevelInput] | None = input_(
        _GRANT, default=UNSET, description="PLAIN here and MASKED in `levels`: plain for the owner of the customer."
    )
    own_fields: list[FieldLevelInput] | None = input_(
        _GRANT, default=UNSET, description="Levels of single fields for customers that the member owns."
    )
    searches: list[SearchRight] | None = input_(_GRANT, default=UNSET, description="By what they find customers.")
    writes: list[Sensitivity] | None = input_(_GRANT, default=UNSET, description="Classes whose fields they may write.")
    field_writes: list[CustomerField] | None = input_(  # type: ignore[valid-type]  # as above
        _GRANT, default=UNSET, description="Single fields that they may write as well."
    )


@strawberry.type
class RolePayload:
    role: OwnRole | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class DeleteRolePayload:
    deleted_id: strawberry.ID | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_ID = Annotated[strawberry.ID, argument(Input(why="an id opens nothing by itself"), "The role's.")]
_VERSION = Annotated[int, argument(Input(why="a count of changes"), "The version that was read.")]
_INPUT = Annotated[RoleInput, argument(Input(why=_GRANT), "What it is called and grants.")]


@strawberry.type
class RoleQueries:
    @requires(_READ, description="The tenant's own roles, by name; there are at most 200.")
    async def roles(self, info: Info[Operation]) -> list[OwnRole] | None:
        return cast(list[OwnRole], await roles.every(info.context.unit))

    @requires(_READ, description="One of the tenant's own roles, or NOT_FOUND.")
    async def role(self, info: Info[Operation], id: _ID) -> OwnRole | None:
        return cast(OwnRole, await roles.get(info.context.unit, local_id("OwnRole", id)))

    @requires(_READ, description="The roles that every tenant has.")
    def built_in_roles(self) -> list[BuiltInRole] | None:
        return [BuiltInRole(role=role) for role in Role]


@strawberry.type
class RoleMutations:
    @requires(_MANAGE, description="Make a role. With an Idempotency-Key, asking again makes no second one.")
    async def create_role(self, info: Info[Operation], input: _INPUT) -> RolePayload | None:
        unit, key = info.context.unit, key_of(info)
        try:
            sent = _sent(input)
            said = fingerprint(info, sent)
            if key and (kept := await outcomes.find(unit, key, said)):
                (before,) = await roles.get_many(unit, [UUID(kept["role"])])
                if before is None:
                    raise outcomes.gone()
                return RolePayload(role=cast(OwnRole, before), user_errors=[])
            made = await roles.create(unit, sent)
        except Refused as refused:
            return RolePayload(role=None, user_errors=user_errors(refused, ("input",)))
        if key:
            await outcomes.keep(unit, key, said, {"role": str(made.id)})
        return RolePayload(role=cast(OwnRole, made), user_errors=[])

    @requires(_MANAGE, description="Set the given parts of the version that was read, for all who have the role.")
    async def update_role(self, info: Info[Operation], id: _ID, version: _VERSION, input: _INPUT) -> RolePayload | None:
        try:
            changed = await roles.change(info.context.unit, local_id("OwnRole", id), version, _sent(input))
        except Refused as refused:
            return RolePayload(role=None, user_errors=user_errors(refused, ("input",)))
        return RolePayload(role=cast(OwnRole, changed), user_errors=[])

    @requires(_MANAGE, description="Delete a role that nobody has.")
    async def delete_role(self, info: Info[Operation], id: _ID) -> DeleteRolePayload | None:
        local = local_id("OwnRole", id)
        try:
            await roles.remove(info.context.unit, local)
        except Refused as refused:
            return DeleteRolePayload(deleted_id=None, user_errors=user_errors(refused))
        return DeleteRolePayload(deleted_id=global_id("OwnRole", local), user_errors=[])


def roles_of(operation: Operation) -> "DataLoader[UUID, RoleView | None]":
    """Roles of the tenant's own by id, of all members of a page in one statement."""
    if "roles" not in operation.loaders:
        operation.loaders["roles"] = DataLoader(load_fn=lambda ids: roles.get_many(operation.unit, ids))
    return cast("DataLoader[UUID, RoleView | None]", operation.loaders["roles"])


async def roles_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    """For `node`: all of them with the right to read members, else those that one has."""
    viewer = operation.viewer
    mine = [each for each in ids if operation.may(_READ) or (viewer is not None and each in viewer.own_roles)]
    return dict(zip(mine, await roles_of(operation).load_many(mine), strict=True))


def _holders_of(operation: Operation) -> "DataLoader[UUID, int]":
    if "holders" not in operation.loaders:
        operation.loaders["holders"] = DataLoader(load_fn=lambda ids: roles.holders(operation.unit, ids))
    return cast("DataLoader[UUID, int]", operation.loaders["holders"])


def _sent(input_: RoleInput) -> dict[str, Any]:
    """As `RoleSpec` dumps it, with name and description. Raises `Refused` for what is named twice in one list."""
    given = {name: value for name, value in vars(input_).items() if value is not UNSET}
    if "scope" in given and given["scope"] is None:
        raise BadInput("`input.scope` can't be null; leave it out to keep it.")
    return {_SPELLED.get(name, name): _dumped(_SPELLED.get(name, name), value) for name, value in given.items()}


_SPELLED = {"own_levels": "ownLevels", "own_fields": "ownFields", "field_writes": "fieldWrites"}


def _dumped(part: str, value: Any) -> Any:
    if part in ("name", "description", "scope"):
        return value
    if part in ("levels", "ownLevels"):
        return _each_once(part, ((each.class_.value, each.level.name) for each in value or ()))
    if part in ("fields", "ownFields"):
        return _each_once(part, ((each.field.value, each.level.name) for each in value or ()))
    return sorted({each.value for each in value or ()})


def _each_once(part: str, pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, level in pairs:
        if name in found:
            raise Refused([Reason("INVALID", (part,), f"{part} names {name} twice.")])
        found[name] = level
    return found


def _class_levels(grants: Grants) -> list[ClassLevel]:
    return [ClassLevel(class_=each, level=level) for each, level in sorted(grants.levels.items()) if level]


def _field_levels(grants: Grants) -> list[FieldLevel]:
    return [
        FieldLevel(field=each, level=level) for each in _known(grants.fields) if (level := grants.fields[each.value])
    ]


def _known(names: Iterable[str]) -> list[Any]:
    """A field that is no more grants nothing."""
    return [CustomerField(name) for name in sorted(names) if name in FIELDS]
