"""Turning over the index key: nothing is lost from search or sign-in, whenever it is cut off and whatever changes."""

import asyncio
import os
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from crypto.keys import KeyState, Purpose, wrapping_context
from domain import customers
from domain.indexes import INDEXES
from domain.paging import Window
from jobs.handling import Step
from jobs.rotations.bik import At
from tenants import members
from tenants.errors import Conflict, MemberExists, TooManyAttempts
from tenants.jobs import JobState, job_acts
from tenants.keys import index_keys, new_keys
from tenants.keys.rotating import proof_message
from tenants.signing_in import attempts
from tests.house import PASSWORD
from tests.jobs.desk import Desk
from tests.jobs.indexing import Between, Turning, watch

SOAK = os.environ.get("COFFER_SOAK") == "1"
STATES = ["BEGUN", "COMMITTED", "FILLING", "PROVING", "FILLED", "SWITCHED", "SIGNING"]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    return watch(monkeypatch)


@pytest.fixture
async def turning(desk: Desk, between: Between) -> Turning:
    return await Turning.opened(desk, between)


async def test_a_rotation_leaves_the_tokens_of_the_new_key_alone_and_a_signed_proof(turning: Turning) -> None:
    ended = await turning.rotate()
    assert (ended.state, ended.from_version, ended.to_version) == ("CLEANED", 1, 2)
    assert await turning.keys() == {1: "DECRYPT_ONLY", 2: "ACTIVE"}
    assert turning.between.states == STATES
    await turning.check_tokens()
    counts = ended.proof["tables"]
    assert counts["customers"]["owners"] == 7
    assert {name: (each["rewritten"], each["tokens"] - each["cleared"]) for name, each in counts.items()} == {
        index.name: (0, 0) for index in INDEXES
    }
    assert ended.signature is not None
    assert proof_message(turning.tenant, ended.proof)


@pytest.mark.parametrize("seed", range(20 if SOAK else 2))
async def test_search_equals_a_scan_whatever_changes_while_the_key_turns_over(turning: Turning, seed: int) -> None:
    turning.chance = Random(seed)  # noqa: S311

    async def change_and_look(_at: At) -> None:
        for _ in range(4):
            await turning.change()
        await turning.check()

    turning.between.before = change_and_look
    await turning.rotate()
    await turning.check()
    await turning.check_tokens()


async def test_search_equals_a_scan_under_writers_that_never_stop(turning: Turning) -> None:
    is_over = asyncio.Event()

    async def look(_at: At) -> None:
        await turning.check()

    turning.between.before = look
    writers = [asyncio.create_task(turning.change_until(is_over)) for _ in range(3)]
    await turning.rotate()
    is_over.set()
    assert min(await asyncio.gather(*writers)) > 10
    await turning.check()
    await turning.check_tokens()


async def test_a_rotation_cut_off_anywhere_goes_on_and_ends(turning: Turning, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a move, and at its end just before it commits."""
    await turning.rotate()
    moves = len(turning.between.seen)
    cuts = [(number, inside) for number in range(moves) for inside in (False, True)]
    for number, inside in cuts if SOAK else turning.chance.sample(cuts, 6):
        turning.between.seen.clear()
        rotation, job = await turning.begin()
        with monkeypatch.context() as cutting:
            _cut(turning, cutting, number, inside=inside)
            assert await turning.lead(job) == JobState.READY
        turning.between.before = None
        await turning.change()
        await turning.check()
        await turning.finish(job)
        assert (await turning.rotation(rotation)).state == "CLEANED"
        assert sorted((await turning.keys()).values())[0] == "ACTIVE"
        await turning.check()
        await turning.check_tokens()


def _cut(turning: Turning, cutting: pytest.MonkeyPatch, number: int, *, inside: bool) -> None:
    def cut(act: Callable[..., None]) -> Callable[..., None]:
        def done(step: Step, **what: Any) -> None:
            act(step, **what)
            if len(turning.between.seen) == number + 1:
                raise asyncio.CancelledError

        return done

    async def before(_at: At) -> None:
        if len(turning.between.seen) == number + 1:
            raise asyncio.CancelledError

    if inside:
        cutting.setattr(Step, "move", cut(Step.move))
        cutting.setattr(Step, "finish", cut(Step.finish))
    else:
        turning.between.before = before


async def test_a_rotation_whose_job_was_cancelled_goes_on_with_another(turning: Turning) -> None:
    for state in STATES:
        rotation, job = await turning.begin()

        async def cancel(at: At, job: Any = job, state: str = state) -> None:
            if at.state == state:
                async with turning.unit() as unit:
                    await job_acts.cancel(unit, job)

        turning.between.before = cancel
        cancelled = await turning.lead(job)
        turning.between.before = None
        await turning.change()
        await turning.check()
        if state == "SIGNING":  # its last step ends the job whatever somebody wishes
            assert cancelled == JobState.DONE
            continue
        assert cancelled == JobState.CANCELLED
        again, another = await turning.begin()
        assert (again, another != job) == (rotation, True)
        await turning.finish(another)
        await turning.check()
        await turning.check_tokens()


async def test_members_sign_in_before_during_and_after(turning: Turning) -> None:
    async def sign_in(_at: At) -> None:
        await turning.check_sign_in()
        if turning.between.states[-1] not in signed_in:
            email = f"owner@{turning.slug}.example.org"
            await turning.house.api.sign_ins.sign_in(turning.slug, email, PASSWORD)
            signed_in.append(turning.between.states[-1])

    signed_in: list[str] = []
    turning.between.before = sign_in
    await turning.rotate()
    assert signed_in == STATES
    await turning.check_sign_in()


async def test_a_member_added_while_the_key_turns_over_is_found_by_one_e_mail_and_no_other_gets_it(
    turning: Turning,
) -> None:
    async def add(at: At) -> None:
        email = f"{len(turning.between.seen)}@example.org"
        async with turning.unit() as unit:
            added[email] = await members.add(unit, email=email, name="New", password_hash=None, roles=[])
        for known in added:
            with pytest.raises(MemberExists):
                async with turning.unit() as unit:
                    await members.add(unit, email=known, name="Twin", password_hash=None, roles=[])

    added: dict[str, Any] = {}
    turning.between.before = add
    await turning.rotate()
    async with turning.unit(write=False) as unit:
        found = {email: await members.find_by_email(unit, email) for email in added}
    assert {email: member and member.id for email, member in found.items()} == added


async def test_an_external_id_is_given_once_in_every_state_and_to_one_of_two_at_once(turning: Turning) -> None:
    await turning.create(external_id="FIRST")

    async def race(_at: At) -> None:
        assert not await turning.create(external_id="FIRST")
        fresh = f"FRESH-{turning.chance.random()}"
        made = await asyncio.gather(*(turning.create(external_id=fresh) for _ in range(4)))
        assert sorted(made) == [False, False, False, True]

    turning.between.before = race
    await turning.rotate()
    await race(turning.between.seen[-1])
    await turning.check_tokens()


_PAGE = """query($after: String) { customers(first: 3, after: $after)
    { nodes { id } pageInfo { endCursor hasNextPage } } }"""
_CREATE = """mutation($i: CustomerInput!) { createCustomer(input: $i)
    { customer { id } userErrors { code } } }"""


def _nodes(answer: Any) -> Any:
    return answer["customers"]["nodes"]


async def test_a_cursor_and_an_idempotency_key_outlive_the_switch_until_the_old_key_is_destroyed(
    turning: Turning,
) -> None:
    ask, slug = turning.house.ask, turning.slug
    keyed: dict[str, Any] = {"tenant": slug, "headers": {"idempotency-key": "once"}}
    first = await turning.house.data(_PAGE, tenant=slug)
    made = await turning.house.data(_CREATE, {"i": {"givenName": "Once"}}, **keyed)
    after = {"after": first["customers"]["pageInfo"]["endCursor"]}
    before = await turning.house.data(_PAGE, after, tenant=slug)
    await turning.rotate()
    await turning.rotate()
    assert _nodes(await turning.house.data(_PAGE, after, tenant=slug)) == _nodes(before)
    assert await turning.house.data(_CREATE, {"i": {"givenName": "Once"}}, **keyed) == made
    other = await ask(_CREATE, {"i": {"givenName": "Other"}}, **keyed)
    assert other["errors"][0]["extensions"]["code"] == "IDEMPOTENCY_KEY_REUSED"
    await turning.desk.superuser.execute(
        "UPDATE data_keys SET changed_at = now() - interval '26 hours' WHERE tenant_id = $1", turning.tenant
    )
    assert await _destroy(turning) == 2
    assert await turning.keys() == {1: "DESTROYED", 2: "DESTROYED", 3: "ACTIVE"}
    refused = await ask(_PAGE, after, tenant=slug)
    assert refused["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    await turning.check()


async def test_an_old_key_stays_for_its_grace_and_while_a_rotation_leaves_it(turning: Turning) -> None:
    await turning.rotate()
    assert await _destroy(turning) == 0
    assert (await turning.keys())[1] == "DECRYPT_ONLY"

    async def look(at: At) -> None:
        if at.state == "SWITCHED":
            old = "UPDATE data_keys SET changed_at = now() - interval '26 hours' WHERE tenant_id = $1"
            await turning.desk.superuser.execute(old, turning.tenant)
            gone.append(await _destroy(turning))

    gone: list[int] = []
    turning.between.before = look
    await turning.rotate()
    assert (gone[0], sum(gone)) == (1, 1)
    assert await turning.keys() == {1: "DESTROYED", 2: "DECRYPT_ONLY", 3: "ACTIVE"}
    wrapped = "SELECT wrapped FROM data_keys WHERE tenant_id = $1 AND state = 'DESTROYED'"
    assert await turning.desk.superuser.fetchval(wrapped, turning.tenant) == ""


async def _destroy(turning: Turning) -> int:
    async with turning.unit(fences=True) as unit:
        has_outlived = await index_keys.has_outlived(unit)
        gone = await index_keys.destroy_after_grace(unit)
    assert has_outlived == bool(gone)
    return gone


async def test_failed_attempts_are_counted_on_under_the_new_key(turning: Turning) -> None:
    async def fail(times: int) -> None:
        for _ in range(times):
            async with turning.unit() as unit:
                await attempts.count(unit, members.email_tokens(unit, "eve@example.org"))

    await fail(attempts.FREE_ATTEMPTS)
    await turning.rotate()
    await turning.rotate()
    await fail(1)
    with pytest.raises(TooManyAttempts):
        await fail(1)
    async with turning.unit() as unit:
        await attempts.forget(unit, members.email_tokens(unit, "eve@example.org"))
    await fail(attempts.FREE_ATTEMPTS)


_DRIFTS: dict[str, str] = {
    "a lost token of the old key": "DELETE FROM customer_tokens WHERE tenant_id = $1 AND bik_version = 1"
    " AND customer_id IN (SELECT customer_id FROM customer_tokens WHERE tenant_id = $1 LIMIT 1)",
    "a lost token of the new key": "DELETE FROM customer_tokens WHERE tenant_id = $1 AND bik_version = 2"
    " AND customer_id IN (SELECT customer_id FROM customer_tokens WHERE tenant_id = $1 LIMIT 1)",
    "a stray token of the new key": "INSERT INTO customer_tokens (tenant_id, index, token, customer_id, bik_version)"
    " SELECT tenant_id, 'email', decode(md5('stray'), 'hex'), id, 2 FROM customers WHERE tenant_id = $1 LIMIT 1",
    "a stray token of the old key": "INSERT INTO customer_tokens (tenant_id, index, token, customer_id, bik_version)"
    " SELECT tenant_id, 'email', decode(md5('stray'), 'hex'), id, 1 FROM customers WHERE tenant_id = $1 LIMIT 1",
    "a lost e-mail": "DELETE FROM member_tokens WHERE tenant_id = $1 AND bik_version = 2",
    "a lost link": "DELETE FROM member_links WHERE tenant_id = $1 AND bik_version = 2",
}


@pytest.mark.parametrize("drift", _DRIFTS)
async def test_a_drift_is_found_and_mended_before_readers_change_over(turning: Turning, drift: str) -> None:
    async def plant(at: At) -> None:
        if at.state == "PROVING" and not planted:
            planted.append(drift)
            await turning.desk.superuser.execute(_DRIFTS[drift], turning.tenant)

    planted: list[str] = []
    turning.between.before = plant
    ended = await turning.rotate()
    assert planted
    assert sum(counts["rewritten"] for counts in ended.proof["tables"].values()) > 0
    await turning.check()
    await turning.check_tokens()


async def test_a_stray_token_that_was_there_before_goes_with_the_old_key(turning: Turning) -> None:
    await turning.desk.superuser.execute(_DRIFTS["a stray token of the old key"], turning.tenant)
    ended = await turning.rotate()
    assert ended.proof["tables"]["customers"]["rewritten"] == 1
    await turning.check_tokens()


async def test_a_value_that_does_not_open_parks_the_rotation_and_search_goes_on_by_the_old_key(
    turning: Turning,
) -> None:
    one = await turning.desk.superuser.fetchrow(
        "SELECT c.id, s.secret FROM customers c JOIN subjects s ON (s.tenant_id, s.id) = (c.tenant_id, c.id)"
        " WHERE c.tenant_id = $1 AND c.profile IS NOT NULL LIMIT 1",
        turning.tenant,
    )
    assert one is not None
    change = "UPDATE subjects SET secret = $2 WHERE id = $1"
    await turning.desk.superuser.execute(change, one["id"], bytes(32))
    rotation, job = await turning.begin()
    assert await turning.lead(job) == JobState.PARKED
    assert (await turning.desk.job(job))["reason"] == "CANNOT_OPEN"
    assert (await turning.rotation(rotation)).state == "FILLING"
    await turning.desk.superuser.execute(change, one["id"], one["secret"])
    await turning.check()
    again, another = await turning.begin()
    await turning.finish(another)
    assert (again, (await turning.rotation(rotation)).state) == (rotation, "CLEANED")
    await turning.check_tokens()


async def test_a_reader_that_began_before_the_switch_finds_by_the_old_key_to_its_end(turning: Turning) -> None:
    await turning.create(external_id="LONG")
    async with turning.unit(write=False) as reader:
        await customers.count(reader, customers.Filter())
        await turning.rotate()
        found = await customers.find(reader, "external_id", "LONG", Window(10))
        assert len(found.nodes) == 1
        assert reader.keyring.active_version(Purpose.BIK) == 1
    await turning.check()


async def test_an_index_key_that_was_wrapped_before_the_tenants_key_turned_over_is_not_taken(
    turning: Turning,
) -> None:
    house = turning.house
    maker, keys = house.provisioning._maker, house.api.keys
    made = await new_keys.make(maker, keys, turning.tenant, Purpose.BIK, 2, KeyState.NEXT)
    role = house.api.settings.rotator_role
    assert role is not None
    rotator = type(keys)(house.api.settings.vault_address, role.role_id, role.secret_id)
    await rotator.rotate(turning.tenant)
    for row in await turning.desk.superuser.fetch("SELECT * FROM data_keys WHERE tenant_id = $1", turning.tenant):
        context = wrapping_context(turning.tenant, row["id"], Purpose(row["purpose"]))
        (wrapped,) = await rotator.rewrap(turning.tenant, [(row["wrapped"], context)])
        await turning.desk.superuser.execute("UPDATE data_keys SET wrapped = $2 WHERE id = $1", row["id"], wrapped)
    await rotator.close()
    with pytest.raises(Conflict):
        async with turning.unit(fences=True) as unit:
            await index_keys.announce(unit, made)
    assert await turning.keys() == {1: "ACTIVE"}
    await turning.rotate()


async def test_a_writer_that_holds_on_makes_a_fence_wait_and_the_job_come_back(turning: Turning) -> None:
    _, job = await turning.begin()
    async with turning.unit():
        assert await turning.lead(job) == JobState.READY
    assert (await turning.desk.job(job))["reason"] == "CONFLICT"
    assert await turning.keys() == {1: "ACTIVE"}
    await turning.finish(job)
