"""What tests of single sign-on ask: setting a provider, the way there and back, and who one is then."""

from typing import Any

import httpx
from sqlalchemy import select

from tenants.access import Role
from tenants.audit.entries import AuditEntry
from tests.house import House
from tests.openid.provider import AUDIENCE, CLIENT, REDIRECT, SECRET, Browser, OpenIdProvider

_ERRORS = "userErrors { code path message }"
SET = f"""mutation($i: SignOnInput!, $id: ID) {{ setSignOn(input: $i, id: $id) {{ provider {{
  id name issuer clientId hasClientSecret audience accessTokens scopes roleClaim isEnabled
  roleMap {{ value roles ownRoles {{ name }} }} defaultRoles defaultOwnRoles {{ name }} }} {_ERRORS} }} }}"""
REMOVE = f"mutation($id: ID!) {{ removeSignOn(id: $id) {{ removedId {_ERRORS} }} }}"
LIST = "{ signOn { id name issuer clientId isEnabled } }"
BEGIN = f"""mutation($t: String!, $r: String!, $p: ID, $f: Boolean! = false) {{
  beginSignOn(tenant: $t, redirectUri: $r, provider: $p, fresh: $f) {{ authorizationUrl handle {_ERRORS} }} }}"""
LINK = f"mutation($r: String!) {{ linkSignOn(redirectUri: $r) {{ authorizationUrl handle {_ERRORS} }} }}"
COMPLETE = f"""mutation($state: String!, $code: String!, $handle: String!, $iss: String) {{
  completeSignOn(state: $state, code: $code, handle: $handle, iss: $iss) {{
    accessToken refreshToken tokenType expiresIn {_ERRORS} }} }}"""
ME = "{ me { id name email roles } }"
AGENTS = {"value": "crm-agents", "roles": ["AGENT"]}
SYNC = {"value": "crm-sync", "roles": ["INTEGRATION"]}


def settings_of(provider: OpenIdProvider, **changes: Any) -> dict[str, Any]:
    return {
        "issuer": provider.issuer,
        "clientId": CLIENT,
        "clientSecret": SECRET,
        "audience": AUDIENCE,
        "roleClaim": "groups",
        "roleMap": [AGENTS, SYNC],
        **changes,
    }


async def set_(house: House, input: dict[str, Any], id: str | None = None, **who: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await house.data(SET, {"i": input, "id": id}, **who))["setSignOn"]
    return payload


async def added(house: House, provider: OpenIdProvider, *, tenant: str = "acme", **changes: Any) -> str:
    """The id of a provider that was set by the owner."""
    payload = await set_(house, settings_of(provider, **changes), tenant=tenant)
    assert payload["userErrors"] == []
    return str(payload["provider"]["id"])


async def remove_all(house: House, tenant: str = "acme", role: Role = Role.OWNER) -> None:
    for each in (await house.data(LIST, tenant=tenant, role=role))["signOn"]:
        await house.data(REMOVE, {"id": each["id"]}, tenant=tenant, role=role)


async def begun(house: House, tenant: str = "acme", **more: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await house.data(BEGIN, {"t": tenant, "r": REDIRECT, **more}, role=None))["beginSignOn"]
    return payload


async def completed(house: House, returned: dict[str, str], handle: str) -> dict[str, Any]:
    payload: dict[str, Any] = (await house.data(COMPLETE, {**returned, "handle": handle}, role=None))["completeSignOn"]
    return payload


async def signed_in(house: House, browser: Browser, account: str, tenant: str = "acme", **more: Any) -> dict[str, Any]:
    """What completing answers, after the whole way."""
    begin = await begun(house, tenant, **more)
    assert begin["userErrors"] == []
    return await completed(house, await browser.sign_in(begin["authorizationUrl"], account), begin["handle"])


async def bearing(house: House, token: str, document: str = ME) -> httpx.Response:
    return await house.client.post("/graphql", json={"query": document}, headers={"authorization": f"Bearer {token}"})


async def me(house: House, token: str) -> dict[str, Any]:
    answer = await bearing(house, token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]["me"]
    return found


def codes(payload: dict[str, Any]) -> list[str]:
    return [error["code"] for error in payload["userErrors"]]


async def refusals(house: House, tenant: str = "acme") -> list[dict[str, Any]]:
    """What the audit log holds of sign-ins that a provider's word was not enough for."""
    async with house.api.units.enter(house.tenants[tenant].id, None, write=False) as unit:
        rows = await unit.scalars(
            select(AuditEntry)
            .where(
                AuditEntry.tenant_id == unit.tenant.id,
                AuditEntry.action == "member.signed_in",
                AuditEntry.outcome == "SIGN_ON_REFUSED",
            )
            .order_by(AuditEntry.at)
        )
        return [dict(row.details) for row in rows]
