"""Two tenants full of canaries: customers of each viewer, of a mate and of a stranger, and whatever else is reached."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from api.paging import global_id
from tenants import members
from tenants.access import Role
from tenants.ids import any_local_id, new_id
from tenants.roles import MemberOwnRole, OwnRole, Team, TeamMember
from tenants.signing_in.sessions import Device, Method, begin
from tenants.tenants import Tenant
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId, TenantId
from tests.api.test_imports import run, written
from tests.house import House
from tests.leaks import people
from tests.leaks.people import Truth
from tests.leaks.viewers import BUILT_IN, NOBODY, OWN_ROLES, Says, Viewer

ANONYMOUS = Viewer("nobody")
_MATE, _STRANGER = "a mate", "a stranger"
_CREATE = "mutation($i: CustomerInput!) { createCustomer(input: $i) { customer { id } userErrors { code path } } }"
_IMPORT = "mutation($i: ImportInput!) { importCustomers(input: $i) { job { id } userErrors { code path } } }"
_IMPORTED = "query($j: ID!) { importRows(job: $j) { nodes { customer { id } } } }"
_TAG = "mutation($n: String!) { createTag(name: $n) { tag { id } } }"
_SCHEDULE = 'mutation { setSchedule(kind: "tidy", cron: "0 3 * * 1") { userErrors { code } } }'
_ROTATE = "mutation { rotateKey(purpose: BIK) { rotation { id } } }"
_KEY = """mutation($n: String!, $r: [ID!]) { createApiKey(name: $n, roles: [ANALYST], ownRoles: $r) {
    apiKey { id service { id } } } }"""
_PROVIDER = "mutation($i: SignOnInput!) { setSignOn(input: $i) { provider { id } userErrors { code path } } }"
_ENDPOINT = """mutation($i: WebhookEndpointInput!) { createWebhookEndpoint(input: $i) {
    endpoint { id service { id } } userErrors { code path message } } }"""
_TEST = "mutation($e: ID!) { sendTestEvent(endpoint: $e) { delivery { id } } }"
_HOLD = "mutation($c: ID!, $r: String!) { placeHold(customer: $c, reason: $r) { hold { id } userErrors { code } } }"
_LIFT = "mutation($h: ID!) { liftHold(id: $h) { userErrors { code } } }"
_ERASED = """INSERT INTO erasures (tenant_id, id, number, subject, at, principal, cause, ticket, head)
    VALUES ($1, $2, 1, gen_random_uuid(), now(), $3, 'REQUEST', 'DSR-1', sha256('x'))"""
_FINISHED = """INSERT INTO erasure_certificates (tenant_id, id, generation, finished_at, certificate, key_version,
    signature) VALUES ($1, $2, 1, now(), '{}', 1, 'x')"""
_STAYED = """INSERT INTO offboardings (tenant_id, id, state, requested_by, requested_at, cooling_days, approved_by,
    approved_at, ended_at) VALUES ($1, gen_random_uuid(), 'CANCELLED', $2, now(), 14, $3, now(), now())"""
# What others count now and then.
_USED = "INSERT INTO usage_hours VALUES ($1, date_trunc('hour', now()), 1, 1, 0) ON CONFLICT DO NOTHING"
_KEPT = "INSERT INTO usage_sizes VALUES ($1, current_date, 1, 1, now()) ON CONFLICT DO NOTHING"
_LEFT = """INSERT INTO disclosure_counters (tenant_id, viewer, hour, records, plain, masked)
    VALUES ($1, $2, date_trunc('hour', now()), 1, 1, 1)"""
_ATTEMPTED = """INSERT INTO webhook_attempts (tenant_id, delivery_id, number, endpoint_id, at, duration_ms, status,
    body_hash, fields) VALUES ($1, $2, 1, $3, now(), 5, 500, sha256('x'), '{city:PLAIN}')"""
_BACKUP = """INSERT INTO backups (tenant_id, id, number, kind, state, created_at, coding, dek_versions, wrapped_key,
    tables) SELECT $1, $2, coalesce(max(number), 0) + 1, 'ASKED', 'VERIFIED', now(), 'single', '{1}', 'vault:v1:none',
    '{"customers": 1}'
    FROM backups WHERE tenant_id = $1"""
_LAST_JOB = "UPDATE schedules SET last_job = $2 WHERE tenant_id = $1"


@dataclass
class Seeds:
    """One tenant. Customers, tags, jobs, roles and teams are global ids; a viewer's own customer goes by its name."""

    house: House
    tenant: Tenant
    letter: str  # a digit that stands in every value
    truth: Truth = field(default_factory=Truth)
    viewers: dict[str, Viewer] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    foreign: str = ""  # a customer of another tenant
    mate: str = ""  # the member whom customers are handed over to
    tag: str = ""
    job: str = ""  # an import that is done
    team: str = ""
    entry: str = ""  # of the audit log
    session: str = ""  # of the owner
    key: str = ""  # of a service
    provider: str = ""  # of sign-ons
    keys: list[str] = field(default_factory=list)  # a data key, and a rotation
    erasure: str = ""  # that is finished
    endpoint: str = ""  # of webhooks
    delivery: str = ""  # to it
    backup: str = ""
    roles: list[str] = field(default_factory=list)
    made: int = 0  # how many people there are

    @property
    def owner(self) -> Viewer:
        return self.viewers[Role.OWNER]

    @property
    def nodes(self) -> list[str]:
        """An id of each type that is a node; customers apart."""
        own = [self.tag, self.job, self.owner.member, self.entry, self.roles[0], self.team, self.key, self.provider]
        return [*own, self.session, self.erasure, self.endpoint, self.delivery, *self.keys]

    async def post(self, viewer: Viewer, document: str, variables: dict[str, Any] | None = None) -> httpx.Response:
        """Each answer bears the same request id, so that equal ones have equal bytes."""
        headers = {"x-request-id": "leak-tests"}
        if viewer.credential is not None:
            headers["authorization"] = f"Bearer {await self.house.token(viewer.credential)}"
        return await self.house.post(document, variables, role=None, headers=headers)

    async def data(self, document: str, viewer: Viewer | None = None, **variables: Any) -> dict[str, Any]:
        answer = (await self.post(viewer or self.owner, document, variables)).json()
        assert "errors" not in answer, answer["errors"]
        found: dict[str, Any] = answer["data"]
        return found

    def fresh(self, **more: Any) -> dict[str, Any]:
        """The input of a customer who is like no other."""
        self.made += 1
        return people.customer(self.letter, self.made) | more

    async def customer(self, owner: Viewer | None = None, **more: Any) -> str:
        sent = self.fresh(**{"ownerId": None if owner is None else owner.member, "tagIds": [self.tag], **more})
        made = (await self.data(_CREATE, i=sent))["createCustomer"]
        assert made["userErrors"] == [], made
        self.know(made["customer"]["id"], sent, None if owner is None else owner.member)
        return str(made["customer"]["id"])

    async def new_backup(self) -> str:
        backup = new_id()
        await self.superuser(_BACKUP, backup)
        return global_id("Backup", backup)

    async def new_tag(self) -> str:
        self.made += 1
        known = people.tag(self.letter, self.made)
        tag: str = (await self.data(_TAG, n=known["Tag.name"]))["createTag"]["tag"]["id"]
        self.truth.know(tag, known, people.cores_of(known))
        return tag

    def know(self, customer: str, sent: dict[str, Any], owner: str | None) -> None:
        values = people.values_of(sent)
        self.truth.know(customer, values, people.cores_of(values), owner)

    async def member(self, name: str, says: Sequence[Says], roles: Iterable[Role] = ()) -> Viewer:
        self.made += 1
        values = people.member(self.letter, self.made)
        async with self.unit() as unit:
            who = {"name": values["Member.name"], "email": values["Member.email"]}
            made = await members.add(unit, **who, password_hash="unused", roles=roles)
            own = [_role(unit, f"{name} {n}", each) for n, each in enumerate([] if roles else says)]
            unit.add(*own)
            await unit.flush()
            unit.add(*(MemberOwnRole(tenant_id=self.tenant.id, member_id=made, role_id=role.id) for role in own))
            credential = await self._signed_in(unit, made)
        self.roles += [global_id("OwnRole", role.id) for role in own]
        member = global_id("Member", made)
        self.truth.know(member, values, people.cores_of(values))
        known = people.device(self.letter, self.made)
        session = global_id("Session", credential.session)  # type: ignore[arg-type]  # it has one
        self.session = self.session or session  # the owner is the first
        self.truth.know(session, known, people.cores_of(known), member)
        return Viewer(name, tuple(says), credential, member)

    async def _signed_in(self, unit: Unit, member: MemberId) -> Credential:
        known = people.device(self.letter, self.made)
        device = Device(user_agent=known["Device.userAgent"], address=known["Device.address"])
        return await begin(unit, member, Method.PASSWORD, device)

    def unit(self) -> Any:
        return self.house.api.units.enter(TenantId(self.tenant.id), None, write=True)

    async def superuser(self, statement: str, *arguments: Any) -> None:
        connection = await asyncpg.connect(self.house.superuser_url)
        try:
            await connection.execute(statement, self.tenant.id, *arguments)
        finally:
            await connection.close()


def local(id: str) -> UUID:
    found = any_local_id(id)
    assert found is not None
    return found[1]


async def seeded(house: House, slug: str, letter: str) -> Seeds:
    tenant = await house.provisioning.provision(slug, slug.title(), region="DE")
    seeds, house.tenants[slug] = Seeds(house, tenant, letter), tenant
    await _people(seeds)
    await _things(seeds)
    return seeds


async def _people(seeds: Seeds) -> None:
    seen: dict[str, Viewer] = {role: await seeds.member(role, [says], [role]) for role, says in BUILT_IN.items()}
    seen |= {name: await seeds.member(name, says) for name, says in OWN_ROLES.items()}
    seen[NOBODY] = await seeds.member(NOBODY, [])
    mate, stranger = await seeds.member(_MATE, []), await seeds.member(_STRANGER, [])
    async with seeds.unit() as unit:
        team = Team(tenant_id=seeds.tenant.id, id=new_id(), name="a team", created_at=unit.now)
        unit.add(team)
        await unit.flush()
        inside = [mate, *(seen[name] for name in OWN_ROLES)]
        unit.add(
            *(TeamMember(tenant_id=seeds.tenant.id, team_id=team.id, member_id=local(each.member)) for each in inside)
        )
    seeds.mate = mate.member
    seeds.team, mates = global_id("Team", team.id), frozenset(each.member for each in inside)
    seeds.viewers = {
        name: Viewer(each.name, each.says, each.credential, each.member, mates if each in inside else frozenset())
        for name, each in seen.items()
    }
    seeds.tag = await seeds.new_tag()
    for name, owner in [(_MATE, mate), (_STRANGER, stranger), *((name, seen[name]) for name in OWN_ROLES)]:
        seeds.customers[name] = await seeds.customer(owner)


async def _things(seeds: Seeds) -> None:
    """An import that made a customer, a schedule that started it, and the log of all that."""
    sent = seeds.fresh()
    table = {"name": sent["givenName"], "mail": ";".join(sent["emails"]), "remark": sent["note"]}
    columns = [
        {"column": "name", "field": "givenName"},
        {"column": "mail", "field": "emails", "separator": ";"},
        {"column": "remark", "field": "note"},
    ]
    wrong = ["", "nobody", ""]
    given = {"csv": written([list(table), list(table.values()), wrong]), "columns": columns}
    seeds.job = (await seeds.data(_IMPORT, i=given))["importCustomers"]["job"]["id"]
    await run(seeds.house, seeds.job, seeds.tenant.slug)
    row, _ = (await seeds.data(_IMPORTED, j=seeds.job))["importRows"]["nodes"]
    seeds.know(row["customer"]["id"], _imported(sent), seeds.owner.member)
    seeds.customers["imported"] = row["customer"]["id"]
    entries = await seeds.data("{ auditEntries(first: 1) { nodes { id } } }")
    seeds.entry = entries["auditEntries"]["nodes"][0]["id"]
    await seeds.data(_SCHEDULE)
    turned = (await seeds.data(_ROTATE))["rotateKey"]["rotation"]["id"]
    seeds.keys = [(await seeds.data("{ keys { id } }"))["keys"][0]["id"], turned]
    known = people.service(seeds.letter)
    made = (await seeds.data(_KEY, n=known["Member.name"], r=seeds.roles[:1]))["createApiKey"]["apiKey"]
    seeds.key = made["id"]
    seeds.truth.know(made["service"]["id"], known, people.cores_of(known))
    seeds.truth.services.add(made["service"]["id"])
    set_ = (await seeds.data(_PROVIDER, i=_provider(seeds)))["setSignOn"]
    assert set_["userErrors"] == [], set_
    seeds.provider = set_["provider"]["id"]
    seeds.endpoint = await new_endpoint(seeds)
    seeds.delivery = (await seeds.data(_TEST, e=seeds.endpoint))["sendTestEvent"]["delivery"]["id"]
    await seeds.superuser(_ATTEMPTED, local(seeds.delivery), local(seeds.endpoint))
    seeds.backup = await seeds.new_backup()
    await seeds.superuser(_LAST_JOB, local(seeds.job))
    await seeds.superuser(_USED)
    await seeds.superuser(_KEPT)
    await seeds.superuser(_LEFT, local(seeds.owner.member))
    await _ends(seeds)


def endpoint(seeds: Seeds) -> dict[str, Any]:
    """The input of one; its address is public, and nobody sends anything there."""
    name = people.service(seeds.letter)["Member.name"]
    return {"name": name, "url": "https://93.184.215.14/hook", "roles": ["ANALYST"], "ownRoles": seeds.roles[:1]}


async def new_endpoint(seeds: Seeds) -> str:
    made = (await seeds.data(_ENDPOINT, i=endpoint(seeds)))["createWebhookEndpoint"]
    assert made["userErrors"] == [], made
    know_service(seeds, made["endpoint"]["service"]["id"])
    return str(made["endpoint"]["id"])


def know_service(seeds: Seeds, service: str) -> None:
    known = people.service(seeds.letter)
    seeds.truth.know(service, known, people.cores_of(known))
    seeds.truth.services.add(service)


async def _ends(seeds: Seeds) -> None:
    """Somebody who was erased, somebody who may not be, and a tenant's end that was called off."""
    for name in (_MATE, _STRANGER):
        await seeds.data(_LIFT, h=await new_hold(seeds, seeds.customers[name]))
    erasure = new_id()
    await seeds.superuser(_ERASED, erasure, local(seeds.mate))
    await seeds.superuser(_FINISHED, erasure)
    seeds.erasure = global_id("Erasure", erasure)
    await seeds.superuser(_STAYED, local(seeds.owner.member), local(seeds.mate))


async def new_hold(seeds: Seeds, customer: str) -> str:
    seeds.made += 1
    known = people.hold(seeds.letter, seeds.made)
    placed = (await seeds.data(_HOLD, c=customer, r=known["LegalHold.reason"]))["placeHold"]
    assert placed["userErrors"] == [], placed
    know_hold(seeds, placed["hold"]["id"], known, customer)
    return str(placed["hold"]["id"])


def know_hold(seeds: Seeds, hold: str, known: dict[str, Any], customer: str) -> None:
    seeds.truth.know(hold, known, people.cores_of(known), seeds.truth.owners[customer])


def _imported(sent: dict[str, Any]) -> dict[str, Any]:
    """Without a display name the others make one."""
    return {name: sent[name] for name in ("givenName", "emails", "note")} | {"displayName": sent["givenName"]}


def _role(unit: Unit, name: str, says: Says) -> OwnRole:
    return OwnRole(
        tenant_id=unit.tenant.id,
        id=new_id(),
        name=name,
        description="",
        spec=says.spec().dump(),
        version=1,
        created_at=unit.now,
        updated_at=unit.now,
    )


def _provider(seeds: Seeds) -> dict[str, Any]:
    role = {"value": "staff", "roles": ["ANALYST"], "ownRoles": seeds.roles[:1]}
    names = {"issuer": f"https://issuer{seeds.letter}.example.org", "clientId": "coffer", "name": "Staff"}
    return {**names, "roleClaim": "groups", "roleMap": [role], "defaultOwnRoles": seeds.roles[:1]}
