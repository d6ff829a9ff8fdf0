"""A change of a role of the tenant's own acts in streams that are open: within five seconds, without a new sign-in."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tenants.access import Role
from tests.api.staff import DISABLE, SET, UPDATE, done, id_of, make_role
from tests.api.test_subscriptions import change, following
from tests.api.test_websocket import Client, Stage, serving
from tests.house import House

PLAIN = [{"class": "IDENTITY", "level": "PLAIN"}]
MASKED = [{"class": "IDENTITY", "level": "MASKED"}]


@pytest.fixture(scope="module")
async def stage(house: House) -> AsyncIterator[Stage]:
    async with serving() as made:
        made.app = house.api.app
        yield made


class Followed:
    """A tenant whose AGENT has one role of the tenant's own, and follows its customers."""

    def __init__(self, house: House, slug: str) -> None:
        self.house = house
        self.slug = slug
        self.owner = house.members[slug][Role.OWNER]
        self.follower = house.members[slug][Role.AGENT]

    async def give(self) -> None:
        self.role = await make_role(self.house, self.owner, permissions=["CUSTOMERS_READ"], levels=PLAIN)
        await done(self.house, self.owner, SET, id=id_of(self.follower), roles=[], own=[self.role["id"]])

    async def update(self, **parts: Any) -> None:
        assert (await done(self.house, self.owner, UPDATE, id=self.role["id"], v=1, i=parts))["userErrors"] == []

    async def told(self, client: Client) -> str | None:
        """The name of a customer that is made now, as the follower is told of it."""
        await self.house.create(tenant=self.slug, givenName="Ada")
        name: str | None = (await change(client))["customer"]["givenName"]
        return name


@pytest.fixture
async def followed(house: House) -> Followed:
    slug = f"s{uuid4().hex[:12]}"
    await house.add_tenant(slug)
    made = Followed(house, slug)
    await made.give()
    return made


async def test_a_lower_level_shows_in_an_open_stream_within_5_seconds(
    stage: Stage, house: House, followed: Followed
) -> None:
    async with following(stage, house, Role.AGENT, followed.slug) as client:
        assert await followed.told(client) == "Ada"
        await followed.update(levels=MASKED)
        async with asyncio.timeout(5):
            while (told := await followed.told(client)) == "Ada":
                pass
        assert told == "A."


@pytest.mark.parametrize("parts", [{"permissions": []}, {"permissions": ["JOBS_READ"], "scope": "OWN"}])
async def test_without_the_right_to_read_an_open_stream_ends_within_5_seconds(
    stage: Stage, house: House, followed: Followed, parts: dict[str, Any]
) -> None:
    async with following(stage, house, Role.AGENT, followed.slug) as client:
        await followed.update(**parts)
        async with asyncio.timeout(5):
            message = await client.receive()
        assert message["payload"]["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert (await client.receive())["type"] == "complete"


async def test_a_role_taken_from_the_follower_ends_its_stream_within_5_seconds(
    stage: Stage, house: House, followed: Followed
) -> None:
    async with following(stage, house, Role.AGENT, followed.slug) as client:
        await done(house, followed.owner, SET, id=id_of(followed.follower), roles=[], own=[])
        async with asyncio.timeout(5):
            message = await client.receive()
        assert message["payload"]["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_disabled_follower_is_shut_out_within_5_seconds(stage: Stage, house: House, followed: Followed) -> None:
    async with following(stage, house, Role.AGENT, followed.slug) as client:
        await done(house, followed.owner, DISABLE, id=id_of(followed.follower))
        async with asyncio.timeout(5):
            assert await client.closed() == 4403
