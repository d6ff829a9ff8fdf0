"""An endpoint whose service was shut out comes back only by those who may let members in."""

import pytest

from domain import member_acts
from domain.errors import Refused
from domain.webhooks import endpoints
from domain.webhooks.endpoints import EndpointView
from tenants.access import Grants, Permission, Role, RoleSpec
from tests.house import House
from tests.webhooks.post import PostOffice, post_office

URL = "https://receiver.example/"
OF_SERVICE = "SELECT type FROM events WHERE tenant_id = $1 AND subject = $2 AND type LIKE '%abled' ORDER BY xid, id"
IN_AUDIT = "SELECT action FROM audit_entries WHERE tenant_id = $1 AND $2 = ANY(subjects) AND action LIKE '%abled'"


async def test_to_let_a_disabled_service_in_needs_the_right_to_enable_members(house: House) -> None:
    async with post_office(house) as post:
        view = await _shut_out(post)
        webhooks = RoleSpec(Grants(frozenset({Permission.WEBHOOKS_MANAGE}), {}))
        low = await house.add_member(webhooks, roles=[Role.MANAGER], tenant=post.tenant.slug)
        async with house.api.units.enter(low.tenant, low.principal, write=True) as unit:
            with pytest.raises(Refused) as refused:
                await endpoints.enable(unit, view.id)
        state = await _state(post, view)
    assert [error.code for error in refused.value.errors] == ["SERVICE_DISABLED"]
    assert state == ("DISABLED", "DISABLED")


async def test_who_may_enable_members_lets_its_service_in_and_it_is_told(house: House) -> None:
    async with post_office(house) as post:
        view = await _shut_out(post)
        async with post.writing() as unit:
            await endpoints.enable(unit, view.id)
        state = await _state(post, view)
        events = await post.rows(OF_SERVICE, view.member_id)
        audit = await post.rows(IN_AUDIT, view.member_id)
    assert state == ("ACTIVE", "ACTIVE")
    assert [row["type"] for row in events] == ["member.disabled", "member.enabled"]
    assert sorted(row["action"] for row in audit) == ["member.disabled", "member.enabled"]


async def test_an_endpoint_whose_service_is_in_needs_no_such_right(house: House) -> None:
    async with post_office(house) as post:
        view, _ = await post.add(URL)
        webhooks = RoleSpec(Grants(frozenset({Permission.WEBHOOKS_MANAGE}), {}))
        low = await house.add_member(webhooks, roles=[Role.MANAGER], tenant=post.tenant.slug)
        async with house.api.units.enter(low.tenant, low.principal, write=True) as unit:
            await endpoints.disable(unit, view.id)
            await endpoints.enable(unit, view.id)
        state = await _state(post, view)
        events = await post.rows(OF_SERVICE, view.member_id)
    assert state == ("ACTIVE", "ACTIVE")
    assert events == []


async def _shut_out(post: PostOffice) -> EndpointView:
    """An endpoint of which a sender found that its service was disabled."""
    view, _ = await post.add(URL)
    async with post.writing() as unit:
        await member_acts.disable(unit, view.member_id)
    await post.customer(givenName="Ada")
    await post.settle()
    assert await _state(post, view) == ("DISABLED", "DISABLED")
    return view


async def _state(post: PostOffice, view: EndpointView) -> tuple[str, str]:
    """Of the endpoint, and of its service."""
    (endpoint,) = await post.rows("SELECT state FROM webhook_endpoints WHERE tenant_id = $1 AND id = $2", view.id)
    (service,) = await post.rows("SELECT status FROM members WHERE tenant_id = $1 AND id = $2", view.member_id)
    return endpoint["state"], service["status"]
