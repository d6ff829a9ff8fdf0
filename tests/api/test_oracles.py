"""What a viewer may not see, no search, order, cursor, count, write or error tells."""

import base64
from typing import Any

import pytest

from tenants import members
from tenants.access import Role
from tenants.ids import new_id
from tenants.viewers import Credential, MemberId
from tests.house import House

SECRETS = {
    "email": "oriana@example.org",
    "phone": "+12022243001",
    "governmentId": "ORA-7654321",
    "externalId": "ORACLE-1",
}
FIND = "query($by: CustomerSearch!) { findCustomers(by: $by) { totalCount nodes { id } pageInfo { hasNextPage } } }"
LIST = """query($after: String, $before: String, $sort: CustomerSort) {
  customers(first: 2, after: $after, before: $before, sort: $sort, filter: { source: "oracle" }) {
    totalCount nodes { id } edges { cursor } } }"""
FOUND = """query($after: String) { findCustomers(by: { namePrefix: "oriana" }, first: 1, after: $after) {
    nodes { id } edges { cursor } } }"""
READ = """query($id: ID!) { customer(id: $id) {
  version updatedAt givenName familyName displayName emails phones birthDate governmentId note externalId
  address { lines city postalCode country } } }"""
SAVE = """mutation($id: ID!, $version: Int!, $input: CustomerInput!) {
  updateCustomer(id: $id, version: $version, input: $input) {
    customer { id version } userErrors { code path message } } }"""


@pytest.fixture(scope="module")
async def known(house: House) -> str:
    for n in range(3):
        await house.create(givenName=f"Oriana{n}", source="oracle")
    made = await house.create(
        givenName="Oriana",
        familyName="Oracle",
        emails=[SECRETS["email"], "o@elsewhere.example.com"],
        phones=[SECRETS["phone"]],
        governmentId=SECRETS["governmentId"],
        externalId=SECRETS["externalId"],
        birthDate="1980-01-02",
        note="secretive",
        address={"lines": ["9 Delphi Road"], "city": "Delphi", "postalCode": "33054", "country": "GR"},
        source="oracle",
    )
    return str(made["id"])


async def read(house: House, known: str, role: Role = Role.OWNER) -> dict[str, Any]:
    customer: dict[str, Any] = (await house.data(READ, {"id": known}, role=role))["customer"]
    return customer


async def save(house: House, known: str, role: Role, **fields: Any) -> dict[str, Any]:
    version = (await read(house, known))["version"]
    return await house.ask(SAVE, {"id": known, "version": version, "input": fields}, role=role)


def code_of(answer: dict[str, Any]) -> str:
    (error,) = answer["errors"]
    return str(error["extensions"]["code"])


def without_request_id(answer: dict[str, Any]) -> dict[str, Any]:
    for error in answer.get("errors", []):
        assert error["extensions"].pop("requestId")
    return answer


# Searching


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("role", [Role.AGENT, Role.ADMIN, Role.ANALYST, Role.AUDITOR])
async def test_a_search_without_its_right_answers_the_same_whatever_is_there(
    house: House, known: str, role: Role, name: str
) -> None:
    present, absent, wrong = [
        without_request_id(await house.ask(FIND, {"by": {name: value}}, role=role))
        for value in (SECRETS[name], "nobody-has-this", "")
    ]
    assert code_of(present) == "FORBIDDEN"
    assert present["data"] == {"findCustomers": None}
    assert present == absent == wrong


async def test_a_search_hidden_in_an_alias_beside_an_allowed_one_is_refused_alone(house: House, known: str) -> None:
    document = """query($email: String!) {
      a: findCustomers(by: { namePrefix: "oriana" }) { nodes { id } }
      b: findCustomers(by: { email: $email }) { nodes { id } } }"""
    answer = await house.ask(document, {"email": SECRETS["email"]}, role=Role.AGENT)
    assert len(answer["data"]["a"]["nodes"]) == 4
    assert answer["data"]["b"] is None
    assert code_of(answer) == "FORBIDDEN"


@pytest.mark.parametrize("by", [{}, {"email": "a@example.org", "phone": "+12022243001"}, {"email": None}], ids=str)
async def test_a_search_names_exactly_one_value(house: House, by: dict[str, Any]) -> None:
    assert code_of(await house.ask(FIND, {"by": by})) == "BAD_USER_INPUT"


@pytest.mark.parametrize("prefix", ["", "  ", "-", "•••", "x" * 900])
async def test_a_name_that_cannot_be_searched_by_is_refused(house: House, prefix: str) -> None:
    answer = await house.ask(FIND, {"by": {"namePrefix": prefix}}, role=Role.AGENT)
    assert code_of(answer) == "BAD_USER_INPUT"
    assert not prefix.strip("- ") or prefix not in str(answer)


# Filters, orders and counts


PERSONAL = [
    "email",
    "emails",
    "phone",
    "phones",
    "governmentId",
    "externalId",
    "birthDate",
    "note",
    "city",
    "givenName",
]


@pytest.mark.parametrize("name", PERSONAL)
async def test_no_filter_names_a_personal_field(house: House, name: str) -> None:
    document = f'{{ customers(filter: {{ {name}: "x" }}) {{ nodes {{ id }} }} }}'
    assert code_of(await house.ask(document, role=Role.AGENT)) == "VALIDATION_FAILED"


@pytest.mark.parametrize("name", ["EMAILS", "BIRTH_DATE", "GIVEN_NAME", "GOVERNMENT_ID", "STAGE"])
async def test_no_order_names_a_personal_field(house: House, name: str) -> None:
    assert code_of(await house.ask(LIST, {"sort": {"field": name}}, role=Role.AGENT)) == "BAD_USER_INPUT"


async def test_counts_are_of_clear_fields_alone(house: House, known: str) -> None:
    for role in Role:
        assert (await house.data(LIST, role=role))["customers"]["totalCount"] == 4
    found = await house.data(FIND, {"by": {"namePrefix": "oriana"}}, role=Role.AGENT)
    assert found["findCustomers"]["totalCount"] is None


# Cursors


async def cursor_of(house: House, **variables: Any) -> str:
    page = (await house.data(LIST, variables, role=Role.AGENT))["customers"]
    return str(page["edges"][0]["cursor"])


async def test_a_cursor_holds_no_personal_value(house: House, known: str) -> None:
    cursor = await cursor_of(house)
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    assert len(raw) == 2 + 8 + 16 + 16


@pytest.mark.parametrize("argument", ["after", "before"])
async def test_a_cursor_with_any_bit_changed_is_refused(house: House, known: str, argument: str) -> None:
    cursor = await cursor_of(house)
    for place in range(0, len(cursor), 3):
        other = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        answer = await house.ask(LIST, {argument: other}, role=Role.AGENT)
        assert code_of(answer) == "BAD_USER_INPUT"
        assert other not in str(answer)


@pytest.mark.parametrize("cursor", ["x", "=", "é", "A" * 54, "A" * 5000, " "])
async def test_what_is_no_cursor_is_refused(house: House, cursor: str) -> None:
    assert code_of(await house.ask(LIST, {"after": cursor}, role=Role.AGENT)) == "BAD_USER_INPUT"


async def test_a_cursor_of_another_tenant_is_refused(house: House, known: str) -> None:
    answer = await house.ask(LIST, {"after": await cursor_of(house)}, role=Role.AGENT, tenant="globex")
    assert code_of(answer) == "BAD_USER_INPUT"


@pytest.mark.parametrize("other", [{"field": "UPDATED_AT"}, {"direction": "ASC"}], ids=str)
async def test_a_cursor_of_another_order_is_refused(house: House, known: str, other: dict[str, str]) -> None:
    answer = await house.ask(LIST, {"after": await cursor_of(house), "sort": other}, role=Role.AGENT)
    assert code_of(answer) == "BAD_USER_INPUT"


async def test_a_cursor_of_a_list_is_none_of_a_search_and_the_reverse(house: House, known: str) -> None:
    assert code_of(await house.ask(FOUND, {"after": await cursor_of(house)}, role=Role.AGENT)) == "BAD_USER_INPUT"
    found = (await house.data(FOUND, role=Role.AGENT))["findCustomers"]["edges"][0]["cursor"]
    assert code_of(await house.ask(LIST, {"after": found}, role=Role.AGENT)) == "BAD_USER_INPUT"


# Saving what was read


WRITTEN = ["givenName", "familyName", "displayName", "emails", "phones", "birthDate", "governmentId", "note"]
READ_AND_SAVED = [(Role.AGENT, "emails"), (Role.AGENT, "phones"), (Role.AGENT, "note"), (Role.MANAGER, "governmentId")]
READ_AND_SAVED += [(Role.INTEGRATION, name) for name in [*WRITTEN, "externalId"]]


@pytest.mark.parametrize(("role", "name"), READ_AND_SAVED)
async def test_saving_what_was_read_changes_nothing(house: House, known: str, role: Role, name: str) -> None:
    before = await read(house, known)
    seen = (await read(house, known, role))[name]
    assert seen != before[name]
    answer = await save(house, known, role, **{name: seen})
    if (role, name) == (Role.MANAGER, "governmentId"):
        assert code_of(answer) == "FORBIDDEN"
    else:
        (error,) = answer["data"]["updateCustomer"]["userErrors"]
        assert (error["code"], error["path"]) == ("MASKED_INPUT", ["input", name])
        assert answer["data"]["updateCustomer"]["customer"] is None
    assert await read(house, known) == before


@pytest.mark.parametrize("name", ["emails", "phones"])
async def test_a_list_that_is_hidden_is_not_cleared_by_an_empty_one(house: House, known: str, name: str) -> None:
    before = await read(house, known)
    answer = await save(house, known, Role.INTEGRATION, **{name: []})
    assert [e["code"] for e in answer["data"]["updateCustomer"]["userErrors"]] == ["MASKED_INPUT"]
    assert await read(house, known) == before


@pytest.mark.parametrize("part", ["lines", "city", "postalCode", "country"])
async def test_saving_a_hidden_part_of_an_address_is_refused(house: House, known: str, part: str) -> None:
    before = await read(house, known)
    answer = await save(house, known, Role.INTEGRATION, address={part: None})
    (error,) = answer["data"]["updateCustomer"]["userErrors"]
    assert (error["code"], error["path"]) == ("MASKED_INPUT", ["input", "address", part])
    assert await read(house, known) == before


@pytest.mark.parametrize("name", ["emails", "phones"])
async def test_one_mask_among_new_values_is_refused(house: House, known: str, name: str) -> None:
    before = await read(house, known)
    seen = (await read(house, known, Role.AGENT))[name]
    fresh = {"emails": "new@example.org", "phones": "+12022243999"}[name]
    answer = await save(house, known, Role.AGENT, **{name: [fresh, seen[-1]]})
    assert [e["code"] for e in answer["data"]["updateCustomer"]["userErrors"]] == ["MASKED_INPUT"]
    assert await read(house, known) == before


async def test_every_masked_field_is_named_at_once(house: House, known: str) -> None:
    seen = await read(house, known, Role.AGENT)
    answer = await save(house, known, Role.AGENT, emails=seen["emails"], phones=seen["phones"], note=None)
    assert sorted(e["path"][-1] for e in answer["data"]["updateCustomer"]["userErrors"]) == ["emails", "note", "phones"]


async def test_saving_the_mask_of_a_name_made_of_other_names_is_refused(house: House, known: str) -> None:
    before = await read(house, known)
    who = await both(house, Role.ADMIN, Role.INTEGRATION)  # sees names masked and may write them
    seen = await house.data(READ, {"id": known}, role=None, headers=who)
    sent = {"id": known, "version": before["version"], "input": {"displayName": seen["customer"]["displayName"]}}
    answer = (await house.data(SAVE, sent, role=None, headers=who))["updateCustomer"]
    assert (before["displayName"], sent["input"]) == ("Oriana Oracle", {"displayName": "O. O."})
    assert [(e["code"], e["path"]) for e in answer["userErrors"]] == [("MASKED_INPUT", ["input", "displayName"])]
    assert await read(house, known) == before


async def both(house: House, *roles: Role) -> dict[str, str]:
    """The headers of a new member that has all these roles."""
    tenant = house.tenants["acme"].id
    async with house.api.units.enter(tenant, None, write=True) as unit:
        email = f"{new_id().hex}@acme.example.org"
        made = await members.add(unit, email=email, name="Both", password_hash="unused", roles=roles)
    return {"authorization": f"Bearer {await house.token(Credential(tenant, MemberId(made)))}"}


async def test_whoever_sees_it_plain_may_save_what_looks_like_a_mask(house: House) -> None:
    made = await house.create(givenName="Joan", familyName="Doe")
    answer = await save(house, made["id"], Role.AGENT, givenName="J.", familyName="D.")
    assert answer["data"]["updateCustomer"]["userErrors"] == []


@pytest.mark.parametrize("value", [None, {"city": None}, {"lines": []}, {"city": "Elsewhere"}], ids=str)
async def test_an_agent_changes_and_clears_no_address(house: House, known: str, value: Any) -> None:
    before = await read(house, known)
    answer = await save(house, known, Role.AGENT, address=value)
    assert answer["data"]["updateCustomer"] is None
    assert code_of(answer) == "FORBIDDEN"
    assert await read(house, known) == before


# Errors


@pytest.mark.parametrize(
    "fields",
    [
        {"emails": ["oracle-at-nowhere.zz"]},
        {"phones": ["5550199777"]},
        {"givenName": "Ora\u202ecleson"},
        {"language": "oraclish-language"},
        {"region": "oraclia"},
        {"note": "oracular\x01"},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_an_error_names_the_field_and_never_the_value(house: House, known: str, fields: dict[str, Any]) -> None:
    answer = await save(house, known, Role.OWNER, **fields)
    (error,) = answer["data"]["updateCustomer"]["userErrors"]
    (name, value), *_ = fields.items()
    assert (error["code"], error["path"][1]) == ("INVALID", name)
    assert (value[0] if isinstance(value, list) else value) not in str(answer)
    assert "orac" not in error["message"]


async def test_a_taken_external_id_is_not_echoed(house: House, known: str) -> None:
    other = await house.create(givenName="Second")
    answer = await save(house, other["id"], Role.INTEGRATION, externalId=SECRETS["externalId"])
    (error,) = answer["data"]["updateCustomer"]["userErrors"]
    assert error["code"] == "EXTERNAL_ID_TAKEN"
    assert SECRETS["externalId"] not in str(answer)


@pytest.mark.parametrize("name", ["birthDate", "stage", "governmentId"])
async def test_a_value_of_the_wrong_type_is_not_echoed(house: House, known: str, name: str) -> None:
    answer = await save(house, known, Role.OWNER, **{name: ["oracle-of-delphi"]})
    assert code_of(answer) == "BAD_USER_INPUT"
    assert "delphi" not in str(answer)


async def test_an_empty_text_erases_no_note_that_the_agent_does_not_see(house: House) -> None:
    made = await house.create(givenName="Nora", note="keep me")
    update = """mutation($i: ID!, $in: CustomerInput!) {
        updateCustomer(id: $i, version: 1, input: $in) { userErrors { code } } }"""
    answer = await house.data(update, {"i": made["id"], "in": {"note": "  "}}, role=Role.AGENT)
    assert answer["updateCustomer"]["userErrors"] == [{"code": "MASKED_INPUT"}]
    kept = await house.data("query($i: ID!) { customer(id: $i) { note } }", {"i": made["id"]})
    assert kept["customer"]["note"] == "keep me"


@pytest.mark.parametrize("at", ["2024-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_without_offset_or_out_of_range_is_refused(house: House, at: str) -> None:
    document = "query($t: DateTime) { customers(filter: {createdSince: $t}) { totalCount } }"
    answer = await house.ask(document, {"t": at})
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_signing_in_with_a_token_is_refused(house: House) -> None:
    answer = await house.ask('mutation { signIn(tenant: "acme", email: "a@b.example", password: "x") { accessToken } }')
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
