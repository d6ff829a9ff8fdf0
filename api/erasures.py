"""Erasures over GraphQL: forget a customer for ever, and see how far that is, with its certificate."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry import Info

from api.directives import Input, argument, public, requires
from api.meanings import described
from api.operation import Operation, fingerprint, key_of
from api.paging import Connection, Node, UserError, cursor, global_id, local_id, user_errors, window
from domain import erasures, outcomes
from domain.erasures import ErasureView
from domain.errors import Refused
from tenants.access import Permission
from tenants.erasures import ErasureCause
from tenants.erasures.certificates import canonical

_SHAPE = "the shape of a payload"
_ROW = "ids, codes, counts and moments, for whoever asked for the erasure or reads the audit log"
_LIST = "erasures"
_HARMLESS = Input(why="an id opens nothing by itself")


class ErasureState(StrEnum):
    ERASED = "ERASED"
    FINISHED = "FINISHED"


described(
    ErasureCause,
    "Why a customer is erased.",
    REQUEST="The person asked for it.",
    CONSENT_WITHDRAWN="The person withdrew the consent that the data was kept by.",
    NO_LONGER_NEEDED="What it was kept for is over.",
    UNLAWFUL="It should never have been kept.",
)
described(
    ErasureState,
    "How far an erasure is.",
    ERASED="The customer is gone from the database; old backups still open until a new key file is on every store.",
    FINISHED="No backup opens it any more either; `certificate` says so.",
)


@strawberry.type(description="A signed statement of what was destroyed.")
class Certificate:
    key_version: int = public(_ROW, description="Of the key `coffer-audit` at the key store.")
    signature: str = public(_ROW, description="Ed25519 in base64; docs/govern.md says over which bytes.")

    @public(_ROW, description="Canonical JSON (RFC 8785) of the format `coffer.certificate.v1`.")
    def json(self: Any) -> str:
        return canonical(self.said)


@strawberry.type(description="That a customer was forgotten.")
class Erasure(Node):
    number: int = public(_ROW, description="Its place in the tenant's ledger, from 1.")
    ticket: str | None = public(_ROW)
    finished_at: datetime | None = public(_ROW)

    @public(_ROW, description="Null for one that came back from a key file, after the database was lost.")
    def cause(self: Any) -> ErasureCause | None:
        return None if self.cause is None else ErasureCause(self.cause)

    @public(_ROW)
    def state(self: Any) -> ErasureState:
        return ErasureState.ERASED if self.signed is None else ErasureState.FINISHED

    @public(_ROW, description="Which customer it was; nothing has this id any more.")
    def customer_id(self: Any) -> strawberry.ID:
        return global_id("Customer", self.subject)

    @public(_ROW)
    def erased_at(self: Any) -> datetime:
        return cast(datetime, self.at)

    @public(_ROW, description="Null before the erasure is finished.")
    def certificate(self: Any) -> Certificate | None:
        return cast(Certificate | None, self.signed)

    @classmethod
    def is_type_of(cls, value: object, _info: Any) -> bool:
        return isinstance(value, ErasureView)


@strawberry.type
class ErasurePayload:
    erasure: Erasure | None = public(_SHAPE)
    user_errors: list[UserError] = public(_SHAPE)


_FIRST = Annotated[int | None, argument(Input(why="a size"), "1 to 100; 20 unless told.")]
_CURSOR = Annotated[
    str | None, argument(Input(why="holds an erasure's number and id, under a MAC"), "An end or edge of the list.")
]


@strawberry.type
class ErasureQueries:
    @requires(Permission.AUDIT_READ, description="The ledger of erasures, the newest first.")
    async def erasures(
        self,
        info: Info[Operation],
        first: _FIRST = None,
        after: _CURSOR = None,
        last: _FIRST = None,
        before: _CURSOR = None,
    ) -> Connection[Erasure] | None:
        unit = info.context.unit
        within = window(unit, _LIST, first, after, last, before, is_counted=True)
        return Connection(
            page=await erasures.page(unit, within),
            cursor_of=lambda view: cursor(unit, _LIST, (view.number, view.id)),
            count=lambda: erasures.count(unit),
        )

    @public(_ROW, description="One erasure; NOT_FOUND for all others.")
    async def erasure(
        self, info: Info[Operation], id: Annotated[strawberry.ID, argument(_HARMLESS, "The erasure's.")]
    ) -> Erasure | None:
        return cast(Erasure, await erasures.get(info.context.unit, local_id("Erasure", id)))


@strawberry.type
class ErasureMutations:
    @requires(
        Permission.CUSTOMERS_ERASE,
        description="Erase a customer for ever, in old backups too. Nothing brings it back. Needs a fresh proof of"
        " identity. With an Idempotency-Key, asking again tells of the same erasure.",
    )
    async def erase_customer(
        self,
        info: Info[Operation],
        id: Annotated[strawberry.ID, argument(_HARMLESS, "The customer's.")],
        cause: Annotated[ErasureCause, argument(Input(why="a code"), "Why; stands in the certificate.")],
        ticket: Annotated[
            str | None, argument(Input(why="a code, never free text"), "Where the request stands: `DSR-1042`.")
        ] = None,
    ) -> ErasurePayload | None:
        try:
            erased = await _once(info, local_id("Customer", id), cause, ticket)
        except Refused as refused:
            return ErasurePayload(erasure=None, user_errors=user_errors(refused))
        return ErasurePayload(erasure=cast(Erasure, erased), user_errors=[])


async def _once(info: Info[Operation], customer: UUID, cause: ErasureCause, ticket: str | None) -> ErasureView:
    request = {"id": customer, "cause": cause.value, "ticket": ticket}
    unit, key, said = info.context.unit, key_of(info), fingerprint(info, request)
    kept = await outcomes.find(unit, key, said) if key else None
    if kept is not None:
        return await erasures.get(unit, UUID(kept["erasure"]))
    made = await erasures.erase(unit, customer, cause, ticket)
    if key:
        await outcomes.keep(unit, key, said, {"erasure": str(made.id)})
    return made


async def erasures_by_id(operation: Operation, ids: list[Any]) -> dict[Any, Any]:
    """Those that the viewer may see."""
    return {view.id: view for view in await erasures.get_many(operation.unit, ids)}
