"""A second factor is asked for once the password was right, and each of its codes fits once."""

import asyncio

import pytest

from api.paging import global_id
from crypto import otp
from tenants.access import Role
from tests.house import House
from tests.visitors import Visitor, a_member, a_visitor, slowed

BEGIN = "mutation { beginSecondFactor { uri userErrors { code } } }"
CONFIRM = "mutation($c: String!) { confirmSecondFactor(code: $c) { recoveryCodes userErrors { code path } } }"
REMOVE = """mutation($p: String!, $c: String!) {
    removeSecondFactor(password: $p, code: $c) { isRemoved userErrors { code } } }"""
RESET = "mutation($m: ID!) { resetSecondFactor(member: $m) { isRemoved userErrors { code path } } }"
IDENTITY = """mutation($p: String!, $c: String) {
    confirmIdentity(password: $p, code: $c) { confirmedAt userErrors { code } } }"""


async def guarded(house: House, *roles: Role) -> Visitor:
    """Whose second factor is on, and whose last code is long ago."""
    visitor = await a_visitor(house, *roles)
    await visitor.add_second_factor()
    await visitor.forget_steps()
    return visitor


async def test_a_second_factor_is_begun_by_a_uri_for_authenticators(house: House) -> None:
    visitor = await a_visitor(house)
    uri = await visitor.begin_second_factor()
    assert uri.startswith(f"otpauth://totp/Acme:{visitor.email.replace('@', '%40')}?secret=")
    assert uri.endswith("&issuer=Acme&algorithm=SHA1&digits=6&period=30")
    assert len(visitor.secret) == otp.SECRET_BYTES


async def test_it_counts_only_once_a_code_of_it_was_given_back(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.begin_second_factor()
    wrong = await visitor.data(CONFIRM, c="000000" if visitor.code() != "000000" else "111111")
    assert wrong == {"recoveryCodes": None, "userErrors": [{"code": "SECOND_FACTOR_REFUSED", "path": ["code"]}]}
    assert await visitor.sign_in() == "IN"
    confirmed = await visitor.data(CONFIRM, c=visitor.code())
    assert len(set(confirmed["recoveryCodes"])) == 10
    assert await visitor.sign_in() == "SECOND_FACTOR_REQUIRED"


async def test_members_and_their_administrators_see_that_it_is_on(house: House) -> None:
    visitor, other = await guarded(house), await a_visitor(house)
    for each, is_on in ((visitor, True), (other, False)):
        assert (await each.data("{ me { hasSecondFactor } }"))["hasSecondFactor"] is is_on
        asked = "query($id: ID!) { node(id: $id) { ... on Member { hasSecondFactor } } }"
        found = await house.data(asked, {"id": global_id("Member", each.member)}, role=Role.ADMIN)
        assert found["node"] == {"hasSecondFactor": is_on}
    answer = await house.ask(asked, {"id": global_id("Member", visitor.member)}, role=Role.MANAGER)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_beginning_again_forgets_the_secret_before(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.begin_second_factor()
    old = visitor.code()
    await visitor.begin_second_factor()
    assert (await visitor.data(CONFIRM, c=old))["userErrors"][0]["code"] == "SECOND_FACTOR_REFUSED"
    assert (await visitor.data(CONFIRM, c=visitor.code()))["userErrors"] == []


async def test_one_that_counts_is_not_replaced_nor_confirmed_again(house: House) -> None:
    visitor = await guarded(house)
    assert (await visitor.data(BEGIN))["userErrors"] == [{"code": "SECOND_FACTOR_EXISTS"}]
    assert (await visitor.data(CONFIRM, c=visitor.code()))["userErrors"][0]["code"] == "PROOF_REFUSED"
    assert await visitor.sign_in(visitor.code()) == "IN"


async def test_an_old_session_can_not_begin_one(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.sql(
        "UPDATE member_sessions SET confirmed_at = now() - interval '6 minutes' WHERE member_id = $1", visitor.member
    )
    assert (await visitor.data(BEGIN))["userErrors"] == [{"code": "STEP_UP_REQUIRED"}]
    assert (await visitor.data(IDENTITY, p=visitor.password))["userErrors"] == []
    assert (await visitor.data(BEGIN))["userErrors"] == []


async def test_a_sign_in_takes_password_and_code(house: House) -> None:
    visitor = await guarded(house)
    assert await visitor.sign_in() == "SECOND_FACTOR_REQUIRED"
    assert await visitor.sign_in("") == "SECOND_FACTOR_REQUIRED"
    assert await visitor.sign_in(visitor.code(9)) == "SECOND_FACTOR_REFUSED"
    assert await visitor.sign_in(visitor.code()) == "IN"


async def test_nothing_tells_of_a_second_factor_before_the_password_was_right(house: House) -> None:
    visitor = await guarded(house)
    for code in (None, visitor.code(), "000000"):
        assert await visitor.sign_in(code, password="not the password") == "SIGN_IN_REFUSED"
    assert await visitor.sign_in(visitor.code()) == "IN"


async def test_a_code_fits_once(house: House) -> None:
    visitor = await guarded(house)
    code = visitor.code()
    assert await visitor.sign_in(code) == "IN"
    assert await visitor.sign_in(code) == "SECOND_FACTOR_REFUSED"


async def test_a_code_at_two_places_at_once_fits_at_one(house: House) -> None:
    visitor = await guarded(house)
    code = visitor.code()
    twins = [Visitor(house, "acme", visitor.email, visitor.member) for _ in range(4)]
    codes = await asyncio.gather(*(twin.sign_in(code) for twin in twins))
    assert sorted(codes) == ["IN", *["SECOND_FACTOR_REFUSED"] * 3]


async def test_the_code_that_switched_it_on_signs_nobody_in(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.begin_second_factor()
    code = visitor.code()
    assert (await visitor.data(CONFIRM, c=code))["userErrors"] == []
    assert await visitor.sign_in(code) == "SECOND_FACTOR_REFUSED"


async def test_wrong_codes_slow_down_as_wrong_passwords_do(house: House) -> None:
    visitor = await guarded(house)
    wrong = visitor.code(50)
    codes = await slowed(lambda: visitor.sign_in(wrong))
    assert (codes[:6], codes[-1]) == (["SECOND_FACTOR_REFUSED"] * 6, "TOO_MANY_ATTEMPTS")
    await visitor.keep_waiting()
    assert await visitor.sign_in(visitor.code()) == "TOO_MANY_ATTEMPTS"


async def test_a_recovery_code_works_in_place_of_a_code_and_once(house: House) -> None:
    visitor = await guarded(house)
    spelled = visitor.recovery[0].lower().replace("-", " ")
    assert await visitor.sign_in(spelled) == "IN"
    assert await visitor.sign_in(visitor.recovery[0]) == "SECOND_FACTOR_REFUSED"
    assert await visitor.sign_in(visitor.recovery[1]) == "IN"
    assert ("second_factor.recovery_code_used", "OK") in await visitor.actions()


async def test_a_recovery_code_is_nobody_elses(house: House) -> None:
    visitor, other = await guarded(house), await guarded(house)
    assert await visitor.sign_in(other.recovery[0]) == "SECOND_FACTOR_REFUSED"
    assert await other.sign_in(other.recovery[0]) == "IN"


async def test_neither_secret_nor_recovery_codes_are_in_the_database(house: House) -> None:
    visitor = await guarded(house)
    found = ""
    for table in ("second_factors", "recovery_codes"):
        found += "".join(row["row"] for row in await visitor.sql(f"SELECT t::text AS row FROM {table} t"))
    assert str(visitor.member) in found
    assert visitor.secret.hex() not in found
    for code in visitor.recovery:
        assert code not in found
        assert code.replace("-", "").encode().hex() not in found


async def test_removing_takes_password_and_code(house: House) -> None:
    visitor = await guarded(house)
    assert (await visitor.data(REMOVE, p="not the password", c=visitor.code()))["userErrors"] == [
        {"code": "PROOF_REFUSED"}
    ]
    assert (await visitor.data(REMOVE, p=visitor.password, c=visitor.code(9)))["userErrors"] == [
        {"code": "SECOND_FACTOR_REFUSED"}
    ]
    assert await visitor.sign_in() == "SECOND_FACTOR_REQUIRED"
    assert (await visitor.data(REMOVE, p=visitor.password, c=visitor.code()))["isRemoved"]
    assert await visitor.sign_in() == "IN"
    assert [each for each in await visitor.actions() if each[0].startswith("second_factor.")] == [
        ("second_factor.added", "OK"),
        ("second_factor.removed", "PROOF_REFUSED"),
        ("second_factor.removed", "SECOND_FACTOR_REFUSED"),
        ("second_factor.removed", "OK"),
    ]


async def test_guesses_at_an_open_session_slow_down_and_stay_counted(house: House) -> None:
    visitor = await guarded(house)
    for _ in range(6):
        answer = await visitor.data(REMOVE, p="not the password", c="000000")
        assert answer["userErrors"] == [{"code": "PROOF_REFUSED"}]
    await visitor.keep_waiting()
    for document in (REMOVE, IDENTITY):
        answer = await visitor.data(document, p=visitor.password, c=visitor.code())
        assert answer["userErrors"] == [{"code": "TOO_MANY_ATTEMPTS"}]
    assert await visitor.sign_in() == "SECOND_FACTOR_REQUIRED"  # a thief of a session locks nobody out


async def test_administrators_reset_the_factor_of_who_lost_it(house: House) -> None:
    visitor = await guarded(house)
    sent = {"m": global_id("Member", visitor.member)}
    assert (await house.data(RESET, sent, role=Role.ADMIN))["resetSecondFactor"]["isRemoved"]
    assert await visitor.sign_in() == "IN"


async def test_an_owners_factor_only_an_owner_resets(house: House) -> None:
    owner = await guarded(house, Role.OWNER)
    sent = {"m": global_id("Member", owner.member)}
    answer = await house.ask(RESET, sent, role=Role.ADMIN)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert await owner.sign_in() == "SECOND_FACTOR_REQUIRED"
    assert (await house.data(RESET, sent, role=Role.OWNER))["resetSecondFactor"]["isRemoved"]
    assert await owner.sign_in() == "IN"


async def test_nobody_else_resets_a_factor_and_nobody_ones_own(house: House) -> None:
    visitor = await guarded(house, Role.ADMIN)
    sent = {"m": global_id("Member", visitor.member)}
    assert (await house.ask(RESET, sent, role=Role.MANAGER))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert (await visitor.ask(RESET, **sent))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    elsewhere = await house.data(RESET, sent, role=Role.OWNER, tenant="globex")
    assert elsewhere["resetSecondFactor"]["userErrors"] == [{"code": "NOT_FOUND", "path": ["member"]}]
    assert await visitor.sign_in() == "SECOND_FACTOR_REQUIRED"


async def test_confirming_ones_identity_makes_the_session_fresh(house: House) -> None:
    visitor = await guarded(house)
    await visitor.sql(
        "UPDATE member_sessions SET confirmed_at = now() - interval '1 hour' WHERE member_id = $1", visitor.member
    )
    assert (await visitor.data(IDENTITY, p=visitor.password))["userErrors"] == [{"code": "SECOND_FACTOR_REQUIRED"}]
    assert (await visitor.data(IDENTITY, p=visitor.password, c=visitor.code(9)))["confirmedAt"] is None
    stale = "SELECT confirmed_at < now() - interval '1 minute' AS is_stale FROM member_sessions WHERE member_id = $1"
    assert (await visitor.sql(stale, visitor.member))[0]["is_stale"]
    assert (await visitor.data(IDENTITY, p=visitor.password, c=visitor.code()))["confirmedAt"] is not None
    assert not (await visitor.sql(stale, visitor.member))[0]["is_stale"]
    assert ("identity.confirmed", "OK") in await visitor.actions()


@pytest.mark.parametrize("document", [REMOVE, IDENTITY], ids=["removeSecondFactor", "confirmIdentity"])
async def test_without_a_token_or_with_an_ended_session_nothing_is_proved(house: House, document: str) -> None:
    visitor = await a_member(house)
    sent = {"p": visitor.password, "c": "000000"}
    assert (await visitor.ask(document, **sent))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    await visitor.sign_in()
    await visitor.data("mutation { signOut { ended } }")
    assert (await visitor.ask(document, **sent))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_what_looks_at_a_password_comes_alone(house: House) -> None:
    visitor = await a_visitor(house)
    document = """mutation($p: String!) {
        endOtherSessions { ended } confirmIdentity(password: $p) { confirmedAt userErrors { code } } }"""
    answer = await visitor.ask(document, p=visitor.password)
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert answer.get("data") is None


async def test_beside_a_sign_in_nothing_runs_and_nobody_is_signed_in(house: House) -> None:
    visitor = await a_member(house)
    document = """mutation($e: String!, $p: String!) {
        signIn(tenant: "acme", email: $e, password: $p) { accessToken } ...More }
        fragment More on Mutation { createTeam(name: "Sales") { team { id } } }"""
    answer = await visitor.ask(document, e=visitor.email, p=visitor.password)
    assert answer["errors"][0]["message"] == "Send signIn in a request of its own; nothing was done."
    assert answer.get("data") is None
    assert await visitor.sql("SELECT 1 FROM member_sessions WHERE member_id = $1", visitor.member) == []


async def test_who_must_wait_is_told_how_long(house: House) -> None:
    visitor = await a_visitor(house)
    document = 'mutation { confirmIdentity(password: "wrong") { userErrors { code message retryAfter } } }'
    for _ in range(6):
        assert (await visitor.data(document))["userErrors"][0]["retryAfter"] is None
    await visitor.keep_waiting()
    (error,) = (await visitor.data(document))["userErrors"]
    assert error["code"] == "TOO_MANY_ATTEMPTS"
    assert 290 < error["retryAfter"] <= 300
    assert error["message"] == f"Too many failed attempts; try again in {error['retryAfter']} s."


async def test_the_advice_names_what_this_member_can_do(house: House) -> None:
    visitor, document = await a_visitor(house), "mutation { beginSecondFactor { userErrors { code message } } }"
    await visitor.sql(
        "UPDATE member_sessions SET confirmed_at = now() - interval '6 minutes' WHERE member_id = $1", visitor.member
    )
    (error,) = (await visitor.data(document))["userErrors"]
    assert (error["code"], "confirmIdentity" in error["message"]) == ("STEP_UP_REQUIRED", True)


async def test_who_has_no_password_is_sent_to_the_provider(house: House) -> None:
    visitor = await a_visitor(house)
    await visitor.sql("UPDATE members SET password_hash = NULL WHERE id = $1", visitor.member)
    begun = await visitor.data("mutation { beginSecondFactor { uri userErrors { code message } } }")
    assert (begun["uri"], begun["userErrors"][0]["code"]) == (None, "NO_PASSWORD")
    assert "provider" in begun["userErrors"][0]["message"]
    asked = 'mutation { confirmIdentity(password: "any") { confirmedAt userErrors { code message } } }'
    (error,) = (await visitor.data(asked))["userErrors"]
    assert (error["code"], "beginSignOn(fresh: true)" in error["message"]) == ("NO_PASSWORD", True)
    assert await visitor.sql("SELECT 1 FROM second_factors WHERE id = $1", visitor.member) == []


async def test_a_wrong_code_is_told_as_such_and_counted(house: House) -> None:
    visitor = await guarded(house)
    before = len(await visitor.sql("SELECT 1 FROM member_sessions WHERE member_id = $1", visitor.member))
    assert await visitor.sign_in(visitor.code(9)) == "SECOND_FACTOR_REFUSED"
    assert (await visitor.actions())[-1] == ("member.signed_in", "SECOND_FACTOR_REFUSED")
    assert await visitor.sign_in(visitor.code(9), password="not the password") == "SIGN_IN_REFUSED"
    after = len(await visitor.sql("SELECT 1 FROM member_sessions WHERE member_id = $1", visitor.member))
    assert after == before


async def test_twenty_aliases_of_a_sign_in_are_twenty_attempts(house: House) -> None:
    visitor = await a_member(house)
    sign_in = f'signIn(tenant: "acme", email: "{visitor.email}", password: "wrong") {{ userErrors {{ code }} }}'
    document = "mutation { " + " ".join(f"a{number}: {sign_in}" for number in range(20)) + " }"
    answer = await house.data(document, role=None)
    codes = [answer[f"a{number}"]["userErrors"][0]["code"] for number in range(20)]
    assert codes[:6] == ["SIGN_IN_REFUSED"] * 6
    assert codes.count("TOO_MANY_ATTEMPTS") >= 10  # a slow machine may sit through the first waits
    await visitor.keep_waiting()
    assert await visitor.sign_in() == "TOO_MANY_ATTEMPTS"


async def test_where_there_is_no_factor_none_is_taken_away(house: House) -> None:
    visitor = await a_visitor(house)
    reset = await house.data(RESET, {"m": global_id("Member", visitor.member)}, role=Role.ADMIN)
    assert reset["resetSecondFactor"] == {"isRemoved": False, "userErrors": [{"code": "NOT_SET", "path": []}]}
    removed = await visitor.data(REMOVE, p=visitor.password, c="123456")
    assert removed == {"isRemoved": False, "userErrors": [{"code": "NOT_SET"}]}
    assert "second_factor.removed" not in {action for action, _ in await visitor.actions()}
