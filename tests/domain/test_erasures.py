"""The ledger of erasures: its chain, what replaying it does to a database that came back, and who verifies it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import erasures as domain_erasures
from domain.erasures import SIGNER
from tenants import erasures
from tenants.access import Role
from tenants.erasures import NO_HEAD, Erased, ErasureCause, certificates, check_chain, head_after
from tenants.errors import LedgerBroken
from tests.api.staff import done
from tests.erasing import ERASE, Leaver, local
from tests.house import House

AT = datetime(2026, 5, 4, 3, 2, 1, 987654, tzinfo=UTC)


@pytest.fixture
async def leaver(house: House, tmp_path: Path) -> AsyncIterator[Leaver]:
    made = await Leaver.made(house, tmp_path)
    yield made
    await made.close()


def chain(count: int) -> list[Erased]:
    made: list[Erased] = []
    for number in range(1, count + 1):
        subject, at = uuid4(), AT + timedelta(seconds=number)
        made.append(Erased(number, subject, at, head_after(made[-1].head if made else NO_HEAD, number, subject, at)))
    return made


def test_the_head_is_the_documented_bytes() -> None:
    """By hand: SHA-256 of four parts, each behind its length as u32 BE."""
    import hashlib

    subject = uuid4()
    micros = int(AT.timestamp()) * 1_000_000 + 987654
    parts = [bytes(32), (7).to_bytes(8, "big"), subject.bytes, micros.to_bytes(8, "big")]
    by_hand = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
    assert head_after(NO_HEAD, 7, subject, AT) == by_hand


@given(st.integers(1, 6), st.data())
def test_a_ledger_in_which_anything_differs_is_broken(count: int, data: st.DataObject) -> None:
    whole = chain(count)
    check_chain(whole)
    place = data.draw(st.integers(0, count - 1))
    other = data.draw(st.sampled_from([{"subject": uuid4()}, {"at": AT}, {"number": 99}, {"head": bytes(32)}]))
    with pytest.raises(LedgerBroken):
        check_chain([*whole[:place], replace(whole[place], **other), *whole[place + 1 :]])  # type: ignore[arg-type]
    if count > 1:
        with pytest.raises(LedgerBroken):
            check_chain(whole[1:])


async def _known(leaver: Leaver) -> list[Erased]:
    async with leaver.house.api.units.enter(leaver.tenant.id, None, write=False) as unit:
        return await erasures.ledger(unit)


async def _replay(leaver: Leaver, known: list[Erased]) -> int:
    async with leaver.house.api.units.enter(leaver.tenant.id, None, write=True) as unit:
        return await erasures.replay(unit, known)


async def test_replaying_erases_who_came_back_and_takes_over_the_rows(leaver: Leaver) -> None:
    """A database of before the erasure: the customer, its tokens and secret are there again, the ledger is empty."""
    back, stays = local(await leaver.customer()), local(await leaver.customer(emails=["grace@example.org"]))
    at = datetime.now(UTC)
    known = [Erased(1, back, at, head_after(NO_HEAD, 1, back, at))]

    assert await _replay(leaver, known) == 1
    assert await _replay(leaver, known) == 0
    assert await _known(leaver) == known
    for table, column in (("customers", "id"), ("subjects", "id"), ("customer_tokens", "customer_id")):
        assert await leaver.count(table, f"{column} = $2", back) == 0
        assert await leaver.count(table, f"{column} = $2", stays) > 0


async def test_replaying_an_older_ledger_keeps_the_rows_of_today(leaver: Leaver) -> None:
    people = [local(await leaver.customer(emails=[f"p{number}@example.org"])) for number in range(2)]
    async with leaver.house.api.units.enter(leaver.tenant.id, None, write=True) as unit:
        for each in people:
            await erasures.forget(unit, [each])
            await erasures.enter(unit, each, ErasureCause.REQUEST, None, {})
    known = await _known(leaver)

    assert await _replay(leaver, known[:1]) == 0
    assert await _known(leaver) == known


async def test_another_ledger_is_refused_and_erases_nobody(leaver: Leaver) -> None:
    stays = local(await leaver.customer())
    other = chain(1)
    await _replay(leaver, other)
    at = datetime.now(UTC)
    for wrong in (
        [Erased(1, stays, at, head_after(NO_HEAD, 1, stays, at))],
        [*other, replace(chain(2)[1], subject=stays)],
    ):
        with pytest.raises(LedgerBroken):
            await _replay(leaver, wrong)
    assert await leaver.count("customers", "id = $2", stays) == 1
    assert await _known(leaver) == other


async def test_erasures_at_once_stand_in_one_chain(leaver: Leaver) -> None:
    owner = await leaver.proven(Role.OWNER)
    people = [await leaver.customer(emails=[f"q{number}@example.org"]) for number in range(5)]
    made = await asyncio.gather(*(done(leaver.house, owner, ERASE, id=each) for each in people))
    assert sorted(each["erasure"]["number"] for each in made) == [1, 2, 3, 4, 5]
    check_chain(await _known(leaver))


async def test_verifying_finds_what_is_wrong(leaver: Leaver) -> None:
    owner, keys = await leaver.proven(Role.OWNER), leaver.house.api.keys
    erased = local(await leaver.customer())
    await done(leaver.house, owner, ERASE, id=str((await _ids(leaver))[erased]))
    await leaver.finish()

    async def problems() -> tuple[int, list[str]]:
        public_keys = await keys.public_keys(SIGNER)
        async with leaver.house.api.units.enter(leaver.tenant.id, None, write=False) as unit:
            verdict = await domain_erasures.verify(unit, public_keys)
        return verdict.certificates, list(verdict.problems)

    assert await problems() == (1, [])
    await leaver.fetch("INSERT INTO subjects VALUES ($1, $2, sha256('x'::bytea), now()) RETURNING 1", erased)
    assert (await problems())[1] == ["1 rows of erased people are in subjects"]
    await leaver.fetch(
        "UPDATE erasure_certificates SET certificate = jsonb_set(certificate, '{cause}', '\"UNLAWFUL\"')"
        " WHERE tenant_id = $1"
    )
    assert len((await problems())[1]) == 2
    await leaver.fetch("UPDATE erasures SET at = at + interval '1 second' WHERE tenant_id = $1")
    assert LedgerBroken.message in (await problems())[1]


async def _ids(leaver: Leaver) -> dict[object, str]:
    rows = await leaver.house.data("{ customers { nodes { id } } }", tenant=leaver.tenant.slug)
    return {local(node["id"]): node["id"] for node in rows["customers"]["nodes"]}


async def test_a_certificate_holds_for_its_tenant_alone(leaver: Leaver) -> None:
    keys = leaver.house.api.keys
    signed = await certificates.sign(keys, leaver.tenant.id, {"format": certificates.FORMAT, "number": 1})
    public_keys = await keys.public_keys(SIGNER)
    assert certificates.fits(public_keys, leaver.tenant.id, signed)
    assert not certificates.fits(public_keys, uuid4(), signed)
    assert not certificates.fits(public_keys, leaver.tenant.id, replace(signed, said={"number": 1}))
    assert not certificates.fits({}, leaver.tenant.id, signed)
    with pytest.raises(ValueError, match="ASCII"):
        certificates.message(leaver.tenant.id, {"name": "Zoë"})
