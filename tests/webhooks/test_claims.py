"""Whatever waits, and however much: a claim takes the first of each subject, those that are due for longest."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from tenants.database import SCOPE
from tenants.webhooks import ledger
from tests.house import House
from tests.webhooks.post import PostOffice, post_office

# Row by row: which subject, after how many milliseconds of the last hour it is due, and whether somebody has it.
WAITING = """INSERT INTO webhook_deliveries (tenant_id, id, endpoint_id, event_id, type, type_version, happened_at,
        subject, fields, place, xid, state, due_at, lease_until, created_at)
    SELECT $1, gen_random_uuid(), $2, gen_random_uuid(), 'customer.updated', 1, now(), md5(({subject})::text)::uuid,
        '{{}}', n, n, 'PENDING', $3::timestamptz - interval '1 hour' + ({due}) * interval '1 millisecond',
        CASE WHEN {leased} THEN $3::timestamptz + interval '1 minute' END, now()
    FROM generate_series(1, {many}) n"""
FREE = """SELECT id FROM (
        SELECT DISTINCT ON (subject) * FROM webhook_deliveries WHERE tenant_id = $1 AND state = 'PENDING'
        ORDER BY subject, place, xid, event_id
    ) head WHERE due_at <= $2 AND lease_until IS NULL ORDER BY due_at LIMIT $3"""
CASES = {
    "few": {"subject": "n % 40", "due": "n", "leased": "n = 3", "many": 90},
    "many subjects": {"subject": "n % 200", "due": "n", "leased": "n <= 5", "many": 1000},
    "the later ones due first": {"subject": "n % 100", "due": "1000 - n", "leased": "n <= 5", "many": 1000},
    "all behind one": {"subject": "1", "due": "n", "leased": "n = 1", "many": 400},
    "some behind one": {"subject": "greatest(n - 400, 0)", "due": "n", "leased": "n = 1", "many": 430},
    "behind one, and many others": {"subject": "greatest(n - 400, 0)", "due": "n", "leased": "n = 1", "many": 1600},
    "not due yet": {
        "subject": "n % 1200",
        "due": "CASE WHEN n < 1190 THEN 4e6 ELSE n END",
        "leased": "false",
        "many": 2400,
    },
}


@pytest.mark.parametrize("name", CASES)
async def test_the_first_of_each_subject_is_taken_and_what_is_due_for_longest(house: House, name: str) -> None:
    async with post_office(house) as post:
        endpoint = await _waiting(post, CASES[name])
        wanted = await post.rows(FREE, post.clock.now, 8)
        claimed = await post.webhooks.ledger.claim(post.tenant.id, endpoint, post.clock.now, 8)
        then = await post.rows(FREE, post.clock.now, 8)
        next_ = await post.webhooks.ledger.claim(post.tenant.id, endpoint, post.clock.now, 8)
    assert {each.id for each in claimed} == {row["id"] for row in wanted}
    assert {each.id for each in next_} == {row["id"] for row in then}
    assert len(wanted) == (0 if name == "all behind one" else 8)


async def test_a_claim_looks_at_few_rows_however_many_wait(house: House) -> None:
    async with post_office(house) as post:
        endpoint = await _waiting(post, {"subject": "n", "due": "n", "leased": "false", "many": 20_000})
        await post.superuser.execute("ANALYZE webhook_deliveries")
        read = await _rows_read(post, endpoint)
    assert 0 < read < 2_000


async def _waiting(post: PostOffice, case: dict[str, Any]) -> UUID:
    view, _ = await post.add("https://receiver.example/")
    await post.superuser.execute(WAITING.format(**case), post.tenant.id, view.id, post.clock.now)
    return view.id


async def _rows_read(post: PostOffice, endpoint: UUID) -> int:
    moments = (bindparam(name, type_=TIMESTAMP(timezone=True)) for name in ("now", "until"))
    explained = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {ledger._CLAIM.text}").bindparams(*moments)
    now = post.clock.now
    async with post.app.session(write=True) as session:
        await session.execute(SCOPE, {"tenant": post.tenant.id})
        said = {"tenant": post.tenant.id, "endpoint": endpoint, "now": now, "until": now, "most": 8}
        ((plan,),) = (await session.execute(explained, said)).all()
    return _read(plan[0]["Plan"])


def _read(node: dict[str, Any]) -> int:
    """Rows that came from tables, below this node too."""
    own = round(node["Actual Rows"] * node["Actual Loops"]) if "Index Name" in node or "Relation Name" in node else 0
    return own + sum(_read(each) for each in node.get("Plans", ()))
