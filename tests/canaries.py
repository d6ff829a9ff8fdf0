"""Sixty values that nobody would type, sent through every flow of a running server; they must be found nowhere.

`sweep` sends them. `Canaries.found` looks for them in bytes: as text, hex and base64. `in_database` looks at every row
of every table, as the superuser.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import asyncpg
import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

_WORDS = (  # noqa: SIM905  # in lines, by flow
    "given family display line1 line2 city postal government note external "  # of a customer
    "given2 family2 display2 city2 postal2 government2 note2 external2 "  # of its update
    "bulk-given bulk-note csv-given csv-note csv-column tag member-name member-password "
    "wrong-password wrong-tenant wrong-token wrong-cursor wrong-id wrong-enum wrong-date wrong-type wrong-json "
    "search-name search-government search-external idempotency operation-name alias comment path agent "
    "wrong-code wrong-refresh wrong-link new-password invite-name"
).split()
_EMAILS = (
    "email",
    "email2",
    "bulk-email",
    "csv-email",
    "member-email",
    "search-email",
    "wrong-email",
    "invite-email",
    "reset-email",
)
_PHONES = ("phone", "phone2", "search-phone")
_DATES = ("birth", "birth2")
_PAGE = 2_000  # rows that are searched together: each search looks for hundreds of spellings


@dataclass
class Canaries:
    """By name. A whole token may be added to them while they are sent."""

    values: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def found(self, where: str, raw: bytes) -> list[str]:
        """A line for each canary in `raw`, in whatever letters."""
        lower = raw.lower()
        return [
            f"{name} in {where}"
            for name, value in self.values.items()
            if any(needle in lower for needle in _spellings(value)) or any(each in raw for each in _base64(value))
        ]


def canaries() -> Canaries:
    made = {name: f"Kanari{number:02d}{name.replace('-', '')}" for number, name in enumerate(_WORDS)}
    made |= {name: f"kanari-{name}@birds.example.org" for name in _EMAILS}
    made |= {name: f"+4930231257{number}5" for number, name in enumerate(_PHONES)}
    made |= {name: f"1903-01-1{number}" for number, name in enumerate(_DATES)}
    made["member-password"] += " long enough to be one"
    return Canaries(made)


@cache
def _spellings(value: str) -> tuple[bytes, ...]:
    text = value.lower().removeprefix("+").encode()
    return (text, text.hex().encode(), value.encode().hex().encode())


@cache
def _base64(value: str) -> tuple[bytes, ...]:
    """Wherever it begins within a group of three bytes, the middle of it looks the same."""
    raw = value.removeprefix("+").encode()
    coded = [b64encode(b"\0" * shift + raw).rstrip(b"=") for shift in range(3)]
    return tuple(each[4 if shift else 0 : -2] for shift, each in enumerate(coded))


@dataclass
class Swept:
    """`errors` are all error bodies and user errors; `answers` the number of answers."""

    errors: list[str] = field(default_factory=list)
    answers: int = 0
    traces: list[str] = field(default_factory=list)


_ERRORS = "userErrors { code path message }"
_FIELDS = """id version givenName familyName displayName emails phones birthDate governmentId note externalId
    address { lines city postalCode country } tags { id name } owner { id }"""
_CREATE = f"mutation($i: CustomerInput!) {{ createCustomer(input: $i) {{ customer {{ {_FIELDS} }} {_ERRORS} }} }}"
_UPDATE = f"""mutation($id: ID!, $v: Int!, $i: CustomerInput!) {{
    updateCustomer(id: $id, version: $v, input: $i) {{ customer {{ {_FIELDS} }} {_ERRORS} }} }}"""
_BULK = f"mutation($i: [CustomerInput!]!) {{ createCustomers(input: $i) {{ outcomes {{ row {_ERRORS} }} {_ERRORS} }} }}"
_IMPORT = f"mutation($i: ImportInput!) {{ importCustomers(input: $i) {{ job {{ id }} {_ERRORS} }} }}"
_JOB = "query($id: ID!) { job(id: $id) { state result { name } } }"
_ROWS = "query($id: ID!) { importRows(job: $id) { nodes { outcome errors { code path message } } } }"
_FIND = f"query($by: CustomerSearch!) {{ findCustomers(by: $by) {{ nodes {{ {_FIELDS} }} }} }}"
_SIGN_IN = f"""mutation($t: String!, $e: String!, $p: String!) {{
    signIn(tenant: $t, email: $e, password: $p) {{ accessToken {_ERRORS} }} }}"""
_CHANGED = "subscription { customerChanged { type customer { givenName emails } } }"
_TRACE = "00-{:032x}-00f067aa0ba902b7-01"


class _Sender:
    def __init__(self, client: httpx.AsyncClient, canaries: Canaries, swept: Swept) -> None:
        self.client, self.canaries, self.swept = client, canaries, swept
        self.token = ""

    async def ask(self, document: str, headers: dict[str, str] | None = None, /, **variables: Any) -> Any:
        """The data, or None; whatever was wrong is kept."""
        body = json.dumps({"query": document, "variables": variables})
        return await self.send("POST", "/graphql", content=body, headers=headers)

    async def send(self, method: str, path: str, headers: dict[str, str] | None = None, **what: Any) -> Any:
        trace = _TRACE.format(len(self.swept.traces) + 1)
        self.swept.traces.append(trace)
        sent = {"content-type": "application/json", "accept": "application/json", "traceparent": trace}
        if self.token:
            sent["authorization"] = f"Bearer {self.token}"
        sent["user-agent"] = self.canaries["agent"]
        answer = await self.client.request(method, path, headers={**sent, **(headers or {})}, **what)
        self.swept.answers += 1
        return self.keep(answer.json() if "json" in answer.headers.get("content-type", "") else answer.text)

    def keep(self, answer: Any) -> Any:
        if not isinstance(answer, dict) or "data" not in answer:
            self.swept.errors.append(json.dumps(answer))
            return None
        rest = {name: value for name, value in answer.items() if name != "data"}
        self.swept.errors.append(json.dumps([rest, *_user_errors(answer["data"])]))
        return answer["data"]


def _user_errors(data: Any) -> Iterator[Any]:
    for name, value in data.items() if isinstance(data, dict) else ():
        if name in ("userErrors", "errors"):
            yield value
        yield from _user_errors(value)
    for each in data if isinstance(data, list) else ():
        yield from _user_errors(each)


async def sweep(address: str, canaries: Canaries, tenant: str) -> Swept:
    """Send every canary to the server at `address`, as the member ``member-email`` of the tenant, an OWNER."""
    swept = Swept()
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        sender = _Sender(client, canaries, swept)
        await _sign_in(sender, canaries, tenant)
        await _prove(sender, canaries, tenant)
        await _write(sender, canaries)
        await _import(sender, canaries)
        await _find(sender, canaries)
        await _mistake(sender, canaries)
        await _stream(sender, canaries, address)
    return swept


async def _sign_in(sender: _Sender, c: Canaries, tenant: str) -> None:
    right = {"t": tenant, "e": c["member-email"], "p": c["member-password"]}
    for wrong in ({"p": c["wrong-password"]}, {"e": c["wrong-email"]}, {"t": c["wrong-tenant"].lower()}):
        refused = await sender.ask(_SIGN_IN, **{**right, **wrong})
        assert refused["signIn"]["accessToken"] is None
    sender.token = (await sender.ask(_SIGN_IN, **right))["signIn"]["accessToken"]
    c.values["token"] = sender.token


async def _prove(sender: _Sender, c: Canaries, tenant: str) -> None:
    """What is said of sessions, second factors, passwords and invitations, rightly and wrongly."""
    right = {"t": tenant, "e": c["member-email"], "p": c["member-password"]}
    with_code = _SIGN_IN.replace("$p: String!", "$p: String!, $c: String").replace(
        "password: $p", "password: $p, code: $c"
    )
    for each in (
        (with_code, {**right, "c": c["wrong-code"]}),
        (f"mutation($x: String!) {{ refreshSession(refreshToken: $x) {{ {_ERRORS} }} }}", {"x": c["wrong-refresh"]}),
        (
            f"""mutation($x: String!, $p: String!) {{ resetPassword(token: $x, newPassword: $p) {{ {_ERRORS} }}
                acceptInvitation(token: $x, password: $p, name: $p) {{ {_ERRORS} }} }}""",
            {"x": c["wrong-link"], "p": c["new-password"]},
        ),
        (
            f"""mutation($p: String!, $n: String!, $c: String!) {{ changePassword(old: $p, new: $n) {{ {_ERRORS} }}
                confirmIdentity(password: $p, code: $c) {{ {_ERRORS} }}
                removeSecondFactor(password: $p, code: $c) {{ {_ERRORS} }} }}""",
            {"p": c["wrong-password"], "n": c["new-password"], "c": c["wrong-code"]},
        ),
        (f"mutation($c: String!) {{ confirmSecondFactor(code: $c) {{ {_ERRORS} }} }}", {"c": c["wrong-code"]}),
        ("mutation { beginSecondFactor { uri } }", {}),
        ("{ sessions { nodes { device { userAgent address } } } }", {}),
    ):
        assert await sender.ask(each[0], **each[1]) is not None, each[0]
    asking = "mutation($t: String!, $e: String!) { requestPasswordReset(tenant: $t, email: $e) { isRequested } }"
    for email in (c["member-email"], c["reset-email"]):
        assert await sender.ask(asking, t=tenant, e=email) is not None
    asked = f"inviteMember(email: $e, name: $n, roles: [AGENT]) {{ {_ERRORS} }}"
    inviting = f"mutation($e: String!, $n: String!) {{ {asked} }}"
    invited = await sender.ask(inviting, e=c["invite-email"], n=c["invite-name"])
    assert invited["inviteMember"]["userErrors"] == [], invited


async def _write(sender: _Sender, c: Canaries) -> None:
    tag = await sender.ask(f"mutation($n: String!) {{ createTag(name: $n) {{ tag {{ id }} {_ERRORS} }} }}", n=c["tag"])
    key = {"idempotency-key": c["idempotency"]}
    first = _person(c, "") | {"tagIds": [tag["createTag"]["tag"]["id"]]}
    made = (await sender.ask(_CREATE, key, i=first))["createCustomer"]
    assert made["userErrors"] == [], made
    assert made["customer"]["note"] == c["note"]
    await sender.ask(_CREATE, key, i=first)  # replayed
    await sender.ask(_CREATE, key, i=_person(c, "2"))  # the key with other input
    await sender.ask(_CREATE, i=first)  # the same external id once more
    id, version = made["customer"]["id"], made["customer"]["version"]
    changed = await sender.ask(_UPDATE, id=id, v=version, i=_person(c, "2"))
    assert changed["updateCustomer"]["userErrors"] == [], changed
    await sender.ask(_UPDATE, id=id, v=version, i=_person(c, ""))  # from an old reading
    rows = [{"givenName": c["bulk-given"], "emails": [c["bulk-email"]]}, {"note": c["bulk-note"], "phones": ["no"]}]
    await sender.ask(_BULK, i=rows)
    for act in ("archiveCustomer", "restoreCustomer"):
        await sender.ask(f"mutation($id: ID!) {{ {act}(id: $id) {{ customer {{ {_FIELDS} }} {_ERRORS} }} }}", id=id)


def _person(c: Canaries, which: str) -> dict[str, Any]:
    return {
        "givenName": c[f"given{which}"],
        "familyName": c[f"family{which}"],
        "displayName": c[f"display{which}"],
        "emails": [c[f"email{which}"]],
        "phones": [c[f"phone{which}"]],
        "birthDate": c[f"birth{which}"],
        "governmentId": c[f"government{which}"],
        "note": c[f"note{which}"],
        "externalId": c[f"external{which}"],
        "address": {
            "lines": [c["line1"], c["line2"]],
            "city": c[f"city{which}"],
            "postalCode": c[f"postal{which}"],
            "country": "DE",
        },
    }


async def _import(sender: _Sender, c: Canaries) -> None:
    """One good row and one that is refused; polled to its end."""
    rows = [
        [c["csv-column"], "mail", "remark"],
        [c["csv-given"], c["csv-email"], c["csv-note"]],
        ["", c["csv-note"], ""],
    ]
    columns = [(c["csv-column"], "givenName"), ("mail", "emails"), ("remark", "note")]
    given = {
        "csv": "\n".join(",".join(row) for row in rows) + "\n",
        "columns": [{"column": column, "field": name} for column, name in columns],
    }
    started = (await sender.ask(_IMPORT, i=given))["importCustomers"]
    assert started["userErrors"] == [], started
    await sender.ask(_IMPORT, i={**given, "columns": [{"column": c["csv-note"], "field": "note"}]})  # no such column
    job = started["job"]["id"]
    async with asyncio.timeout(30):
        while (await sender.ask(_JOB, id=job))["job"]["state"] in ("READY", "RUNNING"):  # noqa: ASYNC110  # over HTTP
            await asyncio.sleep(0.1)
    told = await sender.ask(_ROWS, id=job)
    assert [row["outcome"] for row in told["importRows"]["nodes"]] == ["CREATED", "REFUSED"]


async def _find(sender: _Sender, c: Canaries) -> None:
    held = {"email": c["email2"], "externalId": c["external2"], "governmentId": c["government2"]}
    sought = {"email": c["search-email"], "phone": c["search-phone"], "namePrefix": c["search-name"]}
    for by in [held, sought, {"governmentId": c["search-government"], "externalId": c["search-external"]}]:
        for name, value in by.items():
            assert await sender.ask(_FIND, by={name: value}) is not None
    found = await sender.ask(_FIND, by={"email": c["email2"]})
    assert [each["givenName"] for each in found["findCustomers"]["nodes"]] == [c["given2"]]
    await sender.ask("{ customers { nodes { id givenName } } tags { name } me { roles } jobs { nodes { id } } }")
    await sender.ask("{ auditEntries { nodes { action fields details { name value } } } }")


async def _mistake(sender: _Sender, c: Canaries) -> None:
    """Wrong values, types, names, texts, paths and headers."""
    await sender.ask("query($a: String) { customers(after: $a) { nodes { id } } }", a=c["wrong-cursor"])
    await sender.ask("query($i: ID!) { customer(id: $i) { givenName } node(id: $i) { id } }", i=c["wrong-id"])
    await sender.ask(
        "query($f: CustomerFilter) { customers(filter: $f) { nodes { id } } }", f={"stages": c["wrong-enum"]}
    )
    for wrong in (
        {"birthDate": c["wrong-date"]},
        {"emails": {"x": c["wrong-type"]}},
        {"phones": [c["wrong-type"]], "note": [c["wrong-type"]]},
        {"emails": [c["wrong-type"]], "externalId": "\0" + c["wrong-type"]},
        {"version": c["wrong-type"]},
    ):
        await sender.ask(_CREATE, i=wrong)
    literal = f'{{ findCustomers(by: {{ email: "{c["search-email"]}" }}) {{ nodes {{ id }} }} }}'
    await sender.ask(f"query {c['operation-name']} {literal} # {c['comment']}")
    await sender.ask(f"{{ {c['alias']}: customers {{ nodes {{ {c['alias']}: givenName }} }} }}")
    await sender.ask(literal.replace('" })', "\n"))  # a text that does not end
    await sender.send("GET", "/graphql", params={"query": literal})
    await sender.send("GET", f"/{c['path']}", params={c["path"]: c["path"]})
    await sender.send("POST", "/graphql", content=f'{{"query": "{c["wrong-json"]}')
    await sender.send("POST", "/graphql", content=c["wrong-json"], headers={"content-type": f"text/{c['path']}"})
    for name, value in (
        ("authorization", f"Bearer {c['wrong-token']}"),
        ("authorization", c["wrong-token"]),
        ("coffer-purpose", c["wrong-type"]),
        ("x-request-id", f"{c['wrong-type']} !"),
        ("traceparent", c["wrong-type"]),
        ("idempotency-key", f"{c['idempotency']} twice"),
        ("accept", c["wrong-type"]),
        ("origin", f"https://{c['wrong-type']}"),
        ("cookie", c["wrong-type"]),
    ):
        await sender.ask("{ tags { name } }", {name: value})


async def _stream(sender: _Sender, c: Canaries, address: str) -> None:
    """Hears of a change; then a wrong token, and a message that is none."""
    async with _socket(address, sender.token) as socket:
        await _subscribe(socket, "1", _CHANGED)
        await _subscribe(socket, c["wrong-id"], _FIND, {"by": {"email": c["search-email"]}})
        await _subscribe(socket, "3", _FIND, {"by": {"email": [c["wrong-type"]]}})
        async with asyncio.timeout(30):
            heard: list[Any] = []
            while not any(each["type"] == "next" and each["id"] == "1" for each in heard):
                await sender.ask(_BULK, i=[{"givenName": c["bulk-given"]}])  # until it is subscribed
                heard += await _heard(socket)
        sender.swept.errors += [json.dumps(each["payload"]) for each in heard if each["type"] == "error"]
        await socket.send(f'{{"type": "{c["wrong-json"]}"}}')
        await socket.wait_closed()
        sender.swept.errors.append(str(socket.close_reason))
    async with _socket(address, c["wrong-token"], is_welcome=False) as socket:
        await socket.wait_closed()
        sender.swept.errors.append(str(socket.close_reason))


@asynccontextmanager
async def _socket(address: str, token: str, *, is_welcome: bool = True) -> AsyncIterator[ClientConnection]:
    protocol = Subprotocol("graphql-transport-ws")
    async with connect(f"{address.replace('http', 'ws', 1)}/graphql", subprotocols=[protocol]) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
        if is_welcome:
            assert json.loads(await socket.recv())["type"] == "connection_ack"
        yield socket


async def _subscribe(socket: ClientConnection, id: str, query: str, variables: dict[str, Any] | None = None) -> None:
    payload = {"query": query, "variables": variables or {}}
    await socket.send(json.dumps({"type": "subscribe", "id": id, "payload": payload}))


async def _heard(socket: ClientConnection) -> list[Any]:
    heard = []
    try:
        async with asyncio.timeout(0.5):
            while True:
                heard.append(json.loads(await socket.recv()))
    except TimeoutError:
        return heard


async def in_database(superuser_url: str, canaries: Canaries) -> list[str]:
    """Every column of every row of every table, bytes as hex; and the statements that Postgres remembers."""
    connection = await asyncpg.connect(superuser_url)
    try:
        tables = await connection.fetch("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
        found, rows = [], 0
        for (table,) in tables:
            async with connection.transaction():
                cursor = await connection.cursor(f"SELECT t::text FROM {table} AS t")
                while page := await cursor.fetch(_PAGE):
                    found += canaries.found(f"table {table}", "\n".join(text for (text,) in page).encode())
                    rows += len(page)
        for (text,) in await connection.fetch("SELECT query FROM pg_stat_activity"):
            found += canaries.found("pg_stat_activity", (text or "").encode())
    finally:
        await connection.close()
    assert rows > 20, "there was nothing to look at"
    return sorted(set(found))
