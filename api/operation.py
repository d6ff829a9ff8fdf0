"""One GraphQL operation: its unit, its viewer, what it selects; commits before it answers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
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
from tenants.access import Level, Permission, Sensitivity
from tenants.audit.entries import DISCLOSED, Entry
from tenants.errors import Unauthenticated
from tenants.unit import Unit, Units
from tenants.viewers import Credential, Viewer


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
        self._unit = unit

    @property
    def unit(self) -> Unit:
        if self._unit is None:
            raise Unauthenticated
        return self._unit

    def may(self, permission: Permission) -> bool:
        return self.viewer is not None and permission in self.viewer.grants.permissions

    def level(self, sensitivity: Sensitivity) -> Level:
        return Level.HIDDEN if self.viewer is None else self.viewer.grants.level(sensitivity)

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
        if credential is None:
            return await self._run(prepared, sent, None)
        tenant, principal, writes = credential.tenant, credential.principal, prepared.kind == "mutation"
        try:
            async with self._units.enter(tenant, principal, write=writes, origin=sent.origin) as unit:
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
        return result

    @asynccontextmanager
    async def reading(
        self, prepared: Prepared, sent: GraphQLRequest, credential: Credential, events: int = 1
    ) -> AsyncIterator[list["Operation"]]:
        """An operation for each of so many events, all in one unit that ends with the block; they share loaders."""
        unit = self._units.enter(credential.tenant, credential.principal, write=False, origin=sent.origin)
        async with unit as entered:
            operations = [Operation(sent, prepared.selected, self._services, entered) for _ in range(events)]
            for operation in operations:
                operation.loaders = operations[0].loaders
            yield operations

    async def recheck(self, credential: Credential) -> Viewer:
        """Who that is by now. Raises `Unauthenticated` or `TenantSuspended` where the credential opens nothing."""
        async with self._units.enter(credential.tenant, credential.principal, write=False) as unit:
            return unit.viewer

    async def record(self, prepared: Prepared, unit: Unit, result: ExecutionResult) -> None:
        """Whatever is about to leave, and what was refused, is on record first. Raises `AuditUnavailable`."""
        entries = list(_disclosures(self._services.wholes, (result.extensions or {}).get("disclosure", ()), unit))
        refused = sorted({_field_name(error) for error in result.errors or () if _code(error) == Forbidden.code})
        if prepared.kind != "mutation":  # a writing unit enters its own, in its transaction
            entries += unit.witness()
        if refused:
            entries.append(_entry(unit, "access.refused", fields=refused, outcome=Forbidden.code))
        if entries:
            with span("record", entries=len(entries)):
                await self._services.recorder.record(entries)

    async def _run(self, prepared: Prepared, sent: GraphQLRequest, unit: Unit | None) -> ExecutionResult:
        operation = Operation(sent, prepared.selected, self._services, unit)
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
            result.extensions = {**(result.extensions or {}), "disclosure": disclosed}


def _disclosures(wholes: Mapping[str, str], said: Iterable[dict[str, str]], unit: Unit) -> Iterator[Entry]:
    """One entry per type whose personal values were read: which fields at which level, of which records."""
    for kind, disclosed in unit.disclosed.items():
        shown = sorted(disclosed.fields) + [
            f"{entry['field']}:{entry['level']}"
            for entry in said
            if entry["level"] != Level.HIDDEN.name and wholes[entry["field"].partition(".")[0]] == kind
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
