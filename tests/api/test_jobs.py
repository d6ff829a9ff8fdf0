"""Jobs over GraphQL: who started one may read and steer it, others by permission; other tenants' are not there."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from api.paging import global_id
from tenants.access import Role
from tenants.ids import any_local_id
from tests.house import House

FIELDS = """id kind state priority attempt deaths createdAt startedAt endedAt dueAt reason
  progress { done total ratePerSecond secondsLeft } createdBy { id name } result { name count }"""
READ = f"query($id: ID!) {{ job(id: $id) {{ {FIELDS} }} }}"
NODE = f"query($id: ID!) {{ node(id: $id) {{ id ... on Job {{ {FIELDS} }} }} }}"
LIST = """query($state: [JobState!], $kind: [String!], $first: Int, $after: String) {
  jobs(state: $state, kind: $kind, first: $first, after: $after) {
    totalCount pageInfo { endCursor hasNextPage } nodes { id state kind } } }"""
ACTS = {
    act: f"mutation($id: ID!) {{ at: {act}(id: $id) {{ job {{ id state }} userErrors {{ code path message }} }} }}"
    for act in ("pauseJob", "resumeJob", "cancelJob", "retryJob")
}
IMPORT = (
    """mutation { importCustomers(input: {csv: "a\\n1\\n", columns: [{column: "a", field: note}]}) { job { id } } }"""
)


@pytest.fixture
async def superuser(house: House) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(house.superuser_url)
    yield connection
    await connection.close()


async def a_job(house: House, role: Role = Role.MANAGER, tenant: str = "acme") -> str:
    made: str = (await house.data(IMPORT, role=role, tenant=tenant))["importCustomers"]["job"]["id"]
    return made


def local(job: str) -> UUID:
    located = any_local_id(job)
    assert located is not None
    return located[1]


async def state_of(house: House, job: str) -> str:
    found: str = (await house.data(READ, {"id": job}))["job"]["state"]
    return found


async def act(house: House, name: str, job: str, **who: Any) -> tuple[str | None, list[tuple[str, list[str]]]]:
    """The state after it, and the errors of the user."""
    answer = (await house.data(ACTS[name], {"id": job}, **who))["at"]
    return (answer["job"] or {}).get("state"), [(e["code"], e["path"]) for e in answer["userErrors"]]


async def code_of(house: House, document: str, job: str, **who: Any) -> str | None:
    errors = (await house.ask(document, {"id": job}, **who)).get("errors")
    return errors[0]["extensions"]["code"] if errors else None


async def test_a_job_tells_what_it_is_and_how_far(house: House) -> None:
    job = await a_job(house)
    found = (await house.data(READ, {"id": job}))["job"]
    member = global_id("Member", house.members["acme"][Role.MANAGER].principal)
    assert (found["kind"], found["state"], found["priority"]) == ("import_customers", "READY", "NORMAL")
    assert found["progress"] == {"done": 0, "total": 1, "ratePerSecond": None, "secondsLeft": None}
    assert (found["attempt"], found["deaths"], found["result"]) == (0, 0, [])
    assert found["createdBy"] == {"id": member, "name": "Manager"}
    assert (await house.data(NODE, {"id": job}))["node"] == found


async def test_a_running_job_tells_its_rate_and_what_is_left(house: House, superuser: asyncpg.Connection) -> None:
    job = await a_job(house)
    await superuser.execute(
        "UPDATE jobs SET state = 'RUNNING', lease_until = now() + interval '1 hour', done = 20, total = 100,"
        " started_at = now() - interval '10 s', moved_at = now() WHERE id = $1",
        local(job),
    )
    progress = (await house.data(READ, {"id": job}))["job"]["progress"]
    assert progress == {"done": 20, "total": 100, "ratePerSecond": 2, "secondsLeft": 40}


async def test_what_came_of_a_job_is_counted_by_name(house: House, superuser: asyncpg.Connection) -> None:
    job = await a_job(house)
    await superuser.execute(
        """UPDATE jobs SET state = 'DONE', ended_at = now(), result = '{"created": 3, "refused": 1}' WHERE id = $1""",
        local(job),
    )
    found = (await house.data(READ, {"id": job}))["job"]
    assert found["result"] == [{"name": "created", "count": 3}, {"name": "refused", "count": 1}]


async def test_jobs_are_listed_newest_first_in_pages(house: House) -> None:
    made = [await a_job(house) for _ in range(3)]
    one = (await house.data(LIST, {"first": 2}))["jobs"]
    two = (await house.data(LIST, {"first": 1, "after": one["pageInfo"]["endCursor"]}))["jobs"]
    assert [job["id"] for job in (*one["nodes"], *two["nodes"])] == made[::-1]
    assert one["totalCount"] >= 3


async def test_jobs_are_filtered_by_state_and_kind(house: House) -> None:
    paused, ready = await a_job(house), await a_job(house)
    await act(house, "pauseJob", paused)
    found = (await house.data(LIST, {"state": ["PAUSED"], "kind": ["import_customers"]}))["jobs"]["nodes"]
    other = (await house.data(LIST, {"kind": ["no_such_kind"]}))["jobs"]
    assert paused in [job["id"] for job in found]
    assert ready not in [job["id"] for job in found]
    assert (other["nodes"], other["totalCount"]) == ([], 0)


async def test_a_job_is_paused_resumed_and_cancelled(house: House) -> None:
    job = await a_job(house)
    steps = [await act(house, name, job) for name in ("pauseJob", "resumeJob", "cancelJob")]
    assert steps == [("PAUSED", []), ("READY", []), ("CANCELLED", [])]


@pytest.mark.parametrize("name", ["pauseJob", "resumeJob", "cancelJob", "retryJob"])
async def test_what_a_jobs_state_does_not_allow_is_refused(house: House, name: str) -> None:
    job = await a_job(house)
    await act(house, "cancelJob", job)
    assert await act(house, name, job) == (None, [("JOB_REFUSED", ["id"])])
    assert await state_of(house, job) == "CANCELLED"


async def test_a_parked_job_is_tried_again(house: House, superuser: asyncpg.Connection) -> None:
    job = await a_job(house)
    await superuser.execute(
        "UPDATE jobs SET state = 'PARKED', ended_at = now(), deaths = 3, reason = 'WORKER_DIED' WHERE id = $1",
        local(job),
    )
    assert (await house.data(READ, {"id": job}))["job"]["reason"] == "WORKER_DIED"
    assert await act(house, "retryJob", job, role=Role.ADMIN) == ("READY", [])


async def test_who_started_a_job_reads_and_steers_it_without_a_permission(house: House) -> None:
    job, who = await a_job(house, Role.INTEGRATION), {"role": Role.INTEGRATION}
    assert (await house.data(READ, {"id": job}, **who))["job"]["id"] == job
    assert (await house.data(NODE, {"id": job}, **who))["node"]["id"] == job
    steps = [await act(house, name, job, **who) for name in ("pauseJob", "resumeJob", "cancelJob")]
    assert [errors for _, errors in steps] == [[], [], []]
    assert await code_of(house, ACTS["retryJob"], job, **who) == "FORBIDDEN"


async def test_without_the_permission_one_lists_ones_own_jobs(house: House) -> None:
    await a_job(house, Role.OWNER)
    mine = await a_job(house, Role.INTEGRATION)
    listed = [
        (await house.data("{ jobs(first: 100) { totalCount nodes { id } } }", role=role))["jobs"]
        for role in (Role.INTEGRATION, Role.AGENT, Role.AUDITOR)
    ]
    everyones = (await house.data("{ jobs { totalCount } }"))["jobs"]["totalCount"]
    assert mine in [job["id"] for job in listed[0]["nodes"]]
    assert (listed[1]["nodes"], listed[1]["totalCount"]) == ([], 0)
    assert listed[0]["totalCount"] < listed[2]["totalCount"] == everyones


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.MANAGER])
@pytest.mark.parametrize("name", ACTS)
async def test_who_may_read_all_jobs_may_not_steer_them(house: House, role: Role, name: str) -> None:
    job = await a_job(house, Role.OWNER)
    assert (await house.data(READ, {"id": job}, role=role))["job"]["id"] == job
    assert await code_of(house, ACTS[name], job, role=role) == "FORBIDDEN"
    assert await state_of(house, job) == "READY"


async def test_an_admin_steers_all_jobs(house: House) -> None:
    job = await a_job(house, Role.OWNER)
    assert await act(house, "pauseJob", job, role=Role.ADMIN) == ("PAUSED", [])


@pytest.mark.parametrize(("tenant", "role"), [("globex", Role.OWNER), ("acme", Role.AGENT)], ids=str)
@pytest.mark.parametrize("document", [READ, NODE, *ACTS.values()], ids=["job", "node", *ACTS])
async def test_anothers_job_answers_exactly_as_an_absent_one(
    house: House, document: str, tenant: str, role: Role
) -> None:
    job = await a_job(house)
    answers = []
    for asked in (job, global_id("Job", uuid4()), "nonsense", global_id("Customer", local(job))):
        answer = await house.ask(document, {"id": asked}, tenant=tenant, role=role)
        for error in answer.get("errors", ()):
            del error["extensions"]["requestId"]
        answers.append(answer)
    assert answers == answers[:1] * 4
    assert await state_of(house, job) == "READY"


@pytest.mark.parametrize("document", [READ, NODE, LIST, *ACTS.values()], ids=["job", "node", "jobs", *ACTS])
async def test_without_a_token_there_are_no_jobs(house: House, document: str) -> None:
    variables = {} if document == LIST else {"id": await a_job(house)}
    answer = await house.ask(document, variables, role=None)
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
