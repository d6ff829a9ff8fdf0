"""The built-in roles are the table of design section 5, and several roles add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.access import BUILT_IN, Level, Permission, Relation, Role, SearchRight, Sensitivity, access_of

# Copied as it stands in the design; levels are in the order of the classes (P plain, M masked, H hidden).
DESIGN = """
| OWNER | PPPPPPPP | all | everything; the last one can't be removed |
| ADMIN | MMMHMHHH | none | members, roles (grants only up to its own), keys, backups, webhooks |
| MANAGER | PPPMPMHP | identity, contact, external id | writes all it sees plain, hands over customers |
| AGENT | PMMHMHHH | identity | writes identity, contact, stage, notes |
| ANALYST | HHMHMHHH | none | aggregates |
| AUDITOR | MMMMMMHH | none | audit |
| INTEGRATION | HHHHHHHH | external id | writes |
"""
ROWS = {Role(cells[0]): cells[1:] for line in DESIGN.split("\n") if (cells := line.strip("| ").split(" | "))[1:]}
SEARCHES = {
    "identity": SearchRight.IDENTITY,
    "contact": SearchRight.CONTACT,
    "external id": SearchRight.EXTERNAL_ID,
}
CLASSES = ["IDENTITY", "CONTACT", "LOCATION", "GOVERNMENT_ID", "BIRTH", "FINANCIAL", "HEALTH", "FREE_TEXT"]
READS = {Permission.CUSTOMERS_READ}
EDITS = {
    Permission.CUSTOMERS_WRITE,
    Permission.CUSTOMERS_STAGE,
    Permission.CUSTOMERS_CLASSIFY,
    Permission.CUSTOMERS_ARCHIVE,
}
HOUSE = {
    Permission.CUSTOMERS_HOLD,
    Permission.MEMBERS_READ,
    Permission.MEMBERS_MANAGE,
    Permission.ROLES_MANAGE,
    Permission.API_KEYS_MANAGE,
    Permission.SIGN_ON_MANAGE,
    Permission.TENANT_MANAGE,
    Permission.KEYS_MANAGE,
    Permission.BACKUPS_MANAGE,
    Permission.WEBHOOKS_MANAGE,
    Permission.JOBS_READ,
    Permission.JOBS_MANAGE,
}


def test_the_table_speaks_of_every_role_and_class() -> None:
    assert list(ROWS) == list(Role) == list(BUILT_IN)
    assert list(Sensitivity) == CLASSES


@pytest.mark.parametrize("role", Role)
def test_a_roles_levels_are_those_of_the_design(role: Role) -> None:
    assert "".join(BUILT_IN[role].level(each).name[0] for each in Sensitivity) == ROWS[role][0]


@pytest.mark.parametrize("role", Role)
def test_a_role_searches_by_what_the_design_says(role: Role) -> None:
    said = ROWS[role][1]
    wanted = {"all": set(SearchRight), "none": set()}.get(said) if said in ("all", "none") else None
    assert BUILT_IN[role].searches == (wanted if wanted is not None else {SEARCHES[s] for s in said.split(", ")})


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        (Role.OWNER, set(Permission)),
        (Role.ADMIN, READS | HOUSE),
        (
            Role.MANAGER,
            READS
            | EDITS
            | {
                Permission.CUSTOMERS_HAND_OVER,
                Permission.CUSTOMERS_IMPORT,
                Permission.CUSTOMERS_REVEAL,
                Permission.CUSTOMERS_ERASE,
                Permission.TAGS_MANAGE,
                Permission.MEMBERS_READ,
                Permission.JOBS_READ,
            },
        ),
        (Role.AGENT, READS | {Permission.CUSTOMERS_WRITE, Permission.CUSTOMERS_STAGE, Permission.CUSTOMERS_REVEAL}),
        (Role.ANALYST, READS | {Permission.ANALYTICS_READ}),
        (Role.AUDITOR, READS | {Permission.AUDIT_READ, Permission.MEMBERS_READ, Permission.JOBS_READ}),
        (Role.INTEGRATION, READS | EDITS | {Permission.CUSTOMERS_IMPORT}),
    ],
    ids=lambda value: value if isinstance(value, Role) else "",
)
def test_a_roles_permissions_are_those_of_the_design(role: Role, wanted: set[Permission]) -> None:
    assert BUILT_IN[role].permissions == wanted


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        (Role.OWNER, set(Sensitivity)),
        (Role.ADMIN, set()),
        (Role.AGENT, {Sensitivity.IDENTITY, Sensitivity.CONTACT, Sensitivity.FREE_TEXT}),
        (Role.ANALYST, set()),
        (Role.AUDITOR, set()),
        (Role.INTEGRATION, set(Sensitivity)),
    ],
    ids=lambda value: value if isinstance(value, Role) else "",
)
def test_a_role_writes_the_classes_of_the_design(role: Role, wanted: set[Sensitivity]) -> None:
    assert BUILT_IN[role].writes == wanted


def test_a_manager_writes_all_it_sees_plain() -> None:
    manager = BUILT_IN[Role.MANAGER]
    assert manager.writes == {each for each in Sensitivity if manager.level(each) is Level.PLAIN}


@given(st.frozensets(st.sampled_from(Role)), st.sampled_from(Sensitivity))
def test_roles_add_up_and_give_nothing_of_their_own(roles: frozenset[Role], sensitivity: Sensitivity) -> None:
    together, each = access_of(roles).on[Relation.NONE], [BUILT_IN[role] for role in roles]
    assert together.permissions == {p for grants in each for p in grants.permissions}
    assert together.searches == {s for grants in each for s in grants.searches}
    assert together.writes == {w for grants in each for w in grants.writes}
    assert together.level(sensitivity) == max((g.level(sensitivity) for g in each), default=Level.HIDDEN)
