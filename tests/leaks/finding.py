"""What one may look for: for every @searches of the SDL a value that somebody has, and one that nobody has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.paging import global_id
from tenants.ids import new_id
from tests.leaks import people
from tests.leaks.seeds import Seeds
from tests.leaks.viewers import Viewer

FOUND = """query($by: CustomerSearch!) { findCustomers(by: $by, first: 2) {
    totalCount nodes { id } edges { cursor } pageInfo { hasNextPage } } }"""
LISTED = """query($where: CustomerFilter) { customers(filter: $where, first: 2) {
    totalCount nodes { id } edges { cursor } pageInfo { hasNextPage } } }"""
RARE = {"stage": "FORMER", "language": "mt", "source": "rare source", "region": "MT-01"}
_ARCHIVE = "mutation($i: ID!) { archiveCustomer(id: $i) { customer { id } } }"
_READ = "query($i: ID!) { customer(id: $i) { createdAt updatedAt } }"
_LONG_AGO = "2001-01-01T00:00:00Z"

# The right that each takes; a filter names clear fields, which takes the right to read.
RIGHTS = {
    "CustomerSearch.email": "CONTACT",
    "CustomerSearch.phone": "CONTACT",
    "CustomerSearch.governmentId": "GOVERNMENT_ID",
    "CustomerSearch.externalId": "EXTERNAL_ID",
    "CustomerSearch.namePrefix": "IDENTITY",
}
_OF = {
    "CustomerSearch.email": "Customer.emails",
    "CustomerSearch.phone": "Customer.phones",
    "CustomerSearch.governmentId": "Customer.governmentId",
    "CustomerSearch.externalId": "Customer.externalId",
    "CustomerSearch.namePrefix": "Customer.givenName",
}


@dataclass(frozen=True)
class Probe:
    """Variables that find exactly this customer, and such that find nobody."""

    customer: str
    hits: Mapping[str, Any]
    misses: Mapping[str, Any]


def search(seeds: Seeds, coordinate: str, customer: str) -> Probe:
    name, value = coordinate.partition(".")[2], seeds.truth.values[customer][_OF[coordinate]]
    text = value[0] if isinstance(value, list) else value
    return Probe(customer, {"by": {name: text}}, {"by": {name: nobodys(seeds, customer, text)}})


def nobodys(seeds: Seeds, customer: str, text: str) -> str:
    """Of the same form, with the digit of a tenant that there is not."""
    at = people.mark_of(seeds.truth.values[customer])
    return text.replace(at, f"7{at[1:]}")


async def filters(seeds: Seeds, owner: Viewer) -> dict[str, Probe]:
    """Of a customer that no other is like, and one that is archived."""
    tag = await seeds.new_tag()
    rare = await seeds.customer(owner, **RARE, tagIds=[tag])
    away = await seeds.customer(owner, source="away")
    await seeds.data(_ARCHIVE, i=away)
    read = (await seeds.data(_READ, i=rare))["customer"]
    nobody, nothing = global_id("Member", new_id()), global_id("Tag", new_id())
    narrow = {"source": RARE["source"]}
    wheres: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "stages": ({"stages": ["FORMER"]}, {"stages": []}),
        "ownerId": ({"ownerId": owner.member, **narrow}, {"ownerId": nobody, **narrow}),
        "tagId": ({"tagId": tag}, {"tagId": nothing}),
        "language": ({"language": "mt"}, {"language": "mi"}),
        "source": (narrow, {"source": "no source"}),
        "region": ({"region": "MT-01"}, {"region": "MT-02"}),
        "createdSince": ({"createdSince": read["createdAt"], **narrow}, {"createdSince": "2199-01-01T00:00:00Z"}),
        "createdBefore": ({"createdBefore": "2199-01-01T00:00:00Z", **narrow}, {"createdBefore": _LONG_AGO}),
        "updatedSince": ({"updatedSince": read["updatedAt"], **narrow}, {"updatedSince": "2199-01-01T00:00:00Z"}),
    }
    probes = {
        f"CustomerFilter.{name}": Probe(rare, {"where": hits}, {"where": misses})
        for name, (hits, misses) in wheres.items()
    }
    archived = ({"archived": True, "source": "away"}, {"archived": True, "source": "no source"})
    return probes | {"CustomerFilter.archived": Probe(away, {"where": archived[0]}, {"where": archived[1]})}
