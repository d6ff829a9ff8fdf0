"""People who are made, changed, read and erased over the API while keys turn over, and what must be left of each.

Each change of a person has a number, which stands in the note and in the e-mail: so a lost, torn or revived change
shows. What a restore may have undone is known by its *era*, which ends when a restore was seen to be done.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any
from uuid import UUID

from tenants.access import Role
from tenants.ids import any_local_id
from tenants.signing_in import sessions
from tenants.signing_in.sessions import Method
from tenants.viewers import Credential, TenantId
from tests.house import House

_NODE = "id version givenName note emails"
_READ = f"query($id: ID!) {{ customer(id: $id) {{ {_NODE} }} }}"
_PAGE = f"""query($after: String) {{
  customers(first: 100, after: $after) {{ nodes {{ {_NODE} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
_FIND = f"query($email: String!) {{ findCustomers(by: {{email: $email}}) {{ nodes {{ {_NODE} }} }} }}"
_OF_NAME = "query($name: String!) { findCustomers(by: {namePrefix: $name}, first: 100) { nodes { id } } }"
_PAYLOAD = "customer { id version } userErrors { code }"
_CREATE = f"mutation($i: CustomerInput!) {{ at: createCustomer(input: $i) {{ {_PAYLOAD} }} }}"
_UPDATE = f"""mutation($id: ID!, $v: Int!, $i: CustomerInput!) {{
  at: updateCustomer(id: $id, version: $v, input: $i) {{ {_PAYLOAD} }} }}"""
_ERASE = "mutation($id: ID!) { at: eraseCustomer(id: $id, cause: REQUEST) { erasure { id } userErrors { code } } }"
_FRESH = 120.0  # seconds that a proof of who asks is used
_REST = 0.25  # seconds between two acts of a writer, at most


class Refusal(Exception):
    """An answer's first error code."""


@dataclass
class Person:
    """`kept` is the newest change that must still be there, None where the person need not; `sent` the newest."""

    number: int
    id: str
    kept: int | None = 0
    sent: int = 0
    is_leaving: bool = False  # its erasure is asked for
    is_erased: bool = False
    is_gone: bool = False

    @property
    def local(self) -> UUID:
        located = any_local_id(self.id)
        assert located is not None
        return located[1]

    def mail(self, change: int) -> str:
        return f"p{self.number}-{change}@example.org"

    def fields(self, change: int) -> dict[str, Any]:
        return {"note": str(change), "emails": [self.mail(change)], "familyName": self.name(change)}

    def name(self, change: int) -> str:
        return f"Q{self.number:04}x{change}"  # its first six characters are this person's alone


@dataclass
class Crowd:
    """Of one tenant. `wrongs` are sentences about what readers and writers met that must not be."""

    house: House
    slug: str
    chance: Random
    people: list[Person] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    era: int = 0
    is_restoring: bool = False
    _is_over: bool = False
    _proven: tuple[float, Credential] | None = None

    @property
    def tenant(self) -> TenantId:
        return self.house.tenants[self.slug].id

    @property
    def calm(self) -> int | None:
        """The era, while no restore may replace what is read: the same before and after says that none did."""
        return None if self.is_restoring else self.era

    @property
    def floors(self) -> Mapping[int, int | None]:
        """By person, what a snapshot that is taken from now on has at least."""
        return {person.number: person.kept for person in self.people}

    def went_back(self, floors: Mapping[int, int | None]) -> None:
        """A restore of such a snapshot was seen to be done."""
        self.era, self.is_restoring = self.era + 1, False
        for person in self.people:
            person.kept = floors.get(person.number)
            person.is_gone = person.is_gone and person.kept is None

    @asynccontextmanager
    async def living(self, writers: int, readers: int) -> AsyncIterator[None]:
        """Everybody at work while the block runs."""
        async with asyncio.TaskGroup() as group:
            for number in range(writers):
                group.create_task(self._write(number, writers))
            for _ in range(readers):
                group.create_task(self._read())
            try:
                yield
            finally:
                self._is_over = True

    async def add(self) -> None:
        number, era = len(self.people), self.era
        person = Person(number, "", None)
        self.people.append(person)  # its number is taken, whoever else adds one meanwhile
        given = {"givenName": f"Person{number}", "governmentId": f"G-{number:06}", **person.fields(0)}
        try:
            made = await self._change(_CREATE, {"i": given})
        except Refusal:
            person.is_gone = True
            return
        person.id = made["customer"]["id"]
        person.kept = 0 if era == self.era else None

    async def erase_one(self) -> None:
        while not self.people[0].is_erased:
            await self._erase(self.people[0])

    async def everybody(self) -> list[dict[str, Any]]:
        """All customers, opened."""
        nodes, after = [], None
        while True:
            page = (await self._ask(_PAGE, {"after": after}))["customers"]
            nodes += page["nodes"]
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                return nodes

    async def found(self, mail: str) -> list[str]:
        return [node["id"] for node in (await self._ask(_FIND, {"email": mail}))["findCustomers"]["nodes"]]

    async def named(self, name: str) -> set[str]:
        return {node["id"] for node in (await self._ask(_OF_NAME, {"name": name}))["findCustomers"]["nodes"]}

    async def _write(self, number: int, of: int) -> None:
        """Each writer has people of its own: nobody else changes them."""
        while not self._is_over:
            mine = [p for p in self.people if p.number % of == number and p.id and not (p.is_leaving or p.is_gone)]
            fate = self.chance.random()
            if fate < 0.05 or not mine:
                await self.add()
            elif fate < 0.065 and len(mine) > 3:
                await self._erase(self.chance.choice(mine))
            else:
                await self._update(self.chance.choice(mine))
            await asyncio.sleep(self.chance.uniform(0, _REST))

    async def _update(self, person: Person) -> None:
        calm, kept = self.calm, person.kept
        try:
            node = await self._look(person)
            if node is None or not self._fits(person, node, kept if self._stayed(calm) else None):
                return
            person.sent += 1
            change, era = person.sent, self.era
            sent = {"id": person.id, "v": node["version"], "i": person.fields(change)}
            await self._change(_UPDATE, sent)
        except Refusal:
            return
        self.acts["updated"] += 1
        if era == self.era:
            person.kept = change

    async def _erase(self, person: Person) -> None:
        person.is_leaving = True
        try:
            await self._change(_ERASE, {"id": person.id}, member=await self._prove())
        except Refusal:
            person.is_leaving = False
            return
        person.is_erased = True
        self.acts["erased"] += 1

    async def _look(self, person: Person) -> dict[str, Any] | None:
        calm, kept = self.calm, person.kept
        try:
            node: dict[str, Any] = (await self._ask(_READ, {"id": person.id}))["customer"]
        except Refusal as refusal:
            if str(refusal) == "NOT_FOUND" and self._stayed(calm) and not person.is_leaving:
                person.is_gone = True
                if kept is not None:
                    self.wrongs.append(f"person {person.number} of {self.slug}, kept at {kept}, is not there")
            return None
        return node

    def _stayed(self, calm: int | None) -> bool:
        return calm is not None and calm == self.calm

    def _fits(self, person: Person, node: Mapping[str, Any], kept: int | None) -> bool:
        """Whether it is whole, and no older than what must be there."""
        change = int(node["note"] or -1)
        is_whole = node["emails"] == [person.mail(change)] and node["givenName"] == f"Person{person.number}"
        if not is_whole or not (kept or 0) <= change <= person.sent:
            said = f"kept {kept}, sent {person.sent}, read {node['note']} {node['emails']}"
            self.wrongs.append(f"person {person.number} of {self.slug}: {said}")
            return False
        return True

    async def _read(self) -> None:
        while not self._is_over:
            with suppress(Refusal):
                await self._scan()
                await self._search(self.chance.choice(self.people))
            await asyncio.sleep(self.chance.uniform(0, 3 * _REST))

    async def _scan(self) -> None:
        erased = {person.id for person in self.people if person.is_erased}
        by_id = {person.id: person for person in self.people if person.id}
        for node in await self.everybody():
            if node["id"] in erased:
                self.wrongs.append(f"an erased person of {self.slug} was read")
            elif node["id"] in by_id:
                self._fits(by_id[node["id"]], node, None)
        self.acts["scans"] += 1

    async def _search(self, person: Person) -> None:
        """An erased one is found by nothing; any other whose change stands is found by it."""
        calm, kept, sent, was_erased = self.calm, person.kept, person.sent, person.is_erased
        found = person.id in await self.found(person.mail(sent))
        self.acts["searches"] += 1
        if was_erased and found:
            self.wrongs.append(f"the erased person {person.number} of {self.slug} was found")
        is_quiet = self._stayed(calm) and (kept, sent) == (person.kept, person.sent) and not person.is_leaving
        if is_quiet and kept == sent and not found:
            self.wrongs.append(f"person {person.number} of {self.slug} was not found by change {sent}")

    async def _change(self, document: str, variables: Mapping[str, Any], **who: Any) -> dict[str, Any]:
        payload: dict[str, Any] = (await self._ask(document, variables, **who))["at"]
        for error in payload["userErrors"]:
            self.refused[error["code"]] += 1
            raise Refusal(error["code"])
        return payload

    async def _ask(self, document: str, variables: Mapping[str, Any], **who: Any) -> dict[str, Any]:
        answer = await self.house.ask(document, dict(variables), tenant=self.slug, **who)
        for error in answer.get("errors", ()):
            code = error["extensions"]["code"]
            self.refused[code] += 1
            if not error["extensions"].get("retryable") and code != "NOT_FOUND":
                self.wrongs.append(f"{code}: {error['message']}")
            raise Refusal(code)
        data: dict[str, Any] = answer["data"]
        return data

    async def _prove(self) -> Credential:
        """The owner, who has just proved to sit there."""
        if self._proven is None or monotonic() - self._proven[0] > _FRESH:
            who = self.house.members[self.slug][Role.OWNER]
            async with self.house.api.units.enter(who.tenant, None, write=True, thaws=True) as unit:
                self._proven = monotonic(), await sessions.begin(unit, who.principal, Method.PASSWORD)
        return self._proven[1]
