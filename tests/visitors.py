"""Somebody at a browser: a member of its own, who signs in by password and asks with the tokens it was given."""

import re
from base64 import b32decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg

from crypto import otp
from tenants import members
from tenants.access import Role
from tenants.viewers import MemberId
from tests import house as houses
from tests.house import PASSWORD, House

PAYLOAD = "{ accessToken refreshToken userErrors { code path message } }"
_SIGN_IN = f"""mutation($t: String!, $e: String!, $p: String!, $c: String) {{
    signIn(tenant: $t, email: $e, password: $p, code: $c) {PAYLOAD} }}"""
_REFRESH = f"mutation($r: String!) {{ refreshSession(refreshToken: $r) {PAYLOAD} }}"
_BEGIN = "mutation { beginSecondFactor { uri userErrors { code } } }"
_CONFIRM = "mutation($c: String!) { confirmSecondFactor(code: $c) { recoveryCodes userErrors { code path } } }"


@dataclass
class Visitor:
    house: House
    tenant: str
    email: str
    member: MemberId
    password: str = PASSWORD
    access: str = ""
    refresh: str = ""
    secret: bytes = b""
    recovery: list[str] = field(default_factory=list)

    async def sign_in(self, code: str | None = None, *, password: str | None = None, agent: str = "Firefox") -> str:
        """The code of the refusal, or IN."""
        sent = {"t": self.tenant, "e": self.email, "p": password or self.password, "c": code}
        headers = {"user-agent": agent}
        payload = (await self.house.data(_SIGN_IN, sent, role=None, headers=headers))["signIn"]
        return self._take(payload)

    async def renew(self, token: str | None = None) -> str:
        sent = {"r": self.refresh if token is None else token}
        return self._take((await self.house.data(_REFRESH, sent, role=None))["refreshSession"])

    async def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.access}"} if self.access else {}
        return await self.house.ask(document, variables, role=None, headers=headers)

    async def data(self, document: str, **variables: Any) -> Any:
        """What the only field answers."""
        answer = await self.ask(document, **variables)
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        return value

    async def is_in(self) -> bool:
        answer = await self.ask("{ me { id } }")
        return "errors" not in answer and answer["data"]["me"] is not None

    async def begin_second_factor(self) -> str:
        """The URI; its secret is kept."""
        uri = str((await self.data(_BEGIN))["uri"])
        found = re.search(r"secret=([A-Z2-7]+)&", uri)
        assert found is not None
        self.secret = b32decode(found[1])
        return uri

    async def add_second_factor(self) -> None:
        await self.begin_second_factor()
        confirmed = await self.data(_CONFIRM, c=self.code())
        assert confirmed["userErrors"] == []
        self.recovery = confirmed["recoveryCodes"]

    def code(self, steps: int = 0) -> str:
        """What the authenticator shows now, or so many steps from now."""
        return otp.hotp(self.secret, otp.step_at(datetime.now(UTC)) + steps)

    async def forget_steps(self) -> None:
        """As if the last code was used long ago."""
        await self.sql("UPDATE second_factors SET last_step = 0 WHERE id = $1", self.member)

    async def keep_waiting(self) -> None:
        """Whoever must wait now, must for minutes: the machine may be slower than the first waits are long."""
        await self.sql(
            "UPDATE sign_in_attempts SET until = now() + interval '5 minutes' WHERE failures > 5 AND tenant_id = $1",
            self.house.tenants[self.tenant].id,
        )

    async def sql(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.house.superuser_url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def actions(self) -> list[tuple[str, str]]:
        """What is on record of this member, with its outcome."""
        rows = await self.sql(
            "SELECT action, outcome FROM audit_entries WHERE actor = $1 OR $1 = ANY(subjects) ORDER BY at, id",
            self.member,
        )
        return [(row["action"], row["outcome"]) for row in rows]

    def _take(self, payload: dict[str, Any]) -> str:
        if payload["userErrors"]:
            assert payload["accessToken"] is None
            assert payload["refreshToken"] is None
            return str(payload["userErrors"][0]["code"])
        self.access, self.refresh = payload["accessToken"], payload["refreshToken"]
        return "IN"


async def slowed(attempt: Callable[[], Awaitable[str]]) -> list[str]:
    """What is said to attempts, up to the first that must wait."""
    said: list[str] = []
    while "TOO_MANY_ATTEMPTS" not in said and len(said) < 12:
        said.append(await attempt())
    return said


async def a_member(house: House, *roles: Role, tenant: str = "acme") -> Visitor:
    """Who has not signed in yet."""
    email = f"{uuid4().hex}@{tenant}.example.org"
    async with house.api.units.enter(house.tenants[tenant].id, None, write=True) as unit:
        made = await members.add(
            unit, email=email, name="Vera Visitor", password_hash=houses._hash[0], roles=roles or [Role.AGENT]
        )
    return Visitor(house, tenant, email, made)


async def a_visitor(house: House, *roles: Role, tenant: str = "acme") -> Visitor:
    """Who is signed in."""
    visitor = await a_member(house, *roles, tenant=tenant)
    assert await visitor.sign_in() == "IN"
    return visitor
