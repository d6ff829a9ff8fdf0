"""Runs subscriptions: a source of ids that holds nothing open, and for each event an operation of its own.

Events that wait together are answered together, in a fresh unit and as a fresh viewer: what was revoked meanwhile does
not show in them. A stream that hears nothing is still looked after: a change of its viewer's rights is asked of the
guard, as when it began.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from graphql import ExecutionResult, GraphQLSchema
from graphql.execution import Executor, execute_subscription_event
from graphql.execution.execute import create_source_event_stream

from api.documents import Prepared, RequestRefused
from api.errors import refusal
from api.looks import Look, Looks, leave
from api.operation import Operation, Operations, may_be_awaited
from api.requests import GraphQLRequest
from api.turns import Turns
from tenants.errors import Unauthenticated
from tenants.viewers import Credential, TenantId, Viewer

RECHECK = 3.0  # seconds
FRESH = 2.0  # seconds; what is to be sent later than that after its unit is made anew
MOST_OF_TENANT = 500


@dataclass(frozen=True, slots=True)
class _Asked:
    prepared: Prepared
    sent: GraphQLRequest
    credential: Credential


@dataclass(frozen=True, slots=True)
class _Begun:
    """`source` gives lists of events, each the root value of one answer."""

    executor: Executor[Any]
    source: Any
    viewer: Viewer


class Streams:
    """`units` of events are open at once; choose it well below the database's pool, so that queries always find room.

    A tenant has `most_of_tenant` streams at once.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        operations: Operations,
        *,
        units: int = 3,
        recheck: float = RECHECK,
        most_of_tenant: int = MOST_OF_TENANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schema = schema
        self._operations = operations
        self._turns = Turns(units)
        self._looks = Looks(operations.recheck, recheck, most=max(1, units - 1))
        self._most_of_tenant = most_of_tenant
        self._open: Counter[TenantId] = Counter()
        self._clock = clock

    async def subscribe(
        self, prepared: Prepared, sent: GraphQLRequest, credential: Credential | None
    ) -> AsyncIterator[ExecutionResult]:
        """A result per event. Raises `Unauthenticated` or `TenantSuspended` within seconds of its being so."""
        if credential is None:
            raise Unauthenticated
        asked = _Asked(prepared, sent, credential)
        with self._counted(credential.tenant):
            begun = await self._begin(asked)
            if isinstance(begun, ExecutionResult):
                yield begun
                return
            async with (
                aclosing(begun.source),
                self._looks.of(credential) as look,
                aclosing(self._results(asked, begun, look)) as results,
            ):
                async for result in results:
                    if result.errors or any(value is not None for value in (result.data or {}).values()):
                        yield result  # an event that is nobody's concern here answers null, and is not sent
                    if result.data is None or any(error.path == [*result.data] for error in result.errors or ()):
                        return  # the viewer may not have this stream any more

    @contextmanager
    def _counted(self, tenant: TenantId) -> Iterator[None]:
        if self._open[tenant] >= self._most_of_tenant:
            most = self._most_of_tenant
            raise RequestRefused(refusal("RATE_LIMITED", f"A tenant follows at most {most} subscriptions at once."))
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            self._open += Counter()  # forgets those with none

    async def _begin(self, asked: _Asked) -> _Begun | ExecutionResult:
        """The source, if the viewer may have it; the unit in which that was decided has ended by then."""
        prepared, sent, tenant = asked.prepared, asked.sent, asked.credential.tenant
        async with self._turns.turn(tenant), self._operations.reading(prepared, sent, asked.credential) as [operation]:
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
        if isinstance(source, ExecutionResult):
            await self._operations.record(prepared, operation.unit, source)
            return source
        return _Begun(executor, source, operation.unit.viewer)

    async def _results(self, asked: _Asked, begun: _Begun, look: Look) -> AsyncGenerator[ExecutionResult]:
        viewer, looked, coming = begun.viewer, look(), _next(begun.source)
        try:
            while True:
                await asyncio.wait([coming, looked], return_when=asyncio.FIRST_COMPLETED)
                if looked.done():
                    now = looked.result()
                    if now != viewer and (refused := await self._refusal(asked)) is not None:
                        yield refused
                        return
                    viewer, looked = now, look()
                if coming.done():
                    if (events := coming.result()) is None:
                        return
                    async with aclosing(self._answers(asked, begun.executor, events)) as answers:
                        async for answer in answers:
                            yield answer
                    coming = _next(begun.source)
        finally:
            await leave(coming)

    async def _refusal(self, asked: _Asked) -> ExecutionResult | None:
        """What the guard says to this stream by now."""
        begun = await self._begin(asked)
        if isinstance(begun, ExecutionResult):
            return begun
        await begun.source.aclose()  # it never ran
        return None

    async def _answers(
        self, asked: _Asked, executor: Executor[Any], events: Sequence[Any]
    ) -> AsyncGenerator[ExecutionResult]:
        waiting = deque(events)
        while waiting:
            results, decided_at = await self._answer(asked, executor, waiting)
            for number, result in enumerate(results):
                if number and self._clock() - decided_at > FRESH:
                    break  # it is read slowly, and rights may have changed
                waiting.popleft()
                yield result

    async def _answer(
        self, asked: _Asked, executor: Executor[Any], events: Sequence[Any]
    ) -> tuple[list[ExecutionResult], float]:
        """Results in order, on record, and when it was decided what they show."""
        prepared, sent, credential = asked.prepared, asked.sent, asked.credential
        async with self._turns.turn(credential.tenant):
            decided_at = self._clock()
            async with self._operations.reading(prepared, sent, credential, len(events)) as operations:
                async with asyncio.TaskGroup() as group:  # side by side, so that loaders read for all in one statement
                    running = [
                        group.create_task(_execute(executor, event, operation))
                        for event, operation in zip(events, operations, strict=True)
                    ]
                results = [each.result() for each in running]
                unit = operations[0].unit
                for result in results:
                    self._operations.tell(prepared, unit, result)
        await self._operations.record(prepared, unit, _as_one(results))
        await self._operations.heed(unit)
        return results, decided_at


async def _execute(executor: Executor[Any], event: Any, operation: Operation) -> ExecutionResult:
    own = executor.build_per_event_executor(event)
    own.context_value = operation
    running = execute_subscription_event(own)
    return running if isinstance(running, ExecutionResult) else await running


def _as_one(results: Sequence[ExecutionResult]) -> ExecutionResult:
    """For the record: they share a unit, a viewer and a selection, and so what is said of levels."""
    errors = [error for result in results for error in result.errors or ()]
    return ExecutionResult(None, errors or None, extensions=results[0].extensions)


def _next(source: Any) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(anext(source, None))
