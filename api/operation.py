"""One GraphQL operation: its unit, its viewer, what it selects; commits before it answers."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeGuard

from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute
from graphql.pyutils import is_awaitable

from api.documents import Prepared
from api.requests import GraphQLRequest
from api.services import Services
from crypto.errors import CofferError
from tenants.access import Level, Permission, Sensitivity
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
        writes = prepared.kind == "mutation"
        try:
            async with self._units.enter(credential.tenant, credential.principal, write=writes) as unit:
                result = await self._run(prepared, sent, unit)
                unexpected = [error for error in result.errors or () if _is_unexpected(error)]
                if writes and unexpected:
                    raise _Failed(unexpected)
        except _Failed as failed:
            return ExecutionResult(None, failed.errors)
        return result

    async def _run(self, prepared: Prepared, sent: GraphQLRequest, unit: Unit | None) -> ExecutionResult:
        operation = Operation(sent, prepared.selected, self._services, unit)
        running = execute(
            self._schema,
            prepared.document,
            context_value=operation,
            variable_values=dict(sent.variables),
            operation_name=sent.operation_name,
            is_awaitable=_may_be_awaited,
        )
        result = running if isinstance(running, ExecutionResult) else await running
        if unit is not None and (disclosed := self._services.disclosure(prepared.selected, unit.viewer)):
            result.extensions = {**(result.extensions or {}), "disclosure": disclosed}
        return result


_PLAIN = frozenset({str, int, float, bool, type(None), list, tuple, dict})


def _may_be_awaited(value: Any) -> TypeGuard[Awaitable[Any]]:
    """graphql-core asks this of every value of every row; most are plain, and their type alone answers."""
    return type(value) not in _PLAIN and is_awaitable(value)


def _is_unexpected(error: GraphQLError) -> bool:
    origin = error.original_error
    while isinstance(origin, GraphQLError):
        origin = origin.original_error
    return origin is not None and not isinstance(origin, CofferError)
