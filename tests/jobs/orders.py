"""Orders: changes that clients send again and again until somebody answers, and what each of them must leave behind."""

import asyncio
import csv
import io
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import orjson

from tenants.access import Role
from tenants.ids import any_local_id
from tenants.viewers import TenantId
from tests.house import House

MANY = "mutation($i: [CustomerInput!]!) { createCustomers(input: $i) { outcomes { customer { id } } } }"
IMPORTING = "mutation($i: ImportInput!) { importCustomers(input: $i) { job { id } userErrors { code } } }"
FIELDS = {"source": "label", "emails": "mail", "externalId": "number"}
COLUMNS = [{"column": column, "field": field_} for field_, column in FIELDS.items()]
PAUSE = 0.4  # seconds that a client lets pass after an answer, at most; and after a server that was not there


@dataclass(frozen=True, slots=True)
class Row:
    """`label` stands in the customer's `source`, which is clear: so customers can be counted by SQL."""

    label: str
    mail: str
    number: str | None
    is_good: bool


@dataclass
class Order:
    tenant: TenantId
    slug: str
    key: str
    is_import: bool
    rows: Sequence[Row]
    sent: int = 0
    answers: list[tuple[UUID | None, ...]] = field(default_factory=list)

    @property
    def answer(self) -> tuple[UUID | None, ...]:
        """The job of an import; else the customer of each row, None where it was refused."""
        return self.answers[0]

    def body(self) -> bytes:
        if not self.is_import:
            rows = [{"source": r.label, "emails": [r.mail], "externalId": r.number} for r in self.rows]
            return orjson.dumps({"query": MANY, "variables": {"i": rows}})
        text = io.StringIO()
        csv.writer(text).writerows([FIELDS.values(), *((r.label, r.mail, r.number or "") for r in self.rows)])
        return orjson.dumps({"query": IMPORTING, "variables": {"i": {"csv": text.getvalue(), "columns": COLUMNS}}})

    def read(self, data: dict[str, Any]) -> tuple[UUID | None, ...]:
        if self.is_import:
            assert data["importCustomers"]["userErrors"] == []
            return (_local(data["importCustomers"]["job"]),)
        return tuple(_local(outcome["customer"]) for outcome in data["createCustomers"]["outcomes"])


@dataclass
class Clients:
    """They know no server by name: each try goes to any of `addresses`, whether it is up or not."""

    house: House
    addresses: Sequence[str]
    chance: random.Random
    orders: list[Order] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # tries that brought no answer
    slowest: float = 0.0  # seconds from the first try to the answer
    _is_over: bool = False

    @asynccontextmanager
    async def sending(self, clients: int) -> AsyncIterator[None]:
        """Clients at work while the block runs; at its end each waits for the answer that it is still owed."""
        self._is_over = False
        async with httpx.AsyncClient(timeout=60) as http, asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._send(http))
            try:
                yield
            finally:
                self._is_over = True

    async def ask_again(self, orders: Sequence[Order]) -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            for order in orders:
                await self._until_answered(http, order)

    async def _send(self, http: httpx.AsyncClient) -> None:
        while not self._is_over:
            order = self._next()
            times = 2 if self.chance.random() < 0.2 else 1  # two at once: a client that took a slow server for dead
            began = asyncio.get_running_loop().time()
            await asyncio.gather(*(self._until_answered(http, order) for _ in range(times)))
            self.slowest = max(self.slowest, asyncio.get_running_loop().time() - began)
            await asyncio.sleep(self.chance.uniform(0, PAUSE))

    async def _until_answered(self, http: httpx.AsyncClient, order: Order) -> None:
        body = order.body()
        while True:
            data = await self._tried(http, order, body)
            if data is not None:
                return order.answers.append(order.read(data))
            await asyncio.sleep(self.chance.uniform(0, PAUSE))

    async def _tried(self, http: httpx.AsyncClient, order: Order, body: bytes) -> dict[str, Any] | None:
        order.sent += 1
        headers = {
            "authorization": f"Bearer {await self.house.token(self.house.members[order.slug][Role.OWNER])}",
            "content-type": "application/json",
            "idempotency-key": order.key,
        }
        try:
            response = await http.post(f"{self.chance.choice(self.addresses)}/graphql", content=body, headers=headers)
        except httpx.TransportError as error:
            self.failures.append(type(error).__name__)
            return None
        if response.status_code == 401:  # a long soak outlives its tokens
            self.house.tokens.clear()
            return None
        answer = response.json()
        if errors := answer.get("errors"):
            assert all(error["extensions"].get("retryable") for error in errors), errors
            self.failures.append(errors[0]["extensions"]["code"])
            return None
        data: dict[str, Any] = answer["data"]
        return data

    def _next(self) -> Order:
        number, slug = len(self.orders), self.chance.choice(sorted(self.house.tenants))
        is_import = self.chance.random() < 0.6
        most = self.chance.choice((3, 30, 220)) if is_import else 8
        rows = list(self._rows(number, slug, self.chance.randint(1, most)))
        order = Order(self.house.tenants[slug].id, slug, f"kills-{number}", is_import, rows)
        self.orders.append(order)
        return order

    def _rows(self, order: int, slug: str, count: int) -> Iterator[Row]:
        """Good ones, ones whose e-mail is none, and ones whose external id somebody else has by now."""
        numbered = [o for o in self.orders if o.slug == slug and not o.is_import and o.answers]
        taken = [row.number for o in numbered[-20:] for row in o.rows if row.is_good and row.number]
        for place in range(count):
            label, fate = f"kills-{order}-{place}", self.chance.random()
            if fate < 0.1:
                yield Row(label, "no address", None, False)
            elif fate < 0.15 and taken:
                yield Row(label, f"{label}@example.org", self.chance.choice(taken), False)
            else:
                yield Row(label, f"{label}@example.org", label if fate < 0.6 else None, True)


def _local(node: dict[str, str] | None) -> UUID | None:
    if node is None:
        return None
    located = any_local_id(node["id"])
    assert located is not None
    return located[1]
