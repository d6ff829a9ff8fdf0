"""One GraphQL operation: its unit, its viewer, what it selects; commits before it answers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeGuard

import orjson
from graphql import ExecutionResult, FieldNode, GraphQLError, GraphQLSchema, execute
from graphql.pyutils import is_awaitable
from strawberry import Info

from api.documents import Prepared
from api.requests import GraphQLRequest
from api.services import Services
from crypto.errors import CofferError
from domain.errors import Forbidden
from telemetry.traces import span
from tenants.access import Level, Permission, Relation
from tenants.audit.entries import DISCLOSED, Entry
from tenants.budgets import hour_of, resets_at, tell
from tenants.documents import PersonalField
from tenants.errors import Unauthenticated
from tenants.origins import UNKNOWN, Origin
from tenants.unit import Unit
from tenants.units import Units
from tenants.viewers import Credential, Viewer

# They look at a password, or prove one anew: units of their own count failures that must stay, and none of them holds a
# connection while Argon2 works. So they come without other fields, and find a credential in place of a unit.
APART = frozenset(
    f"Mutation.{name}"
    for name in (
        *("signIn", "refreshSession", "confirmIdentity", "changePassword", "removeSecondFactor"),
        *("requestPasswordReset", "resetPassword", "acceptInvitation"),
        *("beginSignOn", "completeSignOn", "linkSignOn"),  # they wait for a provider
    )
)
# They go on in a frozen tenant: those that thaw it, those that change nothing but the audit log, and what a customer
# or a court may ask of a tenant that leaves; those say themselves that they wait for the end of a restore.
THAWING = frozenset(
    f"Mutation.{name}"
    for name in (
        *("cancelOffboarding", "cancelJob", "revealCustomerField", "exportCustomer"),
        *("eraseCustomer", "placeHold", "liftHold"),
    )
)
# Each of them may have a password looked at or hashed, which is some hundred times the work of a field.
PASSWORDS = frozenset(
    {
        *("signIn", "confirmIdentity", "changePassword", "removeSecondFactor"),
        *("resetPassword", "acceptInvitation", "completeSignUp"),
    }
)
_HIDDEN = tuple(Level.HIDDEN for _ in Relation)


class Operation:
    """What resolvers find in `info.context`. Without a credential it has no unit and no viewer, only what is public."""

    def __init__(
        self, request: GraphQLRequest, selected: frozenset[str], services: Services, unit: Unit | None
    ) -> None:
        self.request = request
        self.selected = selected
        self.services = services
        self.viewer: Viewer | None = unit.viewer if unit else None
        self.loaders: dict[str, Any] = {}
        self.credential: Credential | None = None  # of one that is `APART`
        self._levels: dict[int, tuple[Level, ...]] = {}  # fields live as long as the schema
        self._unit = unit

    @property
    def unit(self) -> Unit:
        if self._unit is None:
            raise Unauthenticated
        return self._unit

    def may(self, permission: Permission) -> bool:
        return self.viewer is not None and permission in self.viewer.grants.permissions

    def levels(self, field: PersonalField) -> tuple[Level, ...]:
        """Decided once per operation and field; by `Relation` of the row to the viewer."""
        decided = self._levels.get(id(field))
        if decided is None:
            decided = _HIDDEN if self.viewer is None else self.viewer.levels(field)
            self._levels[id(field)] = decided
        return decided

    def columns(self, kind: str) -> set[str]:
        """The sealed columns of a type that this operation will open, so that no other is fetched."""
        return set() if self.viewer is None else self.services.columns(kind, self.selected, self.viewer)

    async def undoable(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run one root mutation field; what it changed is undone if it answers with user errors or raises."""
        if self._unit is None:
            return await work()
        try:
            async with self._unit.savepoint():
                payload = await work()
                if payload.user_errors:
                    raise _Undo(payload)
                return payload
        except _Undo as undo:
            return undo.payload


def key_of(info: Info[Operation]) -> str | None:
    """The client's Idempotency-Key, told apart by the answer it is for, as a request may hold several mutations."""
    key = info.context.request.idempotency_key
    return None if key is None else f"{info.path.key}:{key}"


def fingerprint(info: Info[Operation], request: Any) -> bytes:
    """The mutation's name counts: to archive and to restore a customer take the same input."""
    return orjson.dumps([info.field_name, request], option=orjson.OPT_SORT_KEYS)


class _Undo(Exception):
    def __init__(self, payload: Any) -> None:
        self.payload = payload


class _Failed(Exception):
    """An unexpected error: nothing of the operation stays."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        self.errors = errors


class Operations:
    """Runs prepared operations, each in a unit of its own; `services` reach resolvers."""

    def __init__(
        self,
        schema: GraphQLSchema,
        units: Units,
        services: Services,
    ) -> None:
        self._schema = schema
        self._units = units
        self._services = services

    async def execute(self, prepared: Prepared, sent: GraphQLRequest, credential: Credential | None) -> ExecutionResult:
        if credential is None or _is_apart(prepared):
            return await self._run(prepared, sent, None, credential)
        writes = prepared.kind == "mutation"
        thaws = bool(roots := _roots(prepared)) and roots <= THAWING
        try:
            async with self._enter(credential, write=writes, origin=sent.origin, thaws=thaws) as unit:
                result = await self._run(prepared, sent, unit)
                unexpected = [error for error in result.errors or () if _is_unexpected(error)]
                if writes and unexpected:
                    raise _Failed(unexpected)
                if writes:  # what can't be recorded is not done
                    await self.record(prepared, unit, result)
        except _Failed as failed:
            return ExecutionResult(None, failed.errors)
        if not writes:  # the unit has ended, so no connection waits for the recorder
            await self.record(prepared, unit, result)
        await self.heed(unit)
        return result

    @asynccontextmanager
    async def reading(
        self, prepared: Prepared, sent: GraphQLRequest, credential: Credential, events: int = 1
    ) -> AsyncIterator[list["Operation"]]:
        """An operation for each of so many events, all in one unit that ends with the block; they share loaders."""
        async with self._enter(credential, write=False, origin=sent.origin) as unit:
            operations = [Operation(sent, prepared.selected, self._services, unit) for _ in range(events)]
            for operation in operations:
                operation.loaders = operations[0].loaders
            yield operations

    async def recheck(self, credential: Credential) -> Viewer:
        """Who that is by now. Raises `Unauthenticated` or `TenantSuspended` where the credential opens nothing."""
        async with self._enter(credential, write=False, origin=UNKNOWN) as unit:
            return unit.viewer

    @asynccontextmanager
    async def _enter(
        self, credential: Credential, *, write: bool, origin: Origin, thaws: bool = False
    ) -> AsyncIterator[Unit]:
        entering = self._units.enter(
            credential.tenant,
            credential.principal,
            write=write,
            origin=origin,
            under=credential.session,
            key=credential.key,
            thaws=thaws,
        )
        async with entering as unit:
            self._services.live_keys.used(credential, unit.now)
            yield unit

    async def record(self, prepared: Prepared, unit: Unit, result: ExecutionResult) -> None:
        """Whatever is about to leave, and what was refused, is on record first. Raises `AuditUnavailable`."""
        entries = list(_disclosures(self._services, prepared.selected, unit))
        refused = sorted({_field_name(error) for error in result.errors or () if _code(error) == Forbidden.code})
        if prepared.kind != "mutation":  # a writing unit enters its own, in its transaction
            entries += unit.witness()
        if refused:
            entries.append(_entry(unit, "access.refused", fields=refused, outcome=Forbidden.code))
        if entries:
            with span("record", entries=len(entries)), self._counted(entries):
                await self._services.recorder.record(entries)

    @contextmanager
    def _counted(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Against the viewer's budget from now on: what runs beside this must know."""
        if self._units.budgets is not None:
            self._units.budgets.note(entries)
        try:
            yield
        except CofferError:
            if self._units.budgets is not None:
                self._units.budgets.forget(entries)
            raise

    async def heed(self, unit: Unit) -> None:
        """Tell administrators, once, that the viewer's budget is spent; the unit has ended."""
        budgets, member = self._units.budgets, unit.viewer.principal
        if budgets is None or member is None or not budgets.claim_telling(unit):
            return
        try:
            async with self._units.enter(unit.tenant.id, None, write=True, origin=unit.origin) as house:
                await tell(house, member, hour_of(unit.now))
        except CofferError:
            budgets.renounce_telling(unit)

    async def _run(
        self, prepared: Prepared, sent: GraphQLRequest, unit: Unit | None, credential: Credential | None = None
    ) -> ExecutionResult:
        operation = Operation(sent, prepared.selected, self._services, unit)
        operation.credential = credential
        with span("execute"):
            running = execute(
                self._schema,
                prepared.document,
                context_value=operation,
                variable_values=dict(sent.variables),
                operation_name=sent.operation_name,
                is_awaitable=may_be_awaited,
            )
            result = running if isinstance(running, ExecutionResult) else await running
        if unit is not None:
            self.tell(prepared, unit, result)
        return result

    def tell(self, prepared: Prepared, unit: Unit, result: ExecutionResult) -> None:
        """Say in the answer at which level each selected personal field was shown, and by which rule."""
        if disclosed := self._services.disclosure(prepared.selected, unit.viewer):
            if unit.is_over_budget:
                spent = {"budget": "EXCEEDED", "until": resets_at(unit.now).isoformat()}
                disclosed = [each | spent for each in disclosed]
            result.extensions = {**(result.extensions or {}), "disclosure": disclosed}


def _is_apart(prepared: Prepared) -> bool:
    roots = _roots(prepared)
    return prepared.kind == "mutation" and bool(roots) and roots <= APART


def _roots(prepared: Prepared) -> set[str]:
    return {coordinate for coordinate in prepared.selected if coordinate.startswith("Mutation.")}


def _disclosures(services: Services, selected: frozenset[str], unit: Unit) -> Iterator[Entry]:
    """One entry per type, and relation to the viewer, whose personal values were read: which fields at which level."""
    for (kind, relation), disclosed in unit.disclosed.items():
        shown = sorted(disclosed.fields) + [
            f"{coordinate}:{level.name}" for coordinate, level in services.shown(kind, selected, unit.viewer, relation)
        ]
        records, plain = sorted(disclosed.records), sum(field.endswith(f":{Level.PLAIN.name}") for field in shown)
        counts = {
            "records": len(records),
            "plain": len(records) * plain,
            "masked": len(records) * (len(shown) - plain),
        }
        yield _entry(unit, DISCLOSED, subject_type=kind, subjects=records, fields=shown, details=counts)


def _entry(unit: Unit, action: str, **what: Any) -> Entry:
    viewer = unit.viewer
    return Entry(tenant=viewer.tenant, at=unit.now, actor=viewer.principal, action=action, origin=unit.origin, **what)


def _field_name(error: GraphQLError) -> str:
    """As the schema has it: the path holds aliases, which are the client's own words."""
    node = error.nodes[0] if error.nodes else None
    return node.name.value if isinstance(node, FieldNode) else "?"


def _code(error: GraphQLError) -> str | None:
    origin = error.original_error
    while isinstance(origin, GraphQLError):
        origin = origin.original_error
    return origin.code if isinstance(origin, CofferError) else None


_PLAIN = frozenset({str, int, float, bool, type(None), list, tuple, dict})


def may_be_awaited(value: Any) -> TypeGuard[Awaitable[Any]]:
    """graphql-core asks this of every value of every row; most are plain, and their type alone answers."""
    return type(value) not in _PLAIN and is_awaitable(value)


def _is_unexpected(error: GraphQLError) -> bool:
    origin = error.original_error
    while isinstance(origin, GraphQLError):
        origin = origin.original_error
    return origin is not None and not isinstance(origin, CofferError)
