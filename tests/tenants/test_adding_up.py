"""Roles add up per relation of a customer to its viewer, and to no more than each of them grants there."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tenants.access import (
    SPECS,
    Access,
    Grants,
    Level,
    Permission,
    Relation,
    Role,
    RoleSpec,
    Scope,
    SearchRight,
    Sensitivity,
)

FIELDS = ["birth_date", "emails", "note"]
SCOPED = [Relation.OTHER, Relation.TEAM, Relation.OWN]
COVERED = {Scope.ALL: set(SCOPED), Scope.TEAM: {Relation.TEAM, Relation.OWN}, Scope.OWN: {Relation.OWN}}


def levels(of: st.SearchStrategy[object]) -> st.SearchStrategy[dict[object, Level]]:
    return st.dictionaries(of, st.sampled_from(Level))


GRANTS = st.builds(
    Grants,
    permissions=st.frozensets(st.sampled_from(Permission)),
    levels=levels(st.sampled_from(Sensitivity)),
    searches=st.frozensets(st.sampled_from(SearchRight)),
    writes=st.frozensets(st.sampled_from(Sensitivity)),
    fields=levels(st.sampled_from(FIELDS)),
    field_writes=st.frozensets(st.sampled_from(FIELDS)),
)
OWN = st.builds(Grants, levels=levels(st.sampled_from(Sensitivity)), fields=levels(st.sampled_from(FIELDS)))
SPEC = st.builds(RoleSpec, GRANTS, st.sampled_from(Scope), OWN) | st.sampled_from(list(SPECS.values()))
MANY = st.lists(SPEC, max_size=4)


@given(MANY, st.sampled_from(SCOPED), st.sampled_from(Sensitivity), st.sampled_from(FIELDS))
def test_a_level_is_the_highest_of_the_roles_that_reach_so_far(
    specs: list[RoleSpec], relation: Relation, sensitivity: Sensitivity, name: str
) -> None:
    reaching = [spec for spec in specs if relation in COVERED[spec.scope]]
    grants = [spec.grants for spec in reaching] + [spec.own for spec in reaching if relation is Relation.OWN]
    wanted = max((each.level(sensitivity, name) for each in grants), default=Level.HIDDEN)
    assert Access.of(specs).on[relation].level(sensitivity, name) == wanted


@given(MANY, st.sampled_from(SCOPED))
def test_rights_are_those_of_the_roles_that_reach_so_far(specs: list[RoleSpec], relation: Relation) -> None:
    reaching, together = [s.grants for s in specs if relation in COVERED[s.scope]], Access.of(specs).on[relation]
    assert together.permissions == {each for grants in reaching for each in grants.permissions}
    assert together.searches == {each for grants in reaching for each in grants.searches}
    assert together.writes == {each for grants in reaching for each in grants.writes}


@given(MANY, st.sampled_from(Relation), st.sampled_from(Sensitivity), st.sampled_from(FIELDS))
def test_capped_rights_show_nothing_in_plain_and_are_else_the_same(
    specs: list[RoleSpec], relation: Relation, sensitivity: Sensitivity, name: str
) -> None:
    full = Access.of(specs)
    capped = full.capped()
    assert capped.on[relation].level(sensitivity, name) == min(full.on[relation].level(sensitivity, name), Level.MASKED)
    assert capped.on[relation].permissions == full.on[relation].permissions


@given(SPEC)
def test_a_stored_role_grants_what_it_granted(spec: RoleSpec) -> None:
    stored = RoleSpec.load(spec.dump())
    for before, after in zip(Access.of([spec]).on, Access.of([stored]).on, strict=True):
        assert (after.permissions, after.searches) == (before.permissions, before.searches)
        assert (after.writes, after.field_writes) == (before.writes, before.field_writes)
        for each, name in product(Sensitivity, FIELDS):
            assert after.level(each, name) == before.level(each, name)


def test_a_name_that_this_version_does_not_know_grants_nothing() -> None:
    stored = RoleSpec().dump() | {"permissions": ["EVERYTHING"], "levels": {"SOUL": "PLAIN"}, "searches": ["SOUL"]}
    assert RoleSpec.load(stored) == RoleSpec()


def test_built_in_roles_treat_all_customers_alike() -> None:
    assert all(Access.of([SPECS[role]]).is_uniform for role in Role)
