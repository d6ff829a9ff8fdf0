"""Runs subscriptions: a source of ids that holds nothing open, and for each id an operation of its own.

Each event is answered in a fresh unit, as a fresh viewer: what was revoked meanwhile does not show in it. A stream
that hears nothing still asks every few seconds whether its viewer may be there.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from graphql import ExecutionResult, GraphQLSchema
from graphql.execution import Executor, execute_subscription_event, map_source_to_response_event
from graphql.execution.execute import create_source_event_stream

from api.documents import Prepared
from api.operation import Operations, may_be_awaited
from api.requests import GraphQLRequest
from tenants.errors import Unauthenticated
from tenants.viewers import Credential

RECHECK = 3.0  # seconds


class Streams:
    def __init__(self, schema: GraphQLSchema, operations: Operations, recheck: float = RECHECK) -> None:
        self._schema = schema
        self._operations = operations
        self._recheck = recheck

    async def subscribe(
        self, prepared: Prepared, sent: GraphQLRequest, credential: Credential | None
    ) -> AsyncIterator[ExecutionResult]:
        """A result per event. Raises `Unauthenticated` or `TenantSuspended` within seconds of its being so."""
        if credential is None:
            raise Unauthenticated
        started = await self._start(prepared, sent, credential)
        if isinstance(started, ExecutionResult):
            yield started
            return
        executor, source = started

        async def answer(event: Executor[Any]) -> ExecutionResult:
            async with self._operations.reading(prepared, sent, credential) as operation:
                event.context_value = operation
                running = execute_subscription_event(event)
                result = running if isinstance(running, ExecutionResult) else await running
                self._operations.tell(prepared, operation.unit, result)
            await self._operations.record(prepared, operation.unit, result)
            return result

        results = map_source_to_response_event(executor, source, answer)
        async with aclosing(results):
            async for result in self._watched(results, credential):
                yield result

    async def _start(
        self, prepared: Prepared, sent: GraphQLRequest, credential: Credential
    ) -> tuple[Executor[Any], Any] | ExecutionResult:
        """The source, if the viewer may have it; the unit in which that was decided has ended by then."""
        async with self._operations.reading(prepared, sent, credential) as operation:
            executor = Executor.build(
                self._schema,
                prepared.document,
                context_value=operation,
                raw_variable_values=dict(sent.variables),
                operation_name=sent.operation_name,
                is_awaitable=may_be_awaited,
            )
            if isinstance(executor, list):
                return ExecutionResult(None, executor)
            source = create_source_event_stream(executor)
            source = await source if may_be_awaited(source) else source
        return source if isinstance(source, ExecutionResult) else (executor, source)

    async def _watched(
        self, results: AsyncIterator[ExecutionResult], credential: Credential
    ) -> AsyncIterator[ExecutionResult]:
        """The results, with a look at the credential wherever none came for a while."""
        while True:
            coming = asyncio.ensure_future(anext(results, None))
            try:
                while not (await asyncio.wait([coming], timeout=self._recheck))[0]:
                    await self._operations.recheck(credential)
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait([coming])
            result = coming.result()
            if result is None:
                return
            if result.errors or any(value is not None for value in (result.data or {}).values()):
                yield result  # an event that is nobody's concern here answers null, and is not sent
            if result.data is None or any(error.path == [*result.data] for error in result.errors or ()):
                return  # the viewer may not have this stream any more
