"""Why somebody may see, find by or write a field, or not: asked of the guard's own code, so no client repeats it.

What is answered is what the guard decides with; only which grants it comes from is looked up besides.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID

import strawberry
from strawberry import Info

from api import giving, labels, showing
from api.directives import Input, Rule, argument, label, public
from api.meanings import described
from api.operation import Operation
from api.paging import global_id, local_id
from domain import customers, deciding
from domain.customers import CLEAR_WRITES, FIELDS
from domain.deciding import Deciding, GrantKind, NamedSpec
from domain.errors import BadInput, Forbidden, NotFound
from tenants import budgets, rights
from tenants.access import Access, Level, Permission, Relation, Role, Scope
from tenants.documents import PersonalField
from tenants.viewers import Viewer

_OWN = "one's own rights; for those of others it takes MEMBERS_READ or ROLES_MANAGE"
_ANSWER = "an answer to who may ask"
_MAY_ASK = (Permission.MEMBERS_READ, Permission.ROLES_MANAGE)
_CUSTOMER = "Customer"
_INPUT_OF = {"Customer.owner": "Customer.ownerId", "Customer.tags": "Customer.tagIds"}

described(
    Relation,
    "How a customer stands to a viewer, by its owner; NONE is for rows that are no customers.",
    name="RowRelation",
    OTHER="Nobody owns it, or somebody who is in no team with the viewer.",
    TEAM="Somebody owns it who is in a team with the viewer.",
    OWN="The viewer owns it.",
    NONE="The row is no customer.",
)
described(
    GrantKind,
    "The part of a role that a grant stands in.",
    PERMISSION="`permissions`",
    CLASS="`levels`",
    FIELD="`fields`",
    OWN_CLASS="`ownLevels`",
    OWN_FIELD="`ownFields`",
)


@strawberry.type(description="A grant that decided.")
class DecidingGrant:
    role: str = public(_ANSWER, description="The role's name.")
    role_id: strawberry.ID | None = public(_ANSWER, description="Null for a built-in role.")
    scope: Scope = public(_ANSWER)
    kind: GrantKind = public(_ANSWER)
    name: str = public(_ANSWER, description="The permission, class or field that is granted.")
    level: Level | None = public(_ANSWER, description="Null for a permission.")


@strawberry.type(description="What holds for rows in one relation to the viewer.")
class RowAccess:
    relation: Relation = public(_ANSWER)
    level: Level | None = public(_ANSWER, description="Null where the rule knows no levels.")
    grants: list[DecidingGrant] = public(_ANSWER, description="Where the level comes from; none where it is HIDDEN.")
    readable: bool = public(_ANSWER, description="Whether such rows are found, listed and told of at all.")
    may_search: bool | None = public(_ANSWER, description="Find such a row by the field; null: nobody can.")
    may_write: bool | None = public(_ANSWER, description="The right to write the field; null: nobody can.")


@strawberry.type(description="What a member or a role gets of a field, and why.")
class AccessExplanation:
    field: str = public(_ANSWER, description="As in `Customer.birthDate`.")
    rule: str = public(_ANSWER, description="As the schema prints it.")
    allowed: bool = public(_ANSWER, description="Whether the field may be asked for, and is not hidden in every row.")
    level: Level | None = public(_ANSWER, description="Null where it hangs on the row, or the rule knows no levels.")
    grants: list[DecidingGrant] = public(_ANSWER, description="Where a needed permission comes from.")
    rows: list[RowAccess] = public(_ANSWER, description="By relation; with an `id` that row's alone.")
    may_search: bool | None = public(_ANSWER, description="Among some rows; null: nobody can.")
    may_write: bool | None = public(_ANSWER, description="In some row; null: nobody can.")
    is_over_budget: bool | None = public(
        _ANSWER,
        description="Whether the member has spent the disclosure budget of this hour, so that what its grants show in "
        "plain is masked until the hour ends. Null for a role.",
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whose rights to which field; `relation` is that of the one row asked for."""

    viewer: Viewer
    held: list[NamedSpec]
    rule: Rule
    personal: PersonalField | None
    coordinate: str
    is_of_customer: bool
    relation: Relation | None
    is_over_budget: bool | None

    @property
    def label(self) -> str:
        """As the directives of inputs name it."""
        if self.personal is not None and FIELDS.get(self.personal.name) is self.personal:
            return label(self.personal.name)
        return _INPUT_OF.get(self.coordinate, self.coordinate)

    @property
    def relations(self) -> list[Relation]:
        if self.relation is not None:
            return [self.relation]
        if self.personal is not None:
            return list(showing.levels_by_row(self.viewer, self.personal))
        return [Relation.OTHER, Relation.TEAM, Relation.OWN] if self.is_of_customer else []


_HARMLESS = Input(why="an id opens nothing by itself")
_NAME = Input(why="a name of the schema")


@strawberry.type
class ExplainQueries:
    @public(_OWN, description="What somebody gets of a field, and why; oneself unless a member or a role is named.")
    async def explain_access(
        self,
        info: Info[Operation],
        type: Annotated[str, argument(_NAME, "As in `Customer`.")],
        field: Annotated[str, argument(_NAME, "As in `birthDate`.")],
        member: Annotated[strawberry.ID | None, argument(_HARMLESS, "A disabled one has no rights.")] = None,
        role: Annotated[
            strawberry.ID | None, argument(_HARMLESS, "A role of the tenant's own, or a built-in one's name.")
        ] = None,
        id: Annotated[strawberry.ID | None, argument(_HARMLESS, "A customer that you may read.")] = None,
    ) -> AccessExplanation | None:
        operation = info.context
        viewer, held = await _whose(operation, member, role)
        found = operation.services.rule_at(type, field)
        if found is None:
            raise BadInput("`type` and `field` name no field of the schema.")
        is_of_customer = operation.services.wholes.get(type) == _CUSTOMER
        if id is not None and (role is not None or not is_of_customer):
            raise BadInput("`id` is for fields of customers, and for members.")
        relation = None if id is None else await _relation(operation, viewer, id)
        is_over = None if viewer.principal is None else await budgets.is_over(operation.unit, viewer.principal)
        shown_to = viewer.capped() if is_over else viewer
        return _explained(_Asked(shown_to, held, *found, f"{type}.{field}", is_of_customer, relation, is_over))


async def _whose(operation: Operation, member: str | None, role: str | None) -> tuple[Viewer, list[NamedSpec]]:
    """The viewer whose rights are asked for, and its roles."""
    unit, mine = operation.unit, operation.unit.viewer
    if member is not None and role is not None:
        raise BadInput("Give `member` or `role`, not both.")
    other = None if member is None else local_id("Member", member)
    if role is None and other in (None, mine.principal):
        return mine, await deciding.named(unit, mine.roles, mine.own_roles)
    if not any(map(mine.may, _MAY_ASK)):
        raise Forbidden(f"This needs one of the permissions {', '.join(_MAY_ASK)}.")
    if role is not None:
        return await _of_role(operation, role)
    found = await rights.held(unit, [other] if other else [])
    if other not in found:
        raise NotFound
    viewer = await rights.viewer_of(unit, found[other])
    return viewer, await deciding.named(unit, viewer.roles, viewer.own_roles)


async def _of_role(operation: Operation, role: str) -> tuple[Viewer, list[NamedSpec]]:
    built_in = [each for each in Role if each == role]
    own: list[UUID] = [] if built_in else [local_id("OwnRole", role)]
    held = await deciding.named(operation.unit, built_in, own)
    if not held:
        raise NotFound
    access = Access.of([each.spec for each in held])
    return Viewer(operation.unit.tenant.id, None, frozenset(built_in), access, frozenset(own)), held


async def _relation(operation: Operation, viewer: Viewer, id: str) -> Relation:
    """Raises `NotFound`, also for a customer that whoever asks may not read."""
    found = await customers.get(operation.unit, local_id(_CUSTOMER, id), ())
    # Also where nothing hangs on it: of two grants that come to the same, one may be for one's own customers alone.
    told_apart = replace(viewer, access=replace(viewer.access, is_uniform=False))
    return told_apart.relation(found.row.owner_id)


def _explained(asked: _Asked) -> AccessExplanation:
    rows = [_row(asked, relation) for relation in asked.relations]
    levels, permission = {row.level for row in rows}, getattr(asked.rule, "permission", None)
    may = permission is None or asked.viewer.may(permission)
    return AccessExplanation(
        field=asked.coordinate,
        rule=labels.said(asked.rule),
        allowed=may if asked.personal is None else any(levels),
        level=levels.pop() if len(levels) == 1 else None,
        grants=[] if permission is None else _told(deciding.permitting(asked.held, permission)),
        rows=rows,
        may_search=_checked(giving.right_to_search, asked),
        may_write=_checked(giving.right_to_write, asked),
        is_over_budget=asked.is_over_budget,
    )


def _row(asked: _Asked, relation: Relation) -> RowAccess:
    personal = asked.personal
    return RowAccess(
        relation=relation,
        level=None if personal is None else showing.levels_by_row(asked.viewer, personal)[relation],
        grants=[] if personal is None else _told(deciding.levelling(asked.held, personal, relation)),
        readable=not asked.is_of_customer or customers.may_find(asked.viewer, relation),
        may_search=_searches(asked, relation),
        may_write=_writes(asked, relation),
    )


def _searches(asked: _Asked, relation: Relation) -> bool | None:
    if _checked(giving.right_to_search, asked) is None or not asked.is_of_customer:
        return None
    index = None if asked.personal is None else asked.personal.index
    return customers.may_find(asked.viewer, relation, *([] if index is None else [index.right]))


def _writes(asked: _Asked, relation: Relation) -> bool | None:
    names = [name for name in (*FIELDS, *CLEAR_WRITES) if label(name) == asked.label]
    return customers.may_write(asked.viewer, names[0], relation) if names else None


def _checked(right: Any, asked: _Asked) -> bool | None:
    """The guard's own check of an input; None where no input takes the field."""
    try:
        return bool(right(asked.label)(asked.viewer))
    except LookupError:
        return None


def _told(grants: list[Deciding]) -> list[DecidingGrant]:
    return [
        DecidingGrant(
            role=each.role.name,
            role_id=None if each.role.role_id is None else global_id("OwnRole", each.role.role_id),
            scope=each.scope,
            kind=each.kind,
            name=label(each.name).removeprefix("Customer.") if each.kind in _FIELD_KINDS else each.name,
            level=each.level,
        )
        for each in grants
    ]


_FIELD_KINDS = (GrantKind.FIELD, GrantKind.OWN_FIELD)
