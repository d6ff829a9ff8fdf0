"""What every root field of Query is asked with. A field that is not named here makes the tests fail: give it a line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenants.access import Role
from tenants.ids import any_local_id
from tests.leaks.documents import Call
from tests.leaks.graph import is_abstract, kinds_of, roots
from tests.leaks.seeds import Seeds
from tests.leaks.viewers import Viewer

Asked = Sequence[Mapping[str, Any]]
_PAGE = 16  # more customers than are seeded
_FEW = 4


def _customers(here: Seeds, there: Seeds, viewer: Viewer) -> list[str]:
    """One's own, a mate's, a stranger's, an imported one, and another tenant's."""
    names = [viewer.name, "a mate", "a stranger", "imported"]
    return [here.customers[name] for name in names if name in here.customers] + [there.customers["a mate"]]


def _nodes(here: Seeds, there: Seeds, viewer: Viewer) -> list[str]:
    """An id of each type that is a node, and of each another tenant's."""
    of_both = [each for seeds in (here, there) for each in seeds.nodes]
    return _customers(here, there, viewer) + [each for each in of_both if _kind(each) in _NODES]


def _searches(here: Seeds, there: Seeds, viewer: Viewer) -> Asked:
    found = [here.truth.values[each] for each in _customers(here, there, viewer)[:2]]
    person = found[0]
    values = {
        "email": person["Customer.emails"][0],
        "phone": person["Customer.phones"][0],
        "governmentId": person["Customer.governmentId"],
        "externalId": person["Customer.externalId"],
        "namePrefix": "Zoë",
    }
    return [{"by": {name: value}, "first": _PAGE if name == "namePrefix" else 1} for name, value in values.items()]


Ask = Callable[[Seeds, Seeds, Viewer], Asked]


def _once(**arguments: Any) -> Ask:
    return lambda _here, _there, _viewer: [arguments]


QUERIES: Mapping[str, Ask] = {
    "apiKeys": _once(first=_FEW),
    "explainAccess": lambda here, _there, viewer: (
        [
            {"type": "Customer", "field": "givenName", "member": each, "id": here.customers["a mate"]}
            for each in (viewer.member or here.owner.member, here.viewers[Role.AGENT].member)
        ]
        + [{"type": "Customer", "field": "stage"}, {"type": "Tag", "field": "name"}]
    ),
    "signOn": _once(),
    "legalHolds": lambda *who: [{"customer": each} for each in _customers(*who)],
    "erasures": _once(first=_FEW),
    "erasure": lambda here, there, _: [{"id": each.erasure} for each in (here, there)],
    "offboarding": _once(),
    "webhookEndpoints": _once(first=_FEW),
    "webhookDeliveries": _once(first=_FEW),
    "webhookPreview": lambda *who: (
        [{"roles": [role], "customer": each} for each in _customers(*who) for role in ("MANAGER", "ANALYST")]
        + [{"endpoint": who[0].endpoint, "customer": each, "payload": "FULL"} for each in _customers(*who)[:2]]
    ),
    "sessions": lambda here, there, viewer: [
        {"member": each, "first": _FEW} for each in (viewer.member or None, here.owner.member, there.owner.member)
    ],
    "tenant": _once(),
    "usage": _once(),
    "auditEntries": _once(first=_FEW),
    "disclosureCounts": _once(),
    "verifyAuditChain": _once(),
    "customer": lambda *who: [{"id": each} for each in _customers(*who)],
    "customers": _once(first=_PAGE, sort={"field": "UPDATED_AT", "direction": "ASC"}, filter={"language": None}),
    "findCustomers": _searches,
    "eventTypes": _once(),
    "tags": _once(),
    "importRows": lambda here, there, _: [{"job": each.job, "first": _FEW} for each in (here, there)],
    "job": lambda here, there, _: [{"id": each.job} for each in (here, there)],
    "jobs": _once(first=_FEW),
    "me": _once(),
    "members": lambda here, there, _: [
        {"first": 30},
        *({"email": of.truth.values[of.owner.member]["Member.email"]} for of in (here, there)),
    ],
    "roles": _once(),
    "role": lambda here, there, _: [{"id": each.roles[0]} for each in (here, there)],
    "builtInRoles": _once(),
    "schedules": _once(),
    "keys": _once(),
    "rotations": _once(first=_FEW),
    "keyCoverage": _once(),
    "backup": lambda here, there, _: [{"id": each.backup} for each in (here, there)],
    "backups": _once(first=_FEW),
    "backupRetention": _once(),
    "teams": _once(first=3),
    "node": lambda *who: [{"id": each} for each in _nodes(*who)],
    "nodes": lambda *who: [{"ids": [each for each in _nodes(*who) if _kind(each) == kind]} for kind in _NODES],
}


def _kind(id: str) -> str:
    found = any_local_id(id)
    assert found is not None
    return found[0]


_NODES: list[str] = kinds_of(roots("Query")["node"])


def unknown() -> set[str]:
    return roots("Query").keys() - QUERIES.keys()


def calls(here: Seeds, there: Seeds, viewer: Viewer) -> list[Call]:
    made = []
    for name, field in roots("Query").items():
        for arguments in QUERIES[name](here, there, viewer):
            of = arguments.get("id") or next(iter(arguments.get("ids") or []), "")
            kinds = [_kind(of)] if is_abstract(field) and of else kinds_of(field)
            made += [Call(name, arguments, kind) for kind in kinds]
    return made
