"""Rights change while they are read, over two processes' worth of caches: no answer shows more than was in force."""

import asyncio
import os
import random
import time
from bisect import bisect_right
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import orjson
import pytest
from sqlalchemy import delete, insert, update

from api.app import Api
from tenants import members
from tenants.access import Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.ids import new_id
from tenants.members import MemberRole
from tenants.roles import MemberOwnRole, OwnRole, Team, TeamMember
from tenants.unit import Unit
from tenants.viewers import Credential, MemberId
from tests.house import House

CHANGES = 10_000 if os.environ.get("COFFER_SOAK") else 400
READERS = 6
QUERY = "query($id: ID!) { node(id: $id) { ... on Customer { givenName } } }"
SEEN = {"Augusta": Level.PLAIN, "A.": Level.MASKED, None: Level.HIDDEN}
READ = frozenset({Permission.CUSTOMERS_READ})
WIDE = {level: RoleSpec(Grants(READ, {Sensitivity.IDENTITY: level})) for level in Level}
TEAMS = RoleSpec(Grants(READ, {Sensitivity.IDENTITY: Level.PLAIN}), Scope.TEAM)
CHOICES = {"wide": list(Level), "team": [Level.HIDDEN, Level.PLAIN], "built-in": [Level.HIDDEN, Level.PLAIN]}


@dataclass
class Stage:
    """One member with two roles of the tenant's own, and the customer of a colleague who may be a team mate."""

    reader: Credential
    wide: UUID
    narrow: UUID
    team: UUID
    customer: str
    state: dict[str, Level] = field(default_factory=lambda: dict.fromkeys(CHOICES, Level.HIDDEN))
    history: list[tuple[float, set[Level]]] = field(default_factory=list)  # from when on which may have been in force

    @property
    def level(self) -> Level:
        """What all that is in force adds up to."""
        return max(self.state.values())


@pytest.fixture(scope="module")
async def other(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """Another process of the API: it hears of changes by the epoch alone."""
    api = Api(house.api.settings)
    transport = httpx.ASGITransport(app=api.app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client:
        yield client
    await api.close()


@pytest.fixture
async def stage(house: House) -> Stage:
    tenant, owner = house.tenants["acme"].id, house.members["acme"][Role.OWNER].principal
    made = await house.create(givenName="Augusta")
    wide, narrow, team = new_id(), new_id(), new_id()
    async with house.api.units.enter(tenant, None, write=True) as unit:
        reader = await members.add(unit, email="flip@acme.example.org", name="Flip", password_hash="x", roles=[])
        common = {"tenant_id": tenant, "description": "", "version": 1, "created_at": unit.now, "updated_at": unit.now}
        unit.add(
            OwnRole(id=wide, name="wide", spec=WIDE[Level.HIDDEN].dump(), **common),
            OwnRole(id=narrow, name="narrow", spec=TEAMS.dump(), **common),
            Team(tenant_id=tenant, id=team, name="flips", created_at=unit.now),
        )
        await unit.flush()
        unit.add(
            MemberOwnRole(tenant_id=tenant, member_id=reader, role_id=wide),
            MemberOwnRole(tenant_id=tenant, member_id=reader, role_id=narrow),
            TeamMember(tenant_id=tenant, team_id=team, member_id=owner),
        )
    return Stage(Credential(tenant, MemberId(reader)), wide, narrow, team, made["id"])


async def change(unit: Unit, stage: Stage, what: str, level: Level) -> None:
    """Make that part of the rights come to `level`."""
    mine = {"tenant_id": unit.tenant.id, "member_id": stage.reader.principal}
    if what == "wide":
        role = (OwnRole.tenant_id == unit.tenant.id, OwnRole.id == stage.wide)
        await unit.run(update(OwnRole).where(*role).values(spec=WIDE[level].dump()))
    elif what == "team":
        mate = (TeamMember.tenant_id == unit.tenant.id, TeamMember.member_id == stage.reader.principal)
        joined = insert(TeamMember).values(**mine, team_id=stage.team)
        await unit.run(joined if level is Level.PLAIN else delete(TeamMember).where(*mate))
    else:
        held = (MemberRole.tenant_id == unit.tenant.id, MemberRole.member_id == stage.reader.principal)
        given = insert(MemberRole).values(**mine, role=Role.MANAGER.value)
        await unit.run(given if level is Level.PLAIN else delete(MemberRole).where(*held))


async def keep_changing(house: House, stage: Stage, ended: asyncio.Event) -> None:
    chance = random.Random(7)  # noqa: S311  # the same changes each time
    for _ in range(CHANGES):
        what = chance.choice(list(stage.state))
        level = chance.choice([each for each in CHOICES[what] if each is not stage.state[what]])
        async with house.api.units.enter(stage.reader.tenant, None, write=True) as unit:
            await change(unit, stage, what, level)
            before, stage.state[what] = stage.level, level
            # While it commits either may be in force; afterwards the new one alone.
            stage.history.append((time.monotonic(), {before, stage.level}))
        stage.history.append((time.monotonic(), {stage.level}))
    ended.set()


async def keep_reading(
    client: httpx.AsyncClient, house: House, stage: Stage, ended: asyncio.Event, seen: list[tuple[float, float, Level]]
) -> None:
    body = orjson.dumps({"query": QUERY, "variables": {"id": stage.customer}})
    while not ended.is_set():
        headers = {"authorization": f"Bearer {await house.token(stage.reader)}", "content-type": "application/json"}
        began = time.monotonic()
        answer = (await client.post("/graphql", content=body, headers=headers)).json()
        shown = (answer["data"]["node"] or {}).get("givenName")
        seen.append((began, time.monotonic(), SEEN[shown]))


def in_force(history: list[tuple[float, set[Level]]], began: float, ended: float) -> set[Level]:
    """Every level that may have been in force at some moment of a request."""
    first = bisect_right(history, began, key=lambda each: each[0]) - 1
    last = bisect_right(history, ended, key=lambda each: each[0])
    return set().union(*(levels for _, levels in history[first:last]))


async def test_no_answer_shows_more_than_the_grants_in_force(
    house: House, other: httpx.AsyncClient, stage: Stage
) -> None:
    ended, seen = asyncio.Event(), list[tuple[float, float, Level]]()
    stage.history.append((time.monotonic(), {stage.level}))
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_changing(house, stage, ended))
        for number in range(READERS):
            client = (house.client, other)[number % 2]
            group.create_task(keep_reading(client, house, stage, ended, seen))

    above = [(level, in_force(stage.history, began, done)) for began, done, level in seen]
    assert len(stage.history) == 2 * CHANGES + 1
    assert len({level for _, _, level in seen}) == len(Level)
    assert [each for each, allowed in above if each > max(allowed)] == []
    assert [each for each, allowed in above if len(allowed) == 1 and each not in allowed] == []  # and none shows less
