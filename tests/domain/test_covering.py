"""What is beyond somebody's rights, as rules over any grants; and that a giver's own customers are no measure."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from domain import granting
from domain.customers import FIELDS
from domain.customers.covering import beyond, covers
from domain.granting import Giver
from tenants.access import (
    BUILT_IN,
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
from tests.tenants.test_adding_up import MANY, SCOPED, levels

NAMES = sorted(FIELDS)
GRANTS = st.builds(
    Grants,
    permissions=st.frozensets(st.sampled_from(Permission)),
    levels=levels(st.sampled_from(Sensitivity)),
    searches=st.frozensets(st.sampled_from(SearchRight)),
    writes=st.frozensets(st.sampled_from(Sensitivity)),
    fields=levels(st.sampled_from(NAMES)),
    field_writes=st.frozensets(st.sampled_from(NAMES)),
)


@given(GRANTS, GRANTS)
def test_what_is_covered_adds_nothing_for_any_field(mine: Grants, theirs: Grants) -> None:
    if not covers(mine, theirs):
        return
    for name, field in FIELDS.items():
        assert theirs.level(field.sensitivity, name) <= mine.level(field.sensitivity, name)
        assert theirs.may_write(field.sensitivity, name) <= mine.may_write(field.sensitivity, name)
    assert all(theirs.level(each) <= mine.level(each) for each in Sensitivity)
    assert all(theirs.may_write(each) <= mine.may_write(each) for each in Sensitivity)
    assert theirs.permissions <= mine.permissions
    assert theirs.searches <= mine.searches


@given(GRANTS)
def test_one_has_what_one_has(mine: Grants) -> None:
    assert list(beyond(mine, mine)) == []


@given(GRANTS)
def test_nothing_is_beyond_an_owner(theirs: Grants) -> None:
    assert list(beyond(BUILT_IN[Role.OWNER], theirs)) == []


@given(MANY)
def test_what_is_closer_is_granted_no_less(specs: list[RoleSpec]) -> None:
    access = Access.of(specs)
    assert all(covers(access.on[nearer], access.on[farther]) for farther, nearer in pairwise(SCOPED))


@given(MANY, MANY)
def test_more_roles_cover_fewer(some: list[RoleSpec], more: list[RoleSpec]) -> None:
    many, few = Access.of(some + more), Access.of(some)
    assert all(covers(many.on[relation], few.on[relation]) for relation in Relation)


@given(MANY, MANY)
def test_covering_says_that_nothing_would_be_added(mine: list[RoleSpec], theirs: list[RoleSpec]) -> None:
    for held, given_, added in zip(Access.of(mine).on, Access.of(theirs).on, Access.of(mine + theirs).on, strict=True):
        assert covers(held, given_) == (covers(held, added) and covers(added, held))


def test_a_class_covers_its_fields_and_not_the_other_way_round() -> None:
    whole = Grants(levels={Sensitivity.CONTACT: Level.PLAIN}, writes=frozenset({Sensitivity.CONTACT}))
    part = Grants(fields={"emails": Level.PLAIN}, field_writes=frozenset({"emails"}))
    assert (covers(whole, part), covers(part, whole)) == (True, False)
    assert sorted(beyond(part, whole)) == ["CONTACT PLAIN", "write CONTACT"]


def test_a_field_that_is_no_more_is_covered_by_its_name_or_by_all_classes() -> None:
    gone = Grants(fields={"shoe_size": Level.MASKED}, field_writes=frozenset({"shoe_size"}))
    manager, owner = BUILT_IN[Role.MANAGER], BUILT_IN[Role.OWNER]
    assert sorted(beyond(manager, gone)) == ["shoeSize MASKED", "write shoeSize"]
    assert covers(gone, gone)
    assert covers(owner, gone)


@given(MANY, MANY)
def test_what_is_given_for_any_customer_the_giver_has_for_all(mine: list[RoleSpec], theirs: list[RoleSpec]) -> None:
    giver, given_ = Giver(frozenset(), Access.of(mine), is_over_budget=False), Access.of(theirs)
    everybodys, nobodys = giver.access.on[Relation.OTHER], giver.access.on[Relation.NONE]
    is_covered = all(covers(everybodys, given_.on[relation]) for relation in SCOPED)
    assert (granting.lacking(giver, theirs) == []) == (is_covered and covers(nobodys, given_.on[Relation.NONE]))


def test_a_role_for_some_customers_is_given_by_who_has_it_for_all_alone() -> None:
    reads = Grants(frozenset({Permission.CUSTOMERS_READ}), {Sensitivity.CONTACT: Level.PLAIN})
    narrow = [RoleSpec(reads, Scope.OWN), RoleSpec(reads, Scope.TEAM), RoleSpec(own=reads)]
    for role in narrow:
        wide, same = Access.of([RoleSpec(reads)]), Access.of([role])
        assert granting.lacking(Giver(frozenset(), wide, is_over_budget=False), [role]) == []
        assert "CONTACT PLAIN" in granting.lacking(Giver(frozenset(), same, is_over_budget=False), [role])


def test_with_the_budget_spent_nothing_is_given_in_plain() -> None:
    plain = RoleSpec(Grants(levels={Sensitivity.CONTACT: Level.PLAIN}))
    masked = RoleSpec(Grants(levels={Sensitivity.CONTACT: Level.MASKED}))
    giver = Giver(frozenset(), Access.of([plain]), is_over_budget=True)
    assert (granting.lacking(giver, [masked]), granting.lacking(giver, [plain])) == ([], ["CONTACT PLAIN"])
