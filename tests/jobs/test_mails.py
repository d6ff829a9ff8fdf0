"""The job that writes a letter: tried until the server takes it, and its link works however often it was cut off."""

from uuid import UUID

import asyncpg

from tests.api.test_passwords import request, reset
from tests.house import House
from tests.inbox import deliver, receiving
from tests.visitors import Visitor, a_member


async def job_of(visitor: Visitor) -> asyncpg.Record:
    (row,) = await visitor.sql("SELECT * FROM jobs WHERE arguments->>'member' = $1", str(visitor.member))
    return row


async def due(visitor: Visitor) -> None:
    """As if the pause was over."""
    await visitor.sql("UPDATE jobs SET due_at = now() WHERE arguments->>'member' = $1", str(visitor.member))


async def asked(house: House) -> Visitor:
    visitor = await a_member(house)
    await request(house, visitor.email)
    return visitor


async def test_the_job_names_the_member_and_nothing_else(house: House) -> None:
    visitor = await asked(house)
    arguments = (await job_of(visitor))["arguments"]
    assert '"template": "PASSWORD_RESET"' in arguments
    assert sorted(part.split('"')[1] for part in arguments.split(", ")) == ["member", "template", "until"]
    async with receiving() as inbox:
        await deliver(house, inbox)


async def test_a_letter_waits_until_the_server_is_back(house: House) -> None:
    visitor = await asked(house)
    async with receiving() as inbox:
        inbox.answer = "451 later"
        await deliver(house, inbox)
        job = await job_of(visitor)
        assert (job["state"], job["reason"]) == ("READY", "MAIL_UNAVAILABLE")
        inbox.answer = "250 OK"
        await due(visitor)
        await deliver(house, inbox)
    assert (await job_of(visitor))["state"] == "DONE"
    assert await reset(house, inbox.token_for(visitor.email)) is True


async def test_a_letter_that_is_refused_parks_the_job(house: House) -> None:
    visitor = await asked(house)
    async with receiving() as inbox:
        inbox.recipient = "550 nobody here"
        await deliver(house, inbox)
    job = await job_of(visitor)
    assert (job["state"], job["reason"], inbox.to(visitor.email)) == ("PARKED", "MAIL_REFUSED", [])


async def test_sent_again_the_newest_letter_has_the_link_that_works(house: House) -> None:
    visitor = await asked(house)
    async with receiving() as inbox:
        await deliver(house, inbox)
        first = inbox.token_for(visitor.email)
        await visitor.sql(
            "UPDATE jobs SET state = 'READY', ended_at = NULL, due_at = now() WHERE id = $1",
            UUID(str((await job_of(visitor))["id"])),
        )
        await deliver(house, inbox)
        second = inbox.token_for(visitor.email)
    assert await reset(house, first) == ["TOKEN_REFUSED"]
    assert await reset(house, second) is True


async def test_when_it_is_too_late_nobody_is_written_to(house: House) -> None:
    visitor = await asked(house)
    await visitor.sql(
        "UPDATE jobs SET arguments = jsonb_set(arguments::jsonb, '{until}', '\"2020-01-01T00:00:00+00:00\"')"
        " WHERE arguments->>'member' = $1",
        str(visitor.member),
    )
    async with receiving() as inbox:
        await deliver(house, inbox)
    assert ((await job_of(visitor))["state"], inbox.to(visitor.email)) == ("DONE", [])


async def test_a_letter_written_is_on_record_without_its_address(house: House) -> None:
    visitor = await asked(house)
    async with receiving() as inbox:
        await deliver(house, inbox)
    rows = await visitor.sql(
        "SELECT details::text AS details FROM audit_entries WHERE action = 'personal.opened' ORDER BY at DESC LIMIT 1"
    )
    assert "to write to the member" in rows[0]["details"]
    assert visitor.email not in rows[0]["details"]
