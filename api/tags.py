"""Tags over GraphQL."""

from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info
from strawberry.dataloader import DataLoader

from api.directives import Writes, argument, personal, public, requires
from api.operation import Operation, fingerprint, key_of
from api.paging import Node, UserError, user_errors
from domain import outcomes, tags
from domain.errors import Refused
from domain.tags import TagName, TagView
from tenants.access import Permission

_SHAPE = "the shape of a payload"


@strawberry.type(description="A tenant's own word for a group of its customers.")
class Tag(Node):
    name: str | None = personal("name", TagName.fields["name"])

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, TagView)


@strawberry.type
class TagPayload:
    tag: Tag | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


@strawberry.type
class TagQueries:
    @requires(Permission.CUSTOMERS_READ, description="All tags, oldest first; a tenant has at most 500.")
    async def tags(self, info: Info[Operation]) -> list[Tag] | None:
        return cast(list[Tag], await tags.every(info.context.unit))


@strawberry.type
class TagMutations:
    @requires(
        Permission.TAGS_MANAGE, description="Make a tag. With an Idempotency-Key, asking again makes no second one."
    )
    async def create_tag(
        self,
        info: Info[Operation],
        name: Annotated[str, argument(Writes(field="Tag.name"), "1 to 200 characters; unique.")],
    ) -> TagPayload | None:
        unit, key, said = info.context.unit, key_of(info), fingerprint(info, name)
        if key and (kept := await outcomes.find(unit, key, said)):
            (before,) = await tags.get_many(unit, [UUID(kept["tag"])])
            errors = [] if before else user_errors(outcomes.gone())
            return TagPayload(tag=cast(Tag | None, before), user_errors=errors)
        try:
            made = await tags.create(unit, name)
        except Refused as refused:
            return TagPayload(tag=None, user_errors=user_errors(refused))
        if key:
            await outcomes.keep(unit, key, said, {"tag": str(made.id)})
        return TagPayload(tag=cast(Tag, made), user_errors=[])


def tags_of(operation: Operation) -> DataLoader[UUID, list[TagView]]:
    """Tags by customer id, of all customers of a page in one statement."""
    if "tags" not in operation.loaders:
        operation.loaders["tags"] = DataLoader(load_fn=lambda ids: tags.of_customers(operation.unit, ids))
    return cast("DataLoader[UUID, list[TagView]]", operation.loaders["tags"])
