"""Errors tell clients what they may know, and no value of theirs or ours comes back in one or lands in a log."""

from typing import Any, ClassVar

import pytest
from graphql import (
    GraphQLError,
    GraphQLScalarType,
    build_schema,
    graphql_sync,
)
from structlog.testing import capture_logs

from api.documents import Documents, RequestRefused
from api.errors import to_graphql, without_source, without_values
from api.limits import Limits
from crypto.errors import CofferError

SECRET = "ada@lovelace.example"


class NotFound(CofferError):
    code = "NOT_FOUND"
    message = "There is no such customer."


class Busy(CofferError):
    code = "BUSY"
    message = "Try again."
    retryable: ClassVar[bool] = True


def refuse_loudly(value: object) -> object:
    raise GraphQLError(f"{value} is no date")


SCHEMA = build_schema(
    """
    type Query { find(by: By, kind: Kind, age: Int, on: Date, list: [Int!]): String  number: Int }
    input By { email: String!, one: By, age: Int }
    enum Kind { PERSON COMPANY }
    scalar Date
    """
)
date = SCHEMA.type_map["Date"]
assert isinstance(date, GraphQLScalarType)
date.parse_value = refuse_loudly  # type: ignore[method-assign]
date.coerce_input_value = refuse_loudly


def formatted(find: Any, query: str = "{ find }", **variables: object) -> list[Any]:
    result = graphql_sync(SCHEMA, query, {"find": find, "number": find}, variable_values=variables)
    return [to_graphql(error, "request-1") for error in result.errors or []]


def raising(error: Exception) -> Any:
    def find(*_: object, **__: object) -> str:
        raise error

    return find


def test_an_error_of_ours_keeps_its_message_and_code() -> None:
    (error,) = formatted(raising(NotFound()))
    assert error["message"] == "There is no such customer."
    assert error["extensions"] == {"code": "NOT_FOUND", "requestId": "request-1"}
    assert error["path"] == ["find"]


def test_a_retryable_error_says_so() -> None:
    (error,) = formatted(raising(Busy()))
    assert error["extensions"] == {"code": "BUSY", "retryable": True, "requestId": "request-1"}


def test_an_error_with_a_code_is_passed_on() -> None:
    (error,) = formatted(raising(GraphQLError("Pick one.", extensions={"code": "PICK"})))
    assert (error["message"], error["extensions"]["code"]) == ("Pick one.", "PICK")


@pytest.mark.parametrize("bug", [ValueError(SECRET), GraphQLError(SECRET), KeyError(SECRET)])
def test_any_other_error_is_internal_and_logged_once_without_values(bug: Exception) -> None:
    with capture_logs() as logs:
        (error,) = formatted(raising(bug))
    assert (error["message"], error["extensions"]["code"]) == ("Internal error", "INTERNAL")
    assert len(logs) == 1
    assert logs[0]["request_id"] == "request-1"
    assert any("test_errors.py" in frame for frame in logs[0]["frames"])
    assert SECRET not in str(logs)


def test_causes_are_logged_by_type_alone() -> None:
    bug = RuntimeError("outer")
    bug.__cause__ = ValueError(SECRET)
    with capture_logs() as logs:
        formatted(raising(bug))
    assert logs[0]["exceptions"] == ["builtins.RuntimeError", "builtins.ValueError"]


def test_a_serializer_that_quotes_its_value_is_masked() -> None:
    with capture_logs() as logs:
        (error,) = formatted(SECRET, "{ number }")
    assert error["message"] == "Internal error"
    assert SECRET not in str(logs)


WRONG_VARIABLES: list[tuple[str, object]] = [
    ("By", {"age": SECRET}),
    ("By", SECRET),
    ("By", {"email": "x", SECRET: 1}),
    ("By", {"email": "x", "emial": SECRET}),
    ("By", {"email": "x", "one": {"email": [SECRET]}}),
    ("Kind", SECRET),
    ("Kind", [SECRET]),
    ("Int", SECRET),
    ("Date", SECRET),
    ("[Int!]", [1, SECRET]),
]
ARGUMENT = {"By": "by", "Kind": "kind", "Int": "age", "Date": "on", "[Int!]": "list"}


@pytest.mark.parametrize(("kind", "value"), WRONG_VARIABLES)
def test_a_wrong_variable_is_named_and_not_quoted(kind: str, value: object) -> None:
    errors = formatted(None, f"query($x: {kind}) {{ find({ARGUMENT[kind]}: $x) }}", x=value)
    assert errors
    assert all(error["message"].startswith("Variable '$x' has invalid value") for error in errors)
    assert all(error["extensions"]["code"] == "BAD_USER_INPUT" for error in errors)
    assert "lovelace" not in str(errors)


LITERALS = [
    f'{{ find(by: {{ age: "{SECRET}" }}) }}',
    f'{{ find(by: "{SECRET}") }}',
    f'{{ find(kind: "{SECRET}") }}',
    "{ find(kind: lovelace) }",
    f'{{ find(age: "{SECRET}") }}',
    f'{{ find(on: "{SECRET}") }}',
    f'query($x: Int = "{SECRET}") {{ find(age: $x) }}',
    f'{{ find "{SECRET}" }}',
    f'{{ find(age: "{SECRET}) }}',
    f'{{ find(age: """{SECRET}""" }}',
    f"{SECRET} {{ find }}",
    "query($x: Int = $lovelace) { find(age: $x) }",
]


@pytest.mark.parametrize("query", LITERALS)
def test_a_wrong_literal_is_not_quoted(query: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        Documents(SCHEMA, Limits()).prepare(query, None, None, may_introspect=True)
    errors = [to_graphql(error, "request-1") for error in refused.value.errors]
    assert "lovelace" not in str(errors)
    assert all(error["extensions"]["code"] in ("SYNTAX_ERROR", "VALIDATION_FAILED") for error in errors)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("Variable '$x' has invalid value at .a[0]: Int cannot represent non-integer value: 'v'", None),
        ("Variable '$x' has invalid value: Expected value of type 'By!' to be an object, found: 'v'.", None),
        ("Value 'v' does not exist in 'Kind' enum.", "Value does not exist in 'Kind' enum."),
        ("v is no date", "The value is not valid."),
        (
            "Variable '$x' has invalid value: A DateTime is RFC 3339 with an offset: 2026-01-31T09:00:00Z.",
            "Variable '$x' has invalid value: A DateTime is RFC 3339 with an offset: 2026-01-31T09:00:00Z.",
        ),
        ("Int cannot represent v", "The value is not valid."),
    ],
)
def test_a_coercion_message_keeps_what_we_know(message: str, kept: str | None) -> None:
    assert without_values(message) == (kept or message.split(", found")[0].split(": 'v'")[0] + ".")


def test_a_syntax_error_keeps_the_kinds_of_tokens() -> None:
    assert (
        without_source("Syntax Error: Expected Name, found String 'v'.") == "Syntax Error: Expected Name, found String."
    )
    assert without_source("Syntax Error: anything else") == "Syntax Error."
