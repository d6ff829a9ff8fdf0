"""Imports over GraphQL: a file goes in, a job comes out, and its rows tell what became of them and no value."""

import csv
import io
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from api.paging import global_id
from domain.imports import IMPORT
from jobs.handling import Handling
from jobs.imports import import_customers
from tenants.access import Role
from tenants.ids import any_local_id
from tenants.jobs import JobId
from tenants.jobs.ledger import Ledger
from tests.house import House

ERRORS = "userErrors { code path message }"
IMPORTING = f"""mutation($i: ImportInput!) {{ importCustomers(input: $i) {{
  job {{ id kind state progress {{ done total }} createdBy {{ id }} }} {ERRORS} }} }}"""
ROWS = """query($job: ID!, $refused: Boolean! = false, $first: Int, $after: String, $last: Int, $before: String) {
  importRows(job: $job, refusedOnly: $refused, first: $first, after: $after, last: $last, before: $before) {
    totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    nodes { row outcome errors { code path message }
      customer { id givenName emails note stage tags { id } owner { id } } }
  } }"""
PEOPLE = [["name", "mail", "remark"], ["Ada", "ada@example.org", "=1+1"], ["Bob", "Canary-4711", ""], ["Cid", "", "x"]]
COLUMNS = [
    {"column": "name", "field": "givenName"},
    {"column": "mail", "field": "emails", "separator": ";"},
    {"column": "remark", "field": "note"},
]


def written(table: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue()


async def start(house: House, table: Sequence[Sequence[str]] = PEOPLE, **who: Any) -> dict[str, Any]:
    given = {"csv": written(table), "columns": who.pop("columns", COLUMNS)}
    answer: dict[str, Any] = (await house.data(IMPORTING, {"i": given}, **who))["importCustomers"]
    return answer


async def run(house: House, job: str, tenant: str = "acme") -> None:
    located = any_local_id(job)
    assert located is not None
    ledger = Ledger(house.api.database, house.api.platform, "test")
    handling = Handling(house.api.units, ledger, {IMPORT: import_customers})
    assert await handling.handle(house.tenants[tenant].id, JobId(located[1]))


async def imported(house: House, table: Sequence[Sequence[str]] = PEOPLE, **who: Any) -> str:
    job: str = (await start(house, table, **who))["job"]["id"]
    await run(house, job)
    return job


async def rows(house: House, job: str, **how: Any) -> dict[str, Any]:
    who = {name: how.pop(name) for name in ("role", "tenant") if name in how}
    page: dict[str, Any] = (await house.data(ROWS, {"job": job, **how}, **who))["importRows"]
    return page


async def test_an_import_answers_with_its_job_at_once(house: House) -> None:
    answer = await start(house, role=Role.MANAGER)
    assert answer["userErrors"] == []
    assert answer["job"]["kind"] == "import_customers"
    assert (answer["job"]["state"], answer["job"]["progress"]) == ("READY", {"done": 0, "total": 3})
    assert answer["job"]["createdBy"]["id"] == global_id("Member", house.members["acme"][Role.MANAGER].principal)
    assert [row["outcome"] for row in (await rows(house, answer["job"]["id"]))["nodes"]] == [None] * 3


async def test_each_row_tells_its_customer_or_its_errors(house: House) -> None:
    first, second, third = (await rows(house, await imported(house)))["nodes"]
    assert (first["row"], first["outcome"], first["errors"]) == (1, "CREATED", [])
    assert (first["customer"]["emails"], first["customer"]["note"]) == (["ada@example.org"], "=1+1")
    assert (second["row"], second["outcome"], second["customer"]) == (2, "REFUSED", None)
    assert [(e["code"], e["path"]) for e in second["errors"]] == [("INVALID", ["emails", "0"])]
    assert (third["row"], third["customer"]["givenName"]) == (3, "Cid")


async def test_the_rows_that_were_refused_can_be_had_alone(house: House) -> None:
    page = await rows(house, await imported(house), refused=True)
    assert (page["totalCount"], [row["row"] for row in page["nodes"]]) == (1, [2])


async def test_rows_come_in_pages_in_both_directions(house: House) -> None:
    job = await imported(house, [["name"], *([f"Person {n}"] for n in range(5))], columns=COLUMNS[:1])
    one = await rows(house, job, first=2)
    two = await rows(house, job, first=2, after=one["pageInfo"]["endCursor"])
    end = await rows(house, job, last=2)
    back = await rows(house, job, last=2, before=end["pageInfo"]["startCursor"])
    found = [[row["row"] for row in page["nodes"]] for page in (one, two, end, back)]
    assert found == [[1, 2], [3, 4], [4, 5], [2, 3]]
    assert [one["pageInfo"]["hasNextPage"], end["pageInfo"]["hasNextPage"], one["totalCount"]] == [True, False, 5]


async def test_a_cursor_of_another_import_is_refused(house: House) -> None:
    mine, other = [await imported(house) for _ in range(2)]
    end = (await rows(house, mine, first=1))["pageInfo"]["endCursor"]
    (error,) = (await house.ask(ROWS, {"job": other, "after": end}))["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    ("role", "shown"),
    [
        (Role.OWNER, ("Ada", ["ada@example.org"], "=1+1")),
        (Role.ADMIN, ("A.", ["a***@e***.org"], None)),
        (Role.AUDITOR, ("A.", ["a***@e***.org"], None)),
    ],
)
async def test_a_row_shows_of_its_customer_what_the_role_may_see(
    house: House, role: Role, shown: tuple[Any, ...]
) -> None:
    job = await imported(house)
    answer = await house.post(ROWS, {"job": job}, role=role)
    customer = answer.json()["data"]["importRows"]["nodes"][0]["customer"]
    assert (customer["givenName"], customer["emails"], customer["note"]) == shown
    assert "Canary-4711" not in answer.text


async def test_the_starter_who_may_see_nothing_sees_outcomes_alone(house: House) -> None:
    job = await imported(house, role=Role.INTEGRATION)
    first, second, _ = (await rows(house, job, role=Role.INTEGRATION))["nodes"]
    assert [first["customer"][name] for name in ("givenName", "emails", "note")] == [None] * 3
    assert (first["outcome"], second["outcome"], second["errors"][0]["code"]) == ("CREATED", "REFUSED", "INVALID")


@pytest.mark.parametrize(
    ("text", "columns", "code", "path"),
    [
        ("name\n", [["name", "note"]], "REQUIRED", ["input", "csv"]),
        ("name,x\nCanary-4711\n", [["name", "note"]], "RAGGED_ROW", ["input", "csv"]),
        ('name\n"Canary-4711\n', [["name", "note"]], "NOT_CSV", ["input", "csv"]),
        ("name\nCanary-4711\u0001\n", [["name", "note"]], "CONTROL_CHARACTER", ["input", "csv"]),
        ("name\n" + "1\n" * 10_001, [["name", "note"]], "TOO_MANY_ROWS", ["input", "csv"]),
        ("Canary-4711\n1\n", [["name", "note"]], "UNKNOWN_COLUMN", ["input", "columns", "0", "column"]),
        ("a,b\n1,2\n", [["a", "note"], ["b", "note"]], "FIELD_TWICE", ["input", "columns", "1", "field"]),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else "",
)
async def test_a_file_that_cannot_be_meant_is_refused_without_a_word_of_it(
    house: House, text: str, columns: list[list[str]], code: str, path: list[str]
) -> None:
    before = (await house.data("{ jobs { totalCount } }"))["jobs"]
    given = {"csv": text, "columns": [{"column": column, "field": field} for column, field in columns]}
    answer = await house.post(IMPORTING, {"i": given})
    told = answer.json()["data"]["importCustomers"]
    assert (told["job"], [(e["code"], e["path"]) for e in told["userErrors"]]) == (None, [(code, path)])
    assert "Canary-4711" not in answer.text
    assert (await house.data("{ jobs { totalCount } }"))["jobs"] == before


@pytest.mark.parametrize(
    ("role", "field"), [(Role.AGENT, "note"), (Role.MANAGER, "governmentId"), (Role.INTEGRATION, "ownerId")]
)
async def test_who_has_no_right_to_a_field_cannot_import_it(house: House, role: Role, field: str) -> None:
    given = {"csv": "a\n1\n", "columns": [{"column": "a", "field": field}]}
    answer = await house.ask(IMPORTING, {"i": given}, role=role)
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    assert answer["data"]["importCustomers"] is None


@pytest.mark.parametrize("escape", [r"\u0000", r"\ud800"])
async def test_what_is_no_text_does_not_get_in(house: House, escape: str) -> None:
    token = await house.token(house.members["acme"][Role.OWNER])
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    body = f"""{{"query": "mutation($i: ImportInput!) {{ importCustomers(input: $i) {{ job {{ id }} }} }}",
        "variables": {{"i": {{"csv": "name\\nA{escape}da", "columns": []}}}}}}"""
    (error,) = (await house.client.post("/graphql", content=body, headers=headers)).json()["errors"]
    assert error["extensions"]["code"] in ("BAD_USER_INPUT", "BAD_REQUEST")
    assert "da" not in error["message"].split()


async def test_ids_in_a_file_are_those_that_clients_know(house: House) -> None:
    tag = (await house.data(f'mutation {{ createTag(name: "Tag {uuid4().hex}") {{ tag {{ id }} }} }}'))["createTag"]
    agent, tag_id = global_id("Member", house.members["acme"][Role.AGENT].principal), tag["tag"]["id"]
    stranger = global_id("Member", house.members["globex"][Role.AGENT].principal)
    table = [["name", "who", "tags"], ["Ada", agent, f"{tag_id} "], ["Bob", stranger, ""], ["Cid", "", "no id"]]
    columns = [*COLUMNS[:1], {"column": "who", "field": "ownerId"}, {"column": "tags", "field": "tagIds"}]
    first, second, third = (await rows(house, await imported(house, table, columns=columns)))["nodes"]
    assert (first["customer"]["owner"], first["customer"]["tags"]) == ({"id": agent}, [{"id": tag_id}])
    told = [[(e["code"], e["path"]) for e in row["errors"]] for row in (second, third)]
    assert told == [[("NOT_FOUND", ["ownerId"])], [("NOT_FOUND", ["tagIds"])]]


async def test_asking_again_under_one_key_starts_one_import(house: House) -> None:
    headers = {"idempotency-key": uuid4().hex}
    first, second = [await start(house, headers=headers) for _ in range(2)]
    third = await start(house)
    assert first["job"]["id"] == second["job"]["id"] != third["job"]["id"]


async def test_a_key_that_was_used_for_another_file_is_refused(house: House) -> None:
    headers = {"idempotency-key": uuid4().hex}
    await start(house, headers=headers)
    given = {"csv": written(PEOPLE[:2]), "columns": COLUMNS}
    (error,) = (await house.ask(IMPORTING, {"i": given}, headers=headers))["errors"]
    assert error["extensions"]["code"] == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.parametrize(
    ("tenant", "role"), [("globex", Role.OWNER), ("acme", Role.AGENT), ("acme", Role.ANALYST)], ids=str
)
async def test_the_rows_of_anothers_import_are_not_found_as_those_of_none(
    house: House, tenant: str, role: Role
) -> None:
    job, absent = await imported(house), global_id("Job", uuid4())
    answers = [await house.ask(ROWS, {"job": id}, tenant=tenant, role=role) for id in (job, absent, "nonsense")]
    for answer in answers:
        del answer["errors"][0]["extensions"]["requestId"]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["errors"][0]["extensions"]["code"] == "NOT_FOUND"


async def test_a_file_too_large_for_a_request_is_told_to_be_split(house: House) -> None:
    answer = await house.post(IMPORTING, {"i": {"csv": "x" * 2**20, "columns": COLUMNS}})
    assert answer.status_code == 413
    assert "split" in answer.json()["errors"][0]["message"]
