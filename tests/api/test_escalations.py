"""Ways to more than one's roles grant, each of which was open once: by puppets, keys, races and bigger members."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from api.paging import global_id
from domain import invitations
from tenants import rights
from tenants.access import BUILT_IN, Grants, Level, Permission, Role, RoleSpec, Scope, Sensitivity
from tenants.signing_in import sessions
from tenants.signing_in.sessions import Method
from tenants.viewers import Credential
from tests.api.staff import CREATE, DISABLE, ENABLE, SERVICE, SET, UPDATE, ask, done, held, id_of, join, refused
from tests.api.test_invitations import INVITE, accept, invited, link_of
from tests.api.test_second_factor import guarded
from tests.house import House
from tests.tenants.chained import fetch
from tests.visitors import Visitor, a_visitor

KEY = """mutation($r: [Role!]! = [], $o: [ID!]) { at: createApiKey(name: "puppet", roles: $r, ownRoles: $o) {
  secret apiKey { id service { id } } userErrors { code message } } }"""
ROTATE = "mutation($id: ID!) { at: rotateApiKey(id: $id) { secret userErrors { code } } }"
MAKE = """mutation($e: String!, $o: [ID!]) { at: inviteMember(email: $e, name: "Mia", roles: [], ownRoles: $o) {
  member { id } userErrors { code } } }"""
TENANT = "mutation($b: Int) { at: updateTenant(input: { disclosureBudget: $b }) { userErrors { code } } }"
RESET = "mutation($id: ID!) { at: resetSecondFactor(member: $id) { isRemoved userErrors { code } } }"
END = "mutation($id: ID!) { at: endSession(id: $id) { endedId userErrors { code } } }"
READ, SEES = Permission.CUSTOMERS_READ, {Sensitivity.CONTACT: Level.PLAIN, Sensitivity.GOVERNMENT_ID: Level.PLAIN}
GOVERNS = {Permission.API_KEYS_MANAGE, Permission.MEMBERS_MANAGE, Permission.ROLES_MANAGE, Permission.MEMBERS_READ}
WIDE = RoleSpec(
    Grants(
        frozenset({READ, Permission.CUSTOMERS_HAND_OVER, *GOVERNS}),
        {Sensitivity.CONTACT: Level.MASKED, Sensitivity.IDENTITY: Level.PLAIN},
    )
)
NARROW = [
    RoleSpec(Grants(frozenset({READ}), SEES), Scope.OWN),
    RoleSpec(Grants(frozenset({READ}), SEES), Scope.TEAM),
    RoleSpec(Grants(frozenset({READ})), own=Grants(levels=SEES)),
]


async def narrow_role(house: House, who: Credential) -> str:
    """The id of its role of the fewest permissions."""
    statement = "SELECT id FROM roles WHERE id = ANY($1) ORDER BY jsonb_array_length(spec->'permissions') LIMIT 1"
    (row,) = await fetch(house, statement, list((await held(house, who)).own_roles))
    return global_id("OwnRole", row["id"])


async def counted(house: House, who: Credential) -> list[Any]:
    """What a grant would add to."""
    tables = ("members", "member_own_roles", "member_roles", "api_keys", "roles")
    counts = ", ".join(f"(SELECT count(*) FROM {table} WHERE tenant_id = $1)" for table in tables)
    return await fetch(house, f"SELECT {counts}", who.tenant)


# Puppets


@pytest.mark.parametrize("narrow", NARROW)
async def test_what_one_has_for_ones_own_or_mates_customers_goes_to_no_puppet(house: House, narrow: RoleSpec) -> None:
    who = await house.add_member(WIDE, narrow)
    role, puppet = await narrow_role(house, who), await house.add_member()
    before = await counted(house, who)
    given = [
        await refused(house, who, KEY, o=[role]),
        await refused(house, who, MAKE, e=f"{uuid4().hex}@example.org", o=[role]),
        await refused(house, who, SET, id=id_of(puppet), roles=[], own=[role]),
    ]
    assert given == [["BEYOND_YOUR_RIGHTS"]] * 3
    assert await counted(house, who) == before


@pytest.mark.parametrize("narrow", NARROW)
async def test_a_role_for_some_customers_is_changed_or_copied_by_who_has_it_for_all(
    house: House, narrow: RoleSpec
) -> None:
    who = await house.add_member(WIDE, narrow)
    role = await narrow_role(house, who)
    part = {"scope": "OWN", "levels": [{"class": "GOVERNMENT_ID", "level": "PLAIN"}]}
    before = await fetch(house, "SELECT * FROM roles WHERE tenant_id = $1 ORDER BY id", who.tenant)
    assert await refused(house, who, CREATE, i={"name": uuid4().hex, **part}) == ["BEYOND_YOUR_RIGHTS"]
    assert await refused(house, who, UPDATE, id=role, v=1, i={"name": uuid4().hex}) == ["BEYOND_YOUR_RIGHTS"]
    assert await fetch(house, "SELECT * FROM roles WHERE tenant_id = $1 ORDER BY id", who.tenant) == before


@pytest.mark.parametrize("narrow", NARROW)
async def test_no_puppets_secret_is_to_be_had_by_rotation(house: House, narrow: RoleSpec) -> None:
    who, owner = await house.add_member(WIDE, narrow), house.members["acme"][Role.OWNER]
    made = await done(house, owner, KEY, o=[await narrow_role(house, who)])
    before = await counted(house, who)
    assert await refused(house, who, ROTATE, id=made["apiKey"]["id"]) == ["BEYOND_YOUR_RIGHTS"]
    assert await counted(house, who) == before


@pytest.mark.parametrize("narrow", NARROW)
async def test_nobody_lets_a_puppet_in_again(house: House, narrow: RoleSpec) -> None:
    who, owner = await house.add_member(WIDE, narrow), house.members["acme"][Role.OWNER]
    puppet = await house.add_member(narrow)
    await done(house, owner, DISABLE, id=id_of(puppet))
    assert await refused(house, who, ENABLE, id=id_of(puppet)) == ["BEYOND_YOUR_RIGHTS"]
    assert not (await held(house, puppet)).is_active


async def test_who_has_it_for_all_gives_it_for_some(house: House) -> None:
    full = RoleSpec(Grants(WIDE.grants.permissions, {**WIDE.grants.levels, **SEES}))
    who, target = await house.add_member(full), await house.add_member(*NARROW)
    roles = [global_id("OwnRole", role) for role in (await held(house, target)).own_roles]
    await done(house, house.members["acme"][Role.OWNER], SET, id=id_of(target), roles=[], own=[])
    assert (await done(house, who, SET, id=id_of(target), roles=[], own=roles))["userErrors"] == []
    assert (await done(house, who, KEY, o=roles))["secret"] is not None


async def test_who_has_spent_the_budget_makes_no_keys_that_have_not(house: House) -> None:
    slug = f"puppets-{uuid4().hex[:8]}"
    await house.add_tenant(slug)
    await house.create(tenant=slug, emails=["p@example.org"])
    plain = Grants(frozenset({READ, Permission.API_KEYS_MANAGE}), {Sensitivity.CONTACT: Level.PLAIN})
    who = await house.add_member(RoleSpec(plain), tenant=slug)
    role, before = await narrow_role(house, who), await counted(house, who)
    await done(house, house.members[slug][Role.OWNER], TENANT, b=1)
    page = "{ customers { nodes { emails } } }"
    shown = [(await ask(house, who, page))["data"]["customers"]["nodes"] for _ in range(2)]
    (error,) = (await done(house, who, KEY, o=[role]))["userErrors"]
    assert shown == [[{"emails": ["p@example.org"]}], [{"emails": ["•••"]}]]
    assert (error["code"], "budget" in error["message"]) == ("BEYOND_YOUR_RIGHTS", True)
    assert await counted(house, who) == before


# Services


async def by(house: House, secret: str, document: str, **variables: Any) -> list[str]:
    """The codes of the refusal that a key is answered with."""
    headers = {"authorization": f"Bearer {secret}"}
    answer = await house.ask(document, variables, role=None, headers=headers)
    return [error["extensions"]["code"] for error in answer["errors"]]


async def test_a_key_does_not_let_its_maker_in_again(house: House) -> None:
    who, owner = await join(house, "acme", [Role.ADMIN]), house.members["acme"][Role.OWNER]
    key = (await done(house, who, KEY, r=["ADMIN"]))["secret"]
    await done(house, owner, DISABLE, id=id_of(who))
    assert await by(house, key, ENABLE, id=id_of(who)) == ["FORBIDDEN"]
    assert not (await held(house, who)).is_active


async def test_a_service_gives_nobody_any_rights(house: House) -> None:
    owner, target = house.members["acme"][Role.OWNER], await join(house, "acme")
    made = await done(house, owner, KEY, r=["OWNER"])
    before = await counted(house, owner)
    acts: list[tuple[str, dict[str, Any]]] = [
        (KEY, {"r": ["ANALYST"]}),
        (ROTATE, {"id": made["apiKey"]["id"]}),
        (INVITE, {"e": f"{uuid4().hex}@example.org", "n": "Mia", "r": ["ANALYST"]}),
        (SET, {"id": id_of(target), "roles": ["ANALYST"], "own": []}),
        (CREATE, {"i": {"name": uuid4().hex}}),
        (TENANT, {"b": None}),
        (RESET, {"id": id_of(target)}),
    ]
    assert [await by(house, made["secret"], document, **sent) for document, sent in acts] == [["FORBIDDEN"]] * 7
    assert await counted(house, owner) == before


# Races


async def test_inviting_again_changes_nobody_who_accepts_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor, _ = await invited(house, Role.MANAGER)
    token, lock = await link_of(visitor), invitations._lock_invited

    async def late(*arguments: Any) -> Any:
        assert await accept(house, token) == "acme"
        return await lock(*arguments)

    monkeypatch.setattr(invitations, "_lock_invited", late)
    again = await house.data(INVITE, {"e": visitor.email, "n": "Other", "r": ["ANALYST"]})
    assert [error["code"] for error in again["inviteMember"]["userErrors"]] == ["MEMBER_EXISTS"]
    assert await visitor.sign_in() == "IN"
    assert await visitor.data("{ me { name roles } }") == {"name": "Nina New", "roles": ["MANAGER"]}


async def test_of_inviting_again_and_accepting_at_once_one_counts(house: House) -> None:
    visitor, _ = await invited(house, Role.MANAGER)
    token = await link_of(visitor)
    sent = {"e": visitor.email, "n": "Other", "r": ["ANALYST"]}
    again, accepted = await asyncio.gather(house.data(INVITE, sent), accept(house, token))
    is_again = again["inviteMember"]["userErrors"] == []
    assert accepted == (["TOKEN_REFUSED"] if is_again else "acme")
    roles = {Role.ANALYST} if is_again else {Role.MANAGER}
    assert (await held(house, Credential(house.tenants["acme"].id, visitor.member))).roles == roles


async def test_a_session_begun_beside_the_shutting_out_is_not_there_again(house: House) -> None:
    who, owner = await join(house, "acme", [Role.AGENT]), house.members["acme"][Role.OWNER]
    async with house.api.units.enter(who.tenant, None, write=True) as unit:
        under = await sessions.begin(unit, who.principal, Method.OIDC)  # commits once the member is disabled
        await done(house, owner, DISABLE, id=id_of(who))
    await done(house, owner, ENABLE, id=id_of(who))
    assert await refused(house, under, "{ me { id } }") == ["UNAUTHENTICATED"]
    (row,) = await fetch(house, "SELECT ended_why FROM member_sessions WHERE id = $1", under.session)
    assert row["ended_why"] == "MEMBER_DISABLED"


# Bigger members


async def test_a_service_is_no_owner_that_a_tenant_is_left_with(house: House) -> None:
    slug = f"sole-{uuid4().hex[:8]}"
    await house.add_tenant(slug)
    owner = house.members[slug][Role.OWNER]
    await join(house, slug, [Role.OWNER], kind=SERVICE)
    async with house.api.units.enter(owner.tenant, None, write=False) as unit:
        assert not await rights.has_other_owner(unit, owner.principal)
    await join(house, slug, [Role.OWNER])
    async with house.api.units.enter(owner.tenant, None, write=False) as unit:
        assert await rights.has_other_owner(unit, owner.principal)


async def governor(house: House, spec: RoleSpec) -> Visitor:
    """Signed in with a second factor, by a role of the tenant's own."""
    visitor, holder = await guarded(house), await house.add_member(spec)
    own = [global_id("OwnRole", role) for role in (await held(house, holder)).own_roles]
    target = global_id("Member", visitor.member)
    assert (await done(house, house.members["acme"][Role.OWNER], SET, id=target, roles=[], own=own))["member"]
    return visitor


async def test_nobody_opens_the_account_of_a_governor_who_has_more(house: House) -> None:
    big, admin = await governor(house, RoleSpec(BUILT_IN[Role.OWNER])), house.members["acme"][Role.ADMIN]
    target = global_id("Member", big.member)
    assert await refused(house, admin, RESET, id=target) == ["FORBIDDEN"]
    assert await big.sign_in() == "SECOND_FACTOR_REQUIRED"
    assert (await done(house, house.members["acme"][Role.OWNER], RESET, id=target))["isRemoved"]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MANAGER, Role.AUDITOR])
async def test_administrators_open_the_accounts_of_their_like_and_of_who_does_not_govern(
    house: House, role: Role
) -> None:
    lost = await guarded(house, role)
    reset = await done(house, house.members["acme"][Role.ADMIN], RESET, id=global_id("Member", lost.member))
    assert (reset["isRemoved"], await lost.sign_in()) == (True, "IN")


async def test_who_governs_less_neither_shuts_out_nor_strips_nor_signs_out_who_governs_more(house: House) -> None:
    small = await house.add_member(RoleSpec(Grants(frozenset({Permission.MEMBERS_MANAGE, Permission.MEMBERS_READ}))))
    big = await a_visitor(house, Role.ADMIN)
    target = Credential(house.tenants["acme"].id, big.member)
    (mine,) = (await big.data("{ sessions { nodes { id } } }"))["nodes"]
    told = [
        await refused(house, small, DISABLE, id=id_of(target)),
        await refused(house, small, SET, id=id_of(target), roles=[], own=[]),
        await refused(house, small, RESET, id=id_of(target)),
        await refused(house, small, END, id=mine["id"]),
    ]
    assert told == [["FORBIDDEN"]] * 4
    assert await big.is_in()
    after = await held(house, target)
    assert (after.roles, after.status) == (frozenset({Role.ADMIN}), "ACTIVE")


async def test_who_governs_less_still_looks_after_who_does_not_govern(house: House) -> None:
    small = await house.add_member(RoleSpec(Grants(frozenset({Permission.MEMBERS_MANAGE, Permission.MEMBERS_READ}))))
    visitor = await a_visitor(house, Role.MANAGER)
    (session,) = (await visitor.data("{ sessions { nodes { id } } }"))["nodes"]
    assert (await done(house, small, END, id=session["id"]))["endedId"] == session["id"]
    assert (await done(house, small, DISABLE, id=global_id("Member", visitor.member)))["member"]["status"] == "DISABLED"


async def test_an_owners_session_only_an_owner_ends(house: House) -> None:
    owner = await a_visitor(house, Role.OWNER)
    (session,) = (await owner.data("{ sessions { nodes { id } } }"))["nodes"]
    assert await refused(house, house.members["acme"][Role.ADMIN], END, id=session["id"]) == ["FORBIDDEN"]
    assert await owner.is_in()
    await done(house, house.members["acme"][Role.OWNER], END, id=session["id"])
    assert not await owner.is_in()
