"""Documents are parsed, validated and remembered; strings no store can keep stop at the schema's edge."""

import pytest
from graphql import (
    GraphQLError,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
    get_introspection_query,
    graphql_sync,
    print_schema,
)

from api.documents import Documents, RequestRefused, digest_of, without_suggestions
from api.limits import Limits
from api.scalars import FORMS, harden

SDL = """
    type Query { customer(id: ID, name: String, by: By, ids: [ID!]): String  email: String }
    type Mutation { rename(name: String!): String  forget: String }
    type Subscription { changed: String }
    input By { names: [String!] }
"""
SCHEMA = build_schema(SDL)


@pytest.fixture
def documents() -> Documents:
    return Documents(SCHEMA, Limits(), remembered=3)


def refused(documents: Documents, query: str, name: str | None = None, may_introspect: bool = False) -> GraphQLError:
    with pytest.raises(RequestRefused) as caught:
        documents.prepare(query, name, None, may_introspect=may_introspect)
    return caught.value.errors[0]


def code(error: GraphQLError) -> object:
    return (error.extensions or {}).get("code")


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("{ email }", "query"),
        ('mutation { rename(name: "x") }', "mutation"),
        ("subscription { changed }", "subscription"),
    ],
)
def test_an_operation_tells_its_kind(documents: Documents, query: str, kind: str) -> None:
    assert documents.prepare(query, None, None, may_introspect=False).kind == kind


def test_what_comes_alone_is_refused_beside_others_and_not_beside_itself() -> None:
    documents = Documents(SCHEMA, Limits(), apart=frozenset({"Mutation.rename"}))
    twice = 'mutation { a: rename(name: "x") b: rename(name: "y") }'
    assert documents.prepare(twice, None, None, may_introspect=False).kind == "mutation"
    beside = 'mutation { ...F forget } fragment F on Mutation { rename(name: "x") }'
    assert code(refused(documents, beside)) == "BAD_USER_INPUT"
    assert "rename" in refused(documents, beside).message


def dated() -> GraphQLSchema:
    """Whose scalars refuse everything, loudly."""
    schema = build_schema("scalar DateTime scalar Date type Query { usage(from: DateTime, on: Date): String }")
    for name in FORMS:
        scalar = schema.type_map[name]
        assert isinstance(scalar, GraphQLScalarType)
        scalar.parse_value = refuse_loudly  # type: ignore[method-assign]
    harden(schema)
    return schema


def refuse_loudly(value: object) -> object:
    raise GraphQLError(f"{value} is no date")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ('{ usage(from: "SECRET") }', FORMS["DateTime"]),
        ("{ usage(from: 7) }", FORMS["DateTime"]),
        ('{ usage(on: "SECRET") }', FORMS["Date"]),
    ],
)
def test_a_date_that_is_none_is_told_its_form_and_place(query: str, sentence: str) -> None:
    error = refused(Documents(dated(), Limits()), query)
    assert error.message == f"{sentence}."
    assert [(each.line, each.column) for each in error.locations or ()] == [(1, query.index(":") + 3)]


def test_the_named_operation_is_chosen(documents: Documents) -> None:
    prepared = documents.prepare("query a { email } query b { email }", "b", None, may_introspect=False)
    assert prepared.operation.name is not None
    assert prepared.operation.name.value == "b"


@pytest.mark.parametrize(
    ("query", "name", "expected"),
    [
        ("{", None, "SYNTAX_ERROR"),
        ("", None, "SYNTAX_ERROR"),
        ("{ nothing }", None, "VALIDATION_FAILED"),
        ("query a { email } query b { email }", None, "OPERATION_NOT_FOUND"),
        ("query a { email }", "b", "OPERATION_NOT_FOUND"),
        ("fragment f on Query { email }", None, "VALIDATION_FAILED"),
        ("type Query { email: String }", None, "VALIDATION_FAILED"),
    ],
)
def test_a_wrong_document_is_refused_with_its_code(
    documents: Documents, query: str, name: str | None, expected: str
) -> None:
    assert code(refused(documents, query, name)) == expected


@pytest.mark.parametrize(
    "query",
    [
        get_introspection_query(),
        '{ __type(name: "By") { name } }',
        "{ email ...f } fragment f on Query { __schema { __typename } }",
    ],
)
def test_introspection_needs_the_right_even_when_remembered(documents: Documents, query: str) -> None:
    assert code(refused(documents, query)) == "INTROSPECTION_DISABLED"
    documents.prepare(query, None, None, may_introspect=True)
    assert code(refused(documents, query)) == "INTROSPECTION_DISABLED"


def test_typename_is_open_to_all(documents: Documents) -> None:
    assert documents.prepare("{ __typename }", None, None, may_introspect=False)


@pytest.mark.parametrize(
    "query", ["{ emial }", "{ customer(nam: 1) }", "query($x: Strin) { customer(name: $x) }", "{ emails }"]
)
def test_suggestions_go_only_to_those_who_may_introspect(documents: Documents, query: str) -> None:
    assert "did you mean" not in refused(documents, query).message.lower()
    assert "did you mean" in refused(documents, query, may_introspect=True).message.lower()


def test_a_suggestion_is_cut_from_any_error() -> None:
    error = GraphQLError("Cannot query field 'emial' on type 'Query'. Did you mean 'email'?", extensions={"code": "X"})
    assert without_suggestions(error).message == "Cannot query field 'emial' on type 'Query'."
    assert code(without_suggestions(error)) == "X"


def test_a_document_is_remembered_by_its_text(documents: Documents) -> None:
    first = documents.prepare("{ email }", None, None, may_introspect=False)
    assert documents.prepare("{ email }", None, None, may_introspect=True).document is first.document
    assert documents.recall(digest_of("{ email }")) == "{ email }"


def test_the_least_recently_used_document_is_forgotten(documents: Documents) -> None:
    for query in ("query a { email }", "query b { email }", "query c { email }"):
        documents.prepare(query, None, None, may_introspect=False)
    documents.prepare("query a { email }", None, None, may_introspect=False)
    documents.prepare("query d { email }", None, None, may_introspect=False)
    assert documents.recall(digest_of("query a { email }"))
    with pytest.raises(RequestRefused):
        documents.recall(digest_of("query b { email }"))


def test_memory_is_bounded_by_characters() -> None:
    documents = Documents(SCHEMA, Limits(), remembered_characters=20)
    documents.prepare("{ email }", None, None, may_introspect=False)
    documents.prepare("{ email   email }", None, None, may_introspect=False)
    with pytest.raises(RequestRefused) as caught:
        documents.recall(digest_of("{ email }"))
    assert caught.value.errors[0].message == "PersistedQueryNotFound"


def test_a_refused_document_is_not_remembered(documents: Documents) -> None:
    refused(documents, "{ nothing }")
    with pytest.raises(RequestRefused):
        documents.recall(digest_of("{ nothing }"))


STRICT = build_schema(SDL)
harden(STRICT)
TYPES = {"id": "ID", "name": "String", "by": "By", "ids": "[ID!]"}


@pytest.mark.parametrize("bad", ["a\0", "\ud800", "\udfff"])
@pytest.mark.parametrize(("argument", "wrap"), [("id", "%"), ("name", "%"), ("by", {"names": "%"}), ("ids", ["%"])])
def test_a_variable_with_nul_or_a_lone_surrogate_is_refused(argument: str, wrap: object, bad: str) -> None:
    value = {"%": bad}.get(str(wrap)) or ([bad] if isinstance(wrap, list) else {"names": [bad]})
    query = f"query($x: {TYPES[argument]}) {{ customer({argument}: $x) }}"
    ran: list[object] = []
    result = graphql_sync(STRICT, query, {"customer": lambda *_, **__: ran.append(1)}, variable_values={"x": value})
    assert result.errors
    assert "cannot hold NUL or a lone surrogate" in result.errors[0].message
    assert not ran


@pytest.mark.parametrize(
    "argument", ['id: "\\u0000"', 'name: "\\u0000"', 'by: { names: "\\u0000" }', 'ids: ["\\u0000"]']
)
def test_a_literal_with_nul_is_refused(argument: str) -> None:
    error = refused(Documents(STRICT, Limits()), "{ customer(" + argument + ") }")
    assert "cannot hold NUL or a lone surrogate" in error.message


def test_hardening_leaves_other_schemas_and_the_sdl_alone() -> None:
    assert not graphql_sync(SCHEMA, '{ customer(name: "\\u0000") }').errors
    assert print_schema(STRICT) == print_schema(SCHEMA)


@pytest.mark.parametrize("value", ["Grüße \U0001f600", "", 7])
def test_good_ids_and_names_pass_as_before(value: object) -> None:
    query = "query($id: ID, $name: String!) { customer(id: $id, name: $name) }"
    result = graphql_sync(
        STRICT, query, {"customer": lambda _, id, name: id + name}, variable_values={"id": value, "name": "x"}
    )
    assert result.data == {"customer": f"{value}x"}


def test_introspection_still_works_on_a_hardened_schema() -> None:
    query = "query($n: String!) { __type(name: $n) { name } }"
    assert graphql_sync(STRICT, query, variable_values={"n": "By"}).data == {"__type": {"name": "By"}}
    assert not graphql_sync(STRICT, get_introspection_query()).errors
