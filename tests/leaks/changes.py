"""What every field of Mutation is asked with, each time anew. One that is not named here makes the tests fail."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from api.paging import global_id
from domain.imports import IMPORT
from tenants.jobs import NoArguments
from tests.api.test_imports import written
from tests.leaks import people
from tests.leaks.graph import roots
from tests.leaks.seeds import Seeds, endpoint, know_hold, know_service, local, new_endpoint, new_hold
from tests.leaks.viewers import LEAVES, Nearness, Viewer

_VERSION = "query($id: ID!) { customer(id: $id) { version } }"
_TEAM = "mutation($n: String!) { createTeam(name: $n) { team { id } } }"
_STATE = (
    "UPDATE jobs SET state = $3, ended_at = CASE WHEN $3 = 'PARKED' THEN now() END WHERE tenant_id = $1 AND id = $2"
)
_ENDPOINT_VERSION = "query($id: ID!) { node(id: $id) { ... on WebhookEndpoint { version } } }"
_ENDPOINT_ENABLED = "UPDATE webhook_endpoints SET state = 'ACTIVE' WHERE tenant_id = $1"
_UNHELD = "DELETE FROM legal_holds WHERE tenant_id = $1 AND customer_id = $2"
_LIFTED = "UPDATE legal_holds SET lifted_at = now() WHERE tenant_id = $1 AND lifted_at IS NULL"
_STAYING = "DELETE FROM offboardings WHERE tenant_id = $1"
_PROVEN = "UPDATE member_sessions SET confirmed_at = now() WHERE tenant_id = $1"
_DISABLED = "UPDATE members SET status = 'DISABLED' WHERE tenant_id = $1 AND id = $2"
_KEY = "mutation($n: String!) { createApiKey(name: $n, roles: [ANALYST]) { apiKey { id service { id } } } }"


@dataclass(frozen=True)
class Change:
    """The arguments of a mutation; `settle` takes what it answered, before that is looked at, into the truth."""

    arguments: Mapping[str, Any]
    settle: Callable[[Mapping[str, Any]], None] = lambda _payload: None


Make = Callable[[Seeds, Viewer], Awaitable[Change]]


def writable(seeds: Seeds, viewer: Viewer) -> dict[str, Any]:
    """A new customer, as far as this viewer may write one."""
    sent = seeds.fresh()
    kept = {name: value for name, value in sent.items() if name != "address" and _may(viewer, f"Customer.{name}")}
    address = {name: value for name, value in sent["address"].items() if _may(viewer, f"Address.{name}")}
    return {**kept, **({"address": address} if address else {})}


def _may(viewer: Viewer, coordinate: str) -> bool:
    """Who sets the external id learns which are taken, so it takes the right to find everybody by it."""
    is_open = coordinate != "Customer.externalId" or viewer.may_search("EXTERNAL_ID", Nearness.STRANGER)
    return is_open and viewer.may_write(LEAVES[coordinate][0])


async def _created(seeds: Seeds, viewer: Viewer) -> Change:
    sent = writable(seeds, viewer)
    return Change({"input": sent}, lambda payload: _know(seeds, viewer, payload.get("customer"), sent))


async def _many_created(seeds: Seeds, viewer: Viewer) -> Change:
    sent = [writable(seeds, viewer) for _ in range(2)]

    def settle(payload: Mapping[str, Any]) -> None:
        for outcome, each in zip(payload["outcomes"], sent, strict=True):
            _know(seeds, viewer, outcome["customer"], each)

    return Change({"input": sent}, settle)


def _know(seeds: Seeds, viewer: Viewer, customer: Mapping[str, Any] | None, sent: dict[str, Any]) -> None:
    if customer is not None:
        whole = {**sent, "displayName": sent.get("displayName")}
        seeds.know(customer["id"], whole, viewer.member)


def _of(name: str) -> Make:
    """The customer of that name, as it is."""

    async def make(seeds: Seeds, _viewer: Viewer) -> Change:
        customer = seeds.customers[name]
        read = await seeds.data(_VERSION, id=customer)
        return Change({"id": customer, "version": read["customer"]["version"], "input": {}})

    return make


def _named(name: str) -> Make:
    async def make(seeds: Seeds, _viewer: Viewer) -> Change:
        return Change({"id": seeds.customers.get(name, seeds.foreign)})

    return make


async def _handed_over(seeds: Seeds, viewer: Viewer) -> Change:
    own = await seeds.customer(viewer)

    def settle(payload: Mapping[str, Any]) -> None:
        if not payload["userErrors"]:
            seeds.truth.owners[own] = seeds.mate

    return Change({"id": own, "to": seeds.mate}, settle)


async def _many_handed_over(seeds: Seeds, viewer: Viewer) -> Change:
    own = [await seeds.customer(viewer) for _ in range(2)]

    def settle(payload: Mapping[str, Any]) -> None:
        for row, outcome in enumerate(payload["outcomes"]):
            if not outcome["userErrors"]:
                seeds.truth.owners[own[row]] = seeds.mate

    return Change({"ids": own, "to": seeds.mate}, settle)


async def _tag(seeds: Seeds, _viewer: Viewer) -> Change:
    seeds.made += 1
    known = people.tag(seeds.letter, seeds.made)

    def settle(payload: Mapping[str, Any]) -> None:
        if payload["tag"]:
            seeds.truth.know(payload["tag"]["id"], known, people.cores_of(known))

    return Change({"name": known["Tag.name"]}, settle)


async def _import(seeds: Seeds, _viewer: Viewer) -> Change:
    csv = written([["stage"], ["LEAD"]])
    return Change({"input": {"csv": csv, "columns": [{"column": "stage", "field": "stage"}]}})


def _job(state: str) -> Make:
    async def make(seeds: Seeds, viewer: Viewer) -> Change:
        assert viewer.credential is not None
        who = (viewer.credential.tenant, viewer.credential.principal)
        async with seeds.house.api.units.enter(*who, write=True) as unit:
            job = await unit.enqueue(IMPORT, NoArguments(), total=3)
        await seeds.superuser(_STATE, job, state)
        return Change({"id": global_id("Job", job)})

    return make


async def _schedule(_seeds: Seeds, _viewer: Viewer) -> Change:
    return Change({"kind": "tidy", "cron": "0 3 * * 1"})


async def _key_to_rotate(seeds: Seeds, _viewer: Viewer) -> Change:
    await seeds.superuser(_PROVEN)
    return Change({"purpose": "KEK"})


async def _invited(seeds: Seeds, _viewer: Viewer) -> Change:
    seeds.made += 1
    known = people.member(seeds.letter, seeds.made)
    who = {"email": known["Member.email"], "name": known["Member.name"]}

    def settle(payload: Mapping[str, Any]) -> None:
        if payload["member"]:
            seeds.truth.know(payload["member"]["id"], known, people.cores_of(known))

    return Change({**who, "roles": ["ANALYST"], "ownRoles": []}, settle)


async def _member(seeds: Seeds, _viewer: Viewer) -> Change:
    return Change({"id": (await seeds.member("somebody", [])).member})


async def _roles_of(seeds: Seeds, viewer: Viewer) -> Change:
    return Change({**(await _member(seeds, viewer)).arguments, "roles": [], "ownRoles": []})


async def _disabled(seeds: Seeds, viewer: Viewer) -> Change:
    change = await _member(seeds, viewer)
    await seeds.superuser(_DISABLED, local(change.arguments["id"]))
    return change


async def _key(seeds: Seeds, viewer: Viewer) -> Change:
    known = people.service(seeds.letter)

    def settle(payload: Mapping[str, Any]) -> None:
        if payload["apiKey"]:
            _know_service(seeds, payload["apiKey"]["service"]["id"])

    return Change({"name": known["Member.name"], "roles": ["ANALYST"], "ownRoles": seeds.roles[:1]}, settle)


async def _another_key(seeds: Seeds, viewer: Viewer) -> Change:
    made = (await seeds.data(_KEY, n=people.service(seeds.letter)["Member.name"]))["createApiKey"]["apiKey"]
    _know_service(seeds, made["service"]["id"])
    return Change({"service": made["service"]["id"]})


def _know_service(seeds: Seeds, service: str) -> None:
    known = people.service(seeds.letter)
    seeds.truth.know(service, known, people.cores_of(known))
    seeds.truth.services.add(service)


async def _made_key(seeds: Seeds, _viewer: Viewer) -> Change:
    made = (await seeds.data(_KEY, n=people.service(seeds.letter)["Member.name"]))["createApiKey"]["apiKey"]
    _know_service(seeds, made["service"]["id"])
    return Change({"id": made["id"]})


def _team(argument: str, **more: Callable[[Seeds], Any]) -> Make:
    async def make(seeds: Seeds, _viewer: Viewer) -> Change:
        seeds.made += 1
        made = (await seeds.data(_TEAM, n=f"team {seeds.made}"))["createTeam"]["team"]["id"]
        return Change({argument: made, **{each: of(seeds) for each, of in more.items()}})

    return make


async def _new_endpoint(seeds: Seeds, _viewer: Viewer) -> Change:
    def settle(payload: Mapping[str, Any]) -> None:
        if payload["endpoint"]:
            know_service(seeds, payload["endpoint"]["service"]["id"])

    return Change({"input": endpoint(seeds)}, settle)


async def _changed_endpoint(seeds: Seeds, _viewer: Viewer) -> Change:
    read = await seeds.data(_ENDPOINT_VERSION, id=seeds.endpoint)
    return Change({"id": seeds.endpoint, "version": read["node"]["version"], "input": {"payload": "FULL"}})


async def _doomed_endpoint(seeds: Seeds, _viewer: Viewer) -> Change:
    return Change({"id": await new_endpoint(seeds)})


def _endpoint(argument: str, **more: Any) -> Make:
    async def make(seeds: Seeds, _viewer: Viewer) -> Change:
        await seeds.superuser(_ENDPOINT_ENABLED)
        return Change({argument: seeds.endpoint, **more})

    return make


async def _sent_before(seeds: Seeds, _viewer: Viewer) -> Change:
    await seeds.superuser(_ENDPOINT_ENABLED)
    return Change({"id": seeds.delivery})


async def _bare(_seeds: Seeds, _viewer: Viewer) -> Change:
    return Change({})


async def _backup(seeds: Seeds, _viewer: Viewer) -> Change:
    return Change({"id": await seeds.new_backup()})


async def _new_team(seeds: Seeds, _viewer: Viewer) -> Change:
    seeds.made += 1
    return Change({"name": f"team {seeds.made}"})


def _hold(customer: str) -> Make:
    async def make(seeds: Seeds, _viewer: Viewer) -> Change:
        seeds.made += 1
        known, whose = people.hold(seeds.letter, seeds.made), seeds.customers[customer]

        def settle(payload: Mapping[str, Any]) -> None:
            if payload["hold"]:
                know_hold(seeds, payload["hold"]["id"], known, whose)

        await seeds.superuser(_UNHELD, local(whose))
        return Change({"customer": whose, "reason": known["LegalHold.reason"]}, settle)

    return make


async def _held(seeds: Seeds, _viewer: Viewer) -> Change:
    return Change({"id": await new_hold(seeds, seeds.customers["a mate"])})


def _offboarding(**arguments: Any) -> Make:
    """No hold is open, nobody has asked for it yet, and whoever asks has just proved to be it."""

    async def make(seeds: Seeds, _viewer: Viewer) -> Change:
        await seeds.superuser(_LIFTED)
        await seeds.superuser(_STAYING)
        await seeds.superuser(_PROVEN)
        return Change(arguments)

    return make


async def _no_backup(_seeds: Seeds, _viewer: Viewer) -> Change:
    """It takes a proof that no viewer here has, so nobody learns even that there is none."""
    return Change({"backup": global_id("Backup", uuid4())})


CHANGES: Mapping[str, list[Make]] = {
    "createCustomer": [_created],
    "createCustomers": [_many_created],
    "updateCustomer": [_of("a mate"), _of("a stranger"), _of("imported")],
    "archiveCustomer": [_named("a mate"), _named("a stranger"), _named("another tenant's")],
    "restoreCustomer": [_named("a mate"), _named("a stranger"), _named("another tenant's")],
    "handOverCustomer": [_handed_over],
    "handOverCustomers": [_many_handed_over],
    "createTag": [_tag],
    "importCustomers": [_import],
    "pauseJob": [_job("READY")],
    "resumeJob": [_job("PAUSED")],
    "cancelJob": [_job("READY")],
    "retryJob": [_job("PARKED")],
    "placeHold": [_hold("a mate"), _hold("a stranger")],
    "liftHold": [_held],
    "requestOffboarding": [_offboarding(coolingDays=1)],
    "approveOffboarding": [_offboarding()],
    "cancelOffboarding": [_offboarding()],
    "restoreBackup": [_no_backup],
    "drillBackup": [_no_backup],
    "setSchedule": [_schedule],
    "rotateKey": [_key_to_rotate],
    "makeBackup": [_bare],
    "verifyBackup": [_backup],
    "repairBackup": [_backup],
    "deleteBackup": [_backup],
    "inviteMember": [_invited],
    "setMemberRoles": [_roles_of],
    "disableMember": [_member],
    "enableMember": [_disabled],
    "createApiKey": [_key, _another_key],
    "rotateApiKey": [_made_key],
    "revokeApiKey": [_made_key],
    "createWebhookEndpoint": [_new_endpoint],
    "updateWebhookEndpoint": [_changed_endpoint],
    "deleteWebhookEndpoint": [_doomed_endpoint],
    "enableWebhookEndpoint": [_endpoint("id")],
    "disableWebhookEndpoint": [_endpoint("id")],
    "rotateWebhookSecret": [_endpoint("id")],
    "sendTestEvent": [_endpoint("endpoint")],
    "redeliverWebhook": [_sent_before],
    "replayWebhooks": [_endpoint("endpoint", since="2001-01-01T00:00:00Z", until="2001-01-02T00:00:00Z")],
    "createTeam": [_new_team],
    "renameTeam": [_team("id", name=lambda seeds: f"team {seeds.made} anew")],
    "addTeamMembers": [_team("team", members=lambda seeds: [seeds.mate])],
    "removeTeamMembers": [_team("team", members=lambda seeds: [seeds.mate])],
}
# Those that answer with nothing personal, and so with nothing that has a level.
BARE = {
    "signIn refreshSession confirmIdentity signOut endSession endOtherSessions": "tokens, ids and counts",
    "changePassword requestPasswordReset resetPassword": "that it was done",
    "beginSecondFactor confirmSecondFactor removeSecondFactor resetSecondFactor": "the secret of whoever asks",
    "acceptInvitation cancelInvitation": "ids",
    "createRole updateRole deleteRole deleteTeam": "names of roles and ids",
    "updateTenant signUp completeSignUp": "the tenant's own name",
    "holdBackup setBackupRetention": "counts, codes and moments",
    "setSignOn removeSignOn beginSignOn linkSignOn completeSignOn": "addresses of providers, tokens",
    "eraseCustomer": "ids, codes, counts and moments",
    "exportCustomer": "all of one customer, for those who may: see test_revealing.py",
    "revealCustomerField": "one value for those who may: see test_revealing.py",
}


def unknown() -> set[str]:
    bare = {name for names in BARE for name in names.split()}
    return roots("Mutation").keys() - CHANGES.keys() - bare
