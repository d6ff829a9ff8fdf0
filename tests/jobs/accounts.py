"""The account of a run: whatever in the database is not as the orders and their answers say, as sentences.

Read as superuser, past row-level security and past all code of the product.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from tests.jobs.orders import Order

# Each tells rows that should not be there.
_FAULTS = {
    "an import's rows have no job": """
        SELECT DISTINCT r.tenant_id, r.job_id FROM import_rows r WHERE NOT EXISTS (
            SELECT FROM jobs j WHERE (j.tenant_id, j.id, j.kind) = (r.tenant_id, r.job_id, 'import_customers'))""",
    "an import has not the rows it counts": """
        SELECT j.id, j.total, j.done, count(r.id) FROM jobs j
        LEFT JOIN import_rows r ON (r.tenant_id, r.job_id) = (j.tenant_id, j.id)
        WHERE j.kind = 'import_customers' GROUP BY j.tenant_id, j.id
        HAVING count(r.id) = 0 OR count(r.id) <> j.total OR j.done <> j.total""",
    "an import's result is not what became of its rows": """
        SELECT j.id, j.result FROM jobs j LEFT JOIN import_rows r ON (r.tenant_id, r.job_id) = (j.tenant_id, j.id)
        WHERE j.kind = 'import_customers' GROUP BY j.tenant_id, j.id
        HAVING (j.result->>'created')::int IS DISTINCT FROM count(*) FILTER (WHERE r.outcome = 'CREATED')
            OR (j.result->>'refused')::int IS DISTINCT FROM count(*) FILTER (WHERE r.outcome = 'REFUSED')""",
    "a row that was tried has cells, or none was made of it": """
        SELECT r.job_id, r.row FROM import_rows r WHERE r.outcome IS NULL OR r.cells IS NOT NULL
            OR (r.outcome = 'CREATED') <> EXISTS (
                SELECT FROM customers c WHERE (c.tenant_id, c.id) = (r.tenant_id, r.customer_id))""",
    "two rows claim one customer": """
        SELECT tenant_id, customer_id FROM import_rows WHERE customer_id IS NOT NULL
        GROUP BY tenant_id, customer_id HAVING count(*) > 1""",
    "a customer has not exactly one event of its making": """
        SELECT c.id, count(e.id) FROM customers c
        LEFT JOIN events e ON (e.tenant_id, e.subject, e.type) = (c.tenant_id, c.id, 'customer.created')
        GROUP BY c.tenant_id, c.id HAVING count(e.id) <> 1""",
    "an event tells of a customer that is not there": """
        SELECT e.id FROM events e WHERE e.type = 'customer.created' AND NOT EXISTS (
            SELECT FROM customers c WHERE (c.tenant_id, c.id) = (e.tenant_id, e.subject))""",
    "a customer's making is not exactly once in the audit log": """
        SELECT c.id, a.entries FROM customers c LEFT JOIN (
            SELECT tenant_id, subject, count(*) AS entries FROM audit_entries, unnest(subjects) AS subject
            WHERE action = 'customer.created' GROUP BY tenant_id, subject
        ) a ON (a.tenant_id, a.subject) = (c.tenant_id, c.id) WHERE a.entries IS DISTINCT FROM 1""",
    "an import's start is not exactly once in the audit log": """
        SELECT j.id, a.entries FROM jobs j LEFT JOIN (
            SELECT tenant_id, subject, count(*) AS entries FROM audit_entries, unnest(subjects) AS subject
            WHERE action = 'import.started' GROUP BY tenant_id, subject
        ) a ON (a.tenant_id, a.subject) = (j.tenant_id, j.id)
        WHERE j.kind = 'import_customers' AND a.entries IS DISTINCT FROM 1""",
    "a job's counts can't be": """
        SELECT id, attempt, deaths, fence FROM jobs WHERE state = 'DONE' AND kind <> 'provision_tenant'
        AND NOT (attempt BETWEEN 1 AND fence AND deaths BETWEEN 0 AND 2 AND fence >= 2 * deaths + 1)""",
    "an entry of the audit log is not linked": """
        SELECT e.id FROM audit_entries e WHERE NOT EXISTS (
            SELECT FROM audit_links l WHERE (l.tenant_id, l.entry_id) = (e.tenant_id, e.id))""",
    "a chain has a gap": """
        SELECT tenant_id, count(*), max(seq) FROM audit_links GROUP BY tenant_id
        HAVING count(*) <> max(seq) - min(seq) + 1""",
}


async def faults(superuser: asyncpg.Connection, orders: Sequence[Order]) -> list[str]:
    """None where nothing was lost, and nothing happened twice. Every order was answered by now."""
    found = [f"{fault}: {rows[:3]}" for fault, sql in _FAULTS.items() if (rows := await superuser.fetch(sql))]
    return [*found, *_unsteady(orders), *await _of_jobs(superuser, orders), *await _of_customers(superuser, orders)]


def _unsteady(orders: Sequence[Order]) -> Iterator[str]:
    for order in orders:
        if len(set(order.answers)) != 1:
            yield f"{order.key} was answered in different ways: {order.answers}"


async def _of_jobs(superuser: asyncpg.Connection, orders: Sequence[Order]) -> Iterator[str]:
    kept = await superuser.fetch("SELECT tenant_id, id FROM jobs WHERE kind = 'import_customers'")
    answered = [(UUID(str(order.tenant)), order.answer[0]) for order in orders if order.is_import]
    return _differences("job", answered, ((row["tenant_id"], row["id"]) for row in kept))


async def _of_customers(superuser: asyncpg.Connection, orders: Sequence[Order]) -> Iterator[str]:
    """Each good row is one customer, each other none, whichever way it came; and the answer names that customer."""
    kept = await superuser.fetch("SELECT tenant_id, id, source FROM customers")
    wanted = ((UUID(str(order.tenant)), row.label) for order in orders for row in order.rows if row.is_good)
    differences = [*_differences("customer", wanted, ((row["tenant_id"], row["source"]) for row in kept))]
    labels = {row["id"]: row["source"] for row in kept}
    made = await superuser.fetch(
        "SELECT job_id, array_agg(customer_id ORDER BY row) AS made FROM import_rows GROUP BY job_id"
    )
    of_job = {row["job_id"]: row["made"] for row in made}
    for order in orders:
        told = of_job.get(order.answer[0], []) if order.is_import else order.answer
        expected = [row.label if row.is_good else None for row in order.rows]
        if [each and labels.get(each) for each in told] != expected:
            differences.append(f"{order.key} is not what became of its rows")
    return iter(differences)


def _differences(noun: str, wanted: Iterable[Any], kept: Iterable[Any]) -> Iterator[str]:
    asked, found = Counter(wanted), Counter(kept)
    for each in sorted((asked | found).keys(), key=str):
        if not asked[each] == found[each] == 1:
            yield f"{noun} {each} was asked for {asked[each]} times and is there {found[each]} times"


async def unended(superuser: asyncpg.Connection) -> int:
    return int(await superuser.fetchval("SELECT count(*) FROM jobs WHERE ended_at IS NULL"))


async def parked(superuser: asyncpg.Connection) -> list[asyncpg.Record]:
    """Jobs that ended, but not well."""
    return list(await superuser.fetch("SELECT tenant_id, id, state, reason, deaths FROM jobs WHERE state <> 'DONE'"))
