"""What is asked: the five operations and the floor, as endless streams of ready requests over all tenants."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import Any

import orjson

from bench.house import TENANTS, House
from bench.load import Expected, message
from bench.people import email, person_input

_PAGE = """query { customers(first: 50) { nodes {
    givenName familyName emails phones birthDate address { city } stage createdAt } } }"""
_FIND = "query($email: String!) { findCustomers(by: {email: $email}) { nodes { givenName familyName createdAt } } }"
_CREATE = (
    "mutation($input: CustomerInput!) { createCustomer(input: $input) { customer { createdAt } userErrors { code } } }"
)
_ROW = b'"createdAt":'
_FINDS = 2000


@dataclass(frozen=True, slots=True)
class Case:
    letter: str
    name: str
    requests: Iterator[bytes]
    expected: Expected


def cases(house: House, managers: list[str], agents: list[str], keepers: list[str], spare: str) -> list[Case]:
    """The operations (a) to (d), and (g); the tokens stand in the order of the house's tenants."""
    page = Expected(_ROW, min(50, house.rows_each))
    return [
        Case("a", "page of 50 as MANAGER", cycle([_ask(token, _PAGE) for token in managers]), page),
        Case("b", "page of 50 as AGENT", cycle([_ask(token, _PAGE) for token in agents]), page),
        Case("c", "find by e-mail", cycle(list(_finds(house, managers))), Expected(_ROW, 1)),
        Case("d", "create", _creates(spare), Expected(_ROW, 1)),
        Case("g", "page of 50 with levels by row", cycle([_ask(token, _PAGE) for token in keepers]), page),
    ]


def floor(house: House, tokens: list[str]) -> Case:
    requests = cycle([message("/", b"", token) for token in tokens])
    return Case("e", "floor: (a) without GraphQL", requests, Expected(_ROW, min(50, house.rows_each)))


def unrecorded(page: Case) -> Case:
    return replace(page, letter="f", name="(a) without its record")


def _finds(house: House, tokens: list[str]) -> Iterator[bytes]:
    for number in range(_FINDS):
        tenant = number % TENANTS
        known = tenant * house.rows_each + number * 7919 % house.rows_each
        yield _ask(tokens[tenant], _FIND, email=email(known))


def _creates(token: str) -> Iterator[bytes]:
    return (_ask(token, _CREATE, input=person_input(number)) for number in count())


def _ask(token: str, query: str, **variables: Any) -> bytes:
    return message("/graphql", orjson.dumps({"query": query, "variables": variables}), token)
