"""A password is changed by the old one, or set anew by the link of a letter that tells nobody who is a member."""

import asyncio
from typing import Any

import pytest

from tenants.access import Role
from tests.house import House
from tests.inbox import deliver, receiving
from tests.visitors import Visitor, a_member, a_visitor, slowed

NEW = "a brand new and long enough one"
CHANGE = """mutation($o: String!, $n: String!) {
    changePassword(old: $o, new: $n) { isChanged userErrors { code path message } } }"""
REQUEST = """mutation($t: String!, $e: String!) {
    requestPasswordReset(tenant: $t, email: $e) { isRequested userErrors { code } } }"""
RESET = """mutation($t: String!, $n: String!, $c: String) {
    resetPassword(token: $t, newPassword: $n, code: $c) { isChanged userErrors { code path } } }"""


async def request(house: House, email: str, tenant: str = "acme") -> object:
    answer = await house.data(REQUEST, {"t": tenant, "e": email}, role=None)
    await house.api.errands.finish()
    return answer


async def a_link(visitor: Visitor) -> str:
    """The token of a letter to the visitor."""
    async with receiving() as inbox:
        await request(visitor.house, visitor.email, visitor.tenant)
        await deliver(visitor.house, inbox, visitor.tenant)
    return inbox.token_for(visitor.email)


async def reset(house: House, token: str, new: str = NEW, code: str | None = None) -> Any:
    """True, or the codes of the refusals."""
    answer = (await house.data(RESET, {"t": token, "n": new, "c": code}, role=None))["resetPassword"]
    return [error["code"] for error in answer["userErrors"]] or answer["isChanged"]


# Changing


async def test_a_changed_password_ends_all_other_sessions(house: House) -> None:
    visitor = await a_visitor(house)
    other = Visitor(house, "acme", visitor.email, visitor.member)
    await other.sign_in()
    assert (await visitor.data(CHANGE, o=visitor.password, n=NEW))["isChanged"]
    assert (await visitor.is_in(), await other.is_in()) == (True, False)
    assert await other.sign_in() == "SIGN_IN_REFUSED"
    assert await other.sign_in(password=NEW) == "IN"
    assert ("member.password_changed", "OK") in await visitor.actions()


async def test_a_wrong_old_password_changes_nothing_and_slows_down(house: House) -> None:
    visitor = await a_visitor(house)

    async def guess() -> str:
        return str((await visitor.data(CHANGE, o="wrong", n=NEW))["userErrors"][0]["code"])

    codes = await slowed(guess)
    assert (codes[:6], codes[-1]) == (["PROOF_REFUSED"] * 6, "TOO_MANY_ATTEMPTS")
    await visitor.keep_waiting()
    assert (await visitor.data(CHANGE, o=visitor.password, n=NEW))["userErrors"][0]["code"] == "TOO_MANY_ATTEMPTS"
    assert await visitor.sign_in() == "IN"


@pytest.mark.parametrize("word", ["short", "x" * 257, "my acme password", "ACME ACME ACME"])
async def test_a_password_that_anybody_would_try_is_refused(house: House, word: str) -> None:
    visitor = await a_visitor(house)
    answer = await visitor.data(CHANGE, o=visitor.password, n=word)
    assert [(error["code"], error["path"]) for error in answer["userErrors"]] == [("MEMBER_REFUSED", ["new"])]
    assert word not in str(answer)
    assert await visitor.sign_in() == "IN"


async def test_a_password_that_holds_the_emails_first_part_is_refused(house: House) -> None:
    visitor = await a_visitor(house)
    answer = await visitor.data(CHANGE, o=visitor.password, n="my " + visitor.email.partition("@")[0].upper())
    assert answer["userErrors"][0]["code"] == "MEMBER_REFUSED"
    assert await visitor.sign_in() == "IN"


async def test_a_new_password_is_not_the_old_one(house: House) -> None:
    visitor = await a_visitor(house)
    other = Visitor(house, "acme", visitor.email, visitor.member)
    await other.sign_in()
    answer = await visitor.data(CHANGE, o=visitor.password, n=visitor.password)
    assert [(error["code"], error["path"]) for error in answer["userErrors"]] == [("SAME_PASSWORD", ["new"])]
    assert await other.is_in()


async def test_a_change_beside_another_field_is_refused_and_neither_runs(house: House) -> None:
    visitor = await a_visitor(house)
    document = CHANGE.rstrip(" }") + " } } signOut { ended } }"
    answer = await visitor.ask(document, o=visitor.password, n=NEW)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]
    assert "changePassword" in answer["errors"][0]["message"]
    assert await visitor.is_in()
    assert await visitor.sign_in() == "IN"


async def test_of_two_changes_at_once_one_is_made(house: House) -> None:
    visitor = await a_visitor(house)
    changes = [visitor.data(CHANGE, o=visitor.password, n=f"{NEW} {number}") for number in range(2)]
    made = [answer["isChanged"] for answer in await asyncio.gather(*changes)]
    assert sorted(made) == [False, True]
    assert await visitor.sign_in(password=f"{NEW} {made.index(True)}") == "IN"


# Forgotten


async def test_a_link_sets_a_new_password_and_ends_all_sessions(house: House) -> None:
    visitor = await a_visitor(house)
    token = await a_link(visitor)
    assert await reset(house, token) is True
    assert not await visitor.is_in()
    assert await visitor.sign_in() == "SIGN_IN_REFUSED"
    assert await visitor.sign_in(password=NEW) == "IN"


async def test_a_link_works_once(house: House) -> None:
    visitor = await a_member(house)
    token = await a_link(visitor)
    assert await reset(house, token) is True
    assert await reset(house, token, "yet another long enough one") == ["TOKEN_REFUSED"]
    assert await visitor.sign_in(password=NEW) == "IN"


async def test_of_two_uses_at_once_one_works(house: House) -> None:
    visitor = await a_member(house)
    token = await a_link(visitor)
    both = await asyncio.gather(reset(house, token), reset(house, token, NEW + " too"))
    assert sorted(map(str, both)) == ["True", "['TOKEN_REFUSED']"]


async def test_a_newer_link_voids_the_older(house: House) -> None:
    visitor = await a_member(house)
    old, new = await a_link(visitor), await a_link(visitor)
    assert await reset(house, old) == ["TOKEN_REFUSED"]
    assert await visitor.sign_in() == "IN"
    assert await reset(house, new) is True


async def test_a_link_is_good_for_an_hour(house: House) -> None:
    visitor = await a_member(house)
    token = await a_link(visitor)
    (row,) = await visitor.sql(
        "SELECT extract(epoch FROM expires_at - now())::int AS left FROM one_time_tokens WHERE member_id = $1",
        visitor.member,
    )
    assert 3_500 < row["left"] <= 3_600
    await visitor.sql("UPDATE one_time_tokens SET expires_at = now() WHERE member_id = $1", visitor.member)
    assert await reset(house, token) == ["TOKEN_REFUSED"]
    assert await visitor.sign_in() == "IN"


async def test_a_changed_password_voids_the_link(house: House) -> None:
    visitor = await a_visitor(house)
    token = await a_link(visitor)
    await visitor.data(CHANGE, o=visitor.password, n=NEW)
    assert await reset(house, token, "yet another long enough one") == ["TOKEN_REFUSED"]
    assert await visitor.sign_in(password=NEW) == "IN"


@pytest.mark.parametrize("token", ["", "cot_", "cor_AAAA", "cot_" + "A" * 86, "x" * 5000])
async def test_what_is_no_token_sets_nothing(house: House, token: str) -> None:
    assert await reset(house, token) == ["TOKEN_REFUSED"]


async def test_a_bad_password_leaves_the_link_as_it_was(house: House) -> None:
    visitor = await a_member(house)
    token = await a_link(visitor)
    assert await reset(house, token, "short") == ["MEMBER_REFUSED"]
    assert await reset(house, token) is True


async def test_a_second_factor_is_asked_for_and_stays(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.add_second_factor()
    await visitor.forget_steps()
    token = await a_link(visitor)
    assert await reset(house, token) == ["SECOND_FACTOR_REQUIRED"]
    assert await reset(house, token, code=visitor.code(9)) == ["SECOND_FACTOR_REFUSED"]
    assert await visitor.is_in()
    assert await reset(house, token, code=visitor.code()) is True
    assert await visitor.sign_in(password=NEW) == "SECOND_FACTOR_REQUIRED"


async def test_guessing_codes_by_a_link_slows_down(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.add_second_factor()
    token = await a_link(visitor)

    async def guess() -> str:
        (code,) = await reset(house, token, code=visitor.code(50))
        return str(code)

    codes = await slowed(guess)
    assert (codes[:6], codes[-1]) == (["SECOND_FACTOR_REFUSED"] * 6, "TOO_MANY_ATTEMPTS")
    assert await visitor.is_in()


async def test_asking_for_a_link_tells_nobody_who_is_a_member(house: House) -> None:
    visitor = await a_member(house)
    answers = [
        await request(house, visitor.email),
        await request(house, "nobody@acme.example.org"),
        await request(house, "no address"),
        await request(house, visitor.email, "nowhere"),
        await request(house, visitor.email, "globex"),
    ]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0] == {"requestPasswordReset": {"isRequested": True, "userErrors": []}}


async def test_the_answer_does_not_wait_for_the_work(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor, held = await a_member(house), asyncio.Event()
    enter = house.api.units.enter

    def slow(*arguments: object, **options: object) -> object:
        assert held.is_set(), "the work began before the answer had left"
        return enter(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are

    async with house.api.errands._turns, house.api.errands._turns:
        monkeypatch.setattr(house.api.units, "enter", slow)
        for email in (visitor.email, "nobody@acme.example.org"):
            assert "errors" not in await house.ask(REQUEST, {"t": "acme", "e": email}, role=None)
        held.set()
    await house.api.errands.finish()
    assert ("member.password_reset_requested", "OK") in await visitor.actions()


async def test_letters_go_to_members_alone_and_not_too_many(house: House) -> None:
    visitor = await a_member(house)
    async with receiving() as inbox:
        for _ in range(9):
            await request(house, visitor.email)
        await request(house, "nobody@acme.example.org")
        await deliver(house, inbox)
    assert 6 <= len(inbox.to(visitor.email)) < 9  # a slow machine may sit through the first wait
    assert inbox.to("nobody@acme.example.org") == []


async def test_who_is_disabled_meanwhile_gets_no_letter_and_sets_no_password(house: House) -> None:
    visitor = await a_member(house)
    token = await a_link(visitor)
    await request(house, visitor.email)
    await visitor.sql("UPDATE members SET status = 'DISABLED' WHERE id = $1", visitor.member)
    async with receiving() as inbox:
        await deliver(house, inbox)
    assert inbox.to(visitor.email) == []
    assert await reset(house, token) == ["TOKEN_REFUSED"]


async def test_neither_address_nor_token_stands_in_the_queue_or_the_log(house: House) -> None:
    visitor = await a_member(house, Role.ANALYST)
    token = await a_link(visitor)
    for table in ("jobs", "events", "audit_entries", "one_time_tokens"):
        rows = await visitor.sql(f"SELECT t::text AS row FROM {table} t WHERE tenant_id = $1", house.tenants["acme"].id)
        found = "".join(row["row"] for row in rows)
        assert found
        assert visitor.email not in found
        assert token[-40:] not in found
