"""The HTTP edge: media types, statuses and refusals, and the proof that nothing of ours ran for what was refused."""

import json
import os
import re
from collections.abc import AsyncIterator, Awaitable
from typing import cast

import httpx
import orjson
import pytest
from graphql import ExecutionResult, GraphQLSchema, build_schema, execute
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from api.documents import Documents, Prepared, digest_of
from api.http import GraphQLEndpoint
from api.limits import Limits
from api.requests import LEGACY, MODERN, GraphQLRequest
from api.scalars import harden
from crypto.errors import CofferError

SOAK = os.environ.get("COFFER_SOAK") == "1"
LIMITS = Limits(body_bytes=200_000)
SCHEMA: GraphQLSchema = build_schema(
    """
    type Query { hello(name: String, age: Int, kind: Kind): String  fails: String  busy: String!  huge: String }
    type Mutation { wave: String }
    type Subscription { waves: String }
    enum Kind { PERSON }
    """
)
harden(SCHEMA)


class Unauthenticated(CofferError):
    code = "UNAUTHENTICATED"
    message = "Sign in."


class Busy(CofferError):
    code = "KEY_UNAVAILABLE"
    message = "Try again."
    retryable = True


class House:
    """What lies behind the endpoint; `ran` holds each resolver that was called."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.requests: list[GraphQLRequest] = []
        self.raises: Exception | None = None
        documents = Documents(SCHEMA, LIMITS)
        self.app: ASGIApp = GraphQLEndpoint(
            documents, self.execute, self.identify, lambda viewer: viewer == "developer"
        )

    async def identify(self, request: Request) -> str | None:
        credential = request.headers.get("authorization")
        if credential == "Bearer broken":
            raise RuntimeError("secret")
        if credential not in (None, "Bearer developer"):
            raise Unauthenticated
        return "developer" if credential else None

    async def execute(self, prepared: Prepared, request: GraphQLRequest, viewer: object) -> ExecutionResult:
        self.requests.append(request)
        if self.raises:
            raise self.raises
        name = request.operation_name
        result = execute(SCHEMA, prepared.document, self, variable_values=dict(request.variables), operation_name=name)
        return await result if isinstance(result, Awaitable) else result

    def hello(self, *_: object, name: str = "you", **__: object) -> str:
        self.ran.append("hello")
        return f"hello {name}"

    def wave(self, *_: object) -> str:
        self.ran.append("wave")
        return "waved"

    def fails(self, *_: object) -> str:
        raise ValueError("secret")

    def busy(self, *_: object) -> str:
        raise Busy

    def huge(self, *_: object) -> str:
        return "\ud800"


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(house.app) as made:
        yield made


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://coffer.test")


async def post(client: httpx.AsyncClient, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    sent = {"content-type": LEGACY, "accept": MODERN}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    return await client.post("/graphql", content=content, headers=sent)


def code(response: httpx.Response) -> str:
    """Return the code of the first error, having checked that the answer is a well-formed GraphQL error."""
    error = response.json()["errors"][0]
    assert isinstance(error["message"], str)
    assert error["extensions"]["requestId"] == response.headers["x-request-id"]
    return cast("str", error["extensions"]["code"])


async def test_a_query_is_answered(client: httpx.AsyncClient) -> None:
    response = await post(client, {"query": "query($n: String) { hello(name: $n) }", "variables": {"n": "Ada"}})
    assert response.status_code == 200
    assert response.json() == {"data": {"hello": "hello Ada"}}
    assert response.headers["content-type"] == f"{MODERN}; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, MODERN),
        ("*/*", LEGACY),
        ("application/*", LEGACY),
        (LEGACY, LEGACY),
        (MODERN, MODERN),
        (f"{MODERN}, {LEGACY}", MODERN),
        (f"{LEGACY}, {MODERN}", LEGACY),
        (f"{LEGACY};q=0.5, {MODERN};q=0.9", MODERN),
        (f"{MODERN};q=0, */*", LEGACY),
        (f"{LEGACY};q=0, */*", MODERN),
        (f"{MODERN}; charset=utf-8, {LEGACY}; charset=utf-8", MODERN),
        (f"text/html, {MODERN.upper()}", MODERN),
    ],
)
async def test_the_media_type_is_negotiated(client: httpx.AsyncClient, accept: str | None, expected: str) -> None:
    del client.headers["accept"]
    headers = {"content-type": LEGACY, **({"accept": accept} if accept else {})}
    response = await client.post("/graphql", content=b'{"query": "{ hello }"}', headers=headers)
    assert response.headers["content-type"].startswith(expected + ";")


@pytest.mark.parametrize(
    "accept", ["text/html", f"{LEGACY};q=0", f"{MODERN}; charset=latin-1", f"{LEGACY};q=2", ";;,;"]
)
async def test_an_unknown_media_type_is_not_acceptable(house: House, client: httpx.AsyncClient, accept: str) -> None:
    response = await post(client, {"query": "{ hello }"}, accept=accept)
    assert (response.status_code, code(response)) == (406, "NOT_ACCEPTABLE")
    assert not house.ran


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"query": "{"}, "SYNTAX_ERROR"),
        ({"query": "{ nothing }"}, "VALIDATION_FAILED"),
        ({"query": "{ hello }", "operationName": "other"}, "OPERATION_NOT_FOUND"),
        ({"query": "query($a: Int!) { hello(age: $a) }", "variables": {"a": "x"}}, "BAD_USER_INPUT"),
        ({"query": "query($n: String!) { hello(name: $n) }", "variables": {"n": "a\0"}}, "BAD_USER_INPUT"),
        ({"query": "{ __schema { description } }"}, "INTROSPECTION_DISABLED"),
        ({"query": "subscription { waves }"}, "SUBSCRIPTION_OVER_HTTP"),
        ({"query": "{" + " ".join(f"a{n}: hello" for n in range(31)) + "}"}, "TOO_MANY_FIELDS"),
        ({"query": "{" + " ".join(f"a{n}: hello" for n in range(5_000)) + "}"}, "QUERY_TOO_LONG"),
    ],
)
async def test_a_refused_document_is_400_or_legacy_200(
    house: House, client: httpx.AsyncClient, body: object, expected: str
) -> None:
    modern = await post(client, body)
    legacy = await post(client, body, accept=LEGACY)
    assert (modern.status_code, legacy.status_code) == (400, 200)
    assert code(modern) == code(legacy) == expected
    assert "data" not in modern.json()
    assert "data" not in legacy.json()
    assert not house.ran


DEEP = b"[" * 20_000 + b"]" * 20_000
MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"NONSENSE",
    "cut": b'{"query":',
    "bad UTF-8": b'{"query": "{ hello(name: \\"\xff\\") }"}',
    "byte order mark": b'\xef\xbb\xbf{"query": "{ hello }"}',
    "UTF-16": '{"query": "{ hello }"}'.encode("utf-16"),
    "nested 20,000 deep": b'{"query": "{ hello }", "variables": {"x": ' + DEEP + b"}}",
    "50,000 lists": b'{"query": "{ hello }", "variables": {"x": [[]' + b",[]" * 50_000 + b"]}}",
    "nested 40 deep": b'{"query": "{ hello }", "variables": {"x": ' + b"[" * 40 + b"]" * 40 + b"}}",
    "objects nested 40 deep": b'{"query": "{ hello }", "extensions": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
    "NaN": b'{"query": "{ hello }", "variables": {"x": NaN}}',
    "Infinity": b'{"query": "{ hello }", "variables": {"x": 1e999}}',
    "lone surrogate": b'{"query": "{ hello(name: \\"\\ud800\\") }"}',
    "lone surrogate in a variable": b'{"query": "{ hello }", "variables": {"x": "\\udfff"}}',
    "NUL in the query": b'{"query": "{ hello } #\\u0000"}',
    "a batch": b'[{"query": "{ hello }"}]',
    "a string": b'"{ hello }"',
    "no query": b"{}",
    "a misspelled query": b'{"qeury": "{ hello }"}',
    "query is null": b'{"query": null}',
    "query is a number": b'{"query": 1}',
    "query is an object": b'{"query": {}}',
    "operationName is a number": b'{"query": "{ hello }", "operationName": 1}',
    "variables are a string": b'{"query": "{ hello }", "variables": "{}"}',
    "variables are an array": b'{"query": "{ hello }", "variables": []}',
    "variables are false": b'{"query": "{ hello }", "variables": false}',
    "extensions are a number": b'{"query": "{ hello }", "extensions": 0}',
    "persistedQuery is a string": b'{"query": "{ hello }", "extensions": {"persistedQuery": "x"}}',
}


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_400(house: House, client: httpx.AsyncClient, body: bytes, accept: str) -> None:
    response = await post(client, body, accept=accept)
    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")
    assert not house.requests


async def test_null_parameters_count_as_absent(client: httpx.AsyncClient) -> None:
    body = {"query": "{ hello }", "operationName": None, "variables": None, "extensions": None}
    assert (await post(client, body)).json() == {"data": {"hello": "hello you"}}


async def test_brackets_in_strings_are_not_nesting(client: httpx.AsyncClient) -> None:
    body = {"query": "query($n: String) { hello(name: $n) }", "variables": {"n": '"\\' + "[" * 100}}
    assert (await post(client, body)).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/json; charset=latin-1",
        "application/jsonp",
        "",
    ],
)
async def test_anything_but_json_is_unsupported(house: House, client: httpx.AsyncClient, content_type: str) -> None:
    response = await post(client, {"query": "mutation { wave }"}, content_type=content_type)
    assert (response.status_code, code(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert not house.ran


async def test_a_missing_content_type_is_unsupported(house: House, client: httpx.AsyncClient) -> None:
    response = await client.post("/graphql", content=b'{"query": "{ hello }"}')
    assert response.status_code == 415
    assert not house.ran


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; Charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_json_in_utf8_is_taken(client: httpx.AsyncClient, content_type: str) -> None:
    assert (await post(client, {"query": "{ hello }"}, content_type=content_type)).status_code == 200


async def test_a_compressed_body_is_unsupported(house: House, client: httpx.AsyncClient) -> None:
    response = await post(client, {"query": "{ hello }"}, content_encoding="gzip")
    assert response.status_code == 415
    assert not house.ran


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
async def test_other_methods_are_not_allowed(house: House, client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "/graphql", params={"query": "{ hello }"})
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    assert not house.ran


async def streamed(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


@pytest.mark.parametrize("declared", [None, "10", "999999999", "9" * 5000, "-1", "many"])
async def test_a_body_that_is_too_large_is_413_whatever_its_length_says(
    house: House, client: httpx.AsyncClient, declared: str | None
) -> None:
    headers = {"content-type": LEGACY, **({"content-length": declared} if declared else {})}
    body = b'{"query": "{ hello }"' + b" " * LIMITS.body_bytes + b"}"
    response = await client.post("/graphql", content=streamed(body), headers=headers)
    assert (response.status_code, code(response)) == (413, "BODY_TOO_LARGE")
    assert not house.ran


async def test_a_query_runs_by_get(client: httpx.AsyncClient) -> None:
    query = "query a($n: String) { hello(name: $n) } query b { fails }"
    response = await client.get("/graphql", params={"query": query, "variables": '{"n":"Ada"}', "operationName": "a"})
    assert response.json() == {"data": {"hello": "hello Ada"}}


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
async def test_a_mutation_by_get_is_405_and_does_not_run(house: House, client: httpx.AsyncClient, accept: str) -> None:
    response = await client.get("/graphql", params={"query": "mutation { wave }"}, headers={"accept": accept})
    assert (response.status_code, code(response)) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"
    assert not house.ran


@pytest.mark.parametrize(
    "query",
    [
        "",
        "query=",
        "query=%FF",
        "query=%7Bhello%7D&query=%7Bhello%7D",
        "query=%7Bhello%7D&variables=x",
        "query=%00",
        "&" * 40,
    ],
)
async def test_a_malformed_query_string_is_400(house: House, client: httpx.AsyncClient, query: str) -> None:
    response = await client.get("/graphql?" + query)
    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")
    assert not house.ran


async def test_a_query_string_that_is_too_long_is_414(client: httpx.AsyncClient) -> None:
    response = await client.get("/graphql", params={"query": "{ hello }" + " " * LIMITS.url_bytes})
    assert (response.status_code, code(response)) == (414, "URL_TOO_LONG")


@pytest.mark.parametrize(
    ("inbound", "kept"), [("trace-0001", True), ("short", False), ("has space", False), ("x" * 65, False)]
)
async def test_a_request_id_is_kept_only_when_it_is_safe(client: httpx.AsyncClient, inbound: str, kept: bool) -> None:
    response = await post(client, {"query": "{ hello }"}, x_request_id=inbound)
    assert (response.headers["x-request-id"] == inbound) is kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", response.headers["x-request-id"])


async def test_an_idempotency_key_reaches_the_operation(house: House, client: httpx.AsyncClient) -> None:
    await post(client, {"query": "mutation { wave }"}, idempotency_key="key-1")
    assert house.requests[0].idempotency_key == "key-1"
    assert (await post(client, {"query": "mutation { wave }"}, idempotency_key="a b")).status_code == 400
    assert house.ran == ["wave"]


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
async def test_a_bad_credential_is_401_with_a_challenge(house: House, client: httpx.AsyncClient, accept: str) -> None:
    response = await post(client, {"query": "{ hello }"}, authorization="Bearer stolen", accept=accept)
    assert (response.status_code, code(response)) == (401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert not house.ran


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
async def test_a_credential_refused_by_the_operation_is_401_too(
    house: House, client: httpx.AsyncClient, accept: str
) -> None:
    house.raises = Unauthenticated()
    response = await post(client, {"query": "{ hello }"}, authorization="Bearer developer", accept=accept)
    assert (response.status_code, code(response)) == (401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert not house.ran


async def test_only_those_who_may_introspect_see_the_schema_and_suggestions(client: httpx.AsyncClient) -> None:
    wrong = {"query": "query($k: Kind) { hello(kind: $k) helo }"}
    told = await post(client, wrong, authorization="Bearer developer")
    hidden = await post(client, wrong)
    assert "Did you mean 'hello'" in told.text
    assert "Did you mean" not in hidden.text
    assert (
        await post(client, {"query": "{ __typename __schema { description } }"}, authorization="Bearer developer")
    ).is_success


async def test_a_misspelled_enum_variable_is_told_no_value(client: httpx.AsyncClient) -> None:
    response = await post(client, {"query": "query($k: Kind) { hello(kind: $k) }", "variables": {"k": "PERSONS"}})
    assert code(response) == "BAD_USER_INPUT"
    assert "PERSON" not in response.text


async def test_an_unknown_persisted_query_is_answered_in_json_and_then_learnt(client: httpx.AsyncClient) -> None:
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": digest_of("{ hello }")}}
    missed = await post(client, {"extensions": extensions}, accept=LEGACY)
    assert (missed.status_code, missed.json()["errors"][0]["message"]) == (200, "PersistedQueryNotFound")
    assert code(missed) == "PERSISTED_QUERY_NOT_FOUND"
    assert (await post(client, {"query": "{ hello }", "extensions": extensions})).is_success
    learnt = await client.get("/graphql", params={"extensions": orjson.dumps(extensions).decode()})
    assert learnt.json() == {"data": {"hello": "hello you"}}


@pytest.mark.parametrize(("accept", "status"), [(LEGACY, 200), (MODERN, 400)])
async def test_a_persisted_query_is_missed_learnt_and_found_in_both_media_types(
    client: httpx.AsyncClient, accept: str, status: int
) -> None:
    query = "{ hello } # " + accept
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": digest_of(query).upper()}}
    url = {"extensions": orjson.dumps(extensions).decode()}
    missed = await client.get("/graphql", params=url, headers={"accept": accept})
    assert (missed.status_code, code(missed)) == (status, "PERSISTED_QUERY_NOT_FOUND")
    assert missed.headers["content-type"].startswith(accept)
    learnt = await post(client, {"query": query, "extensions": extensions}, accept=accept)
    found = await client.get("/graphql", params=url, headers={"accept": accept})
    assert learnt.json() == found.json() == {"data": {"hello": "hello you"}}


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
async def test_a_text_under_the_hash_of_another_is_refused_and_not_kept(
    house: House, client: httpx.AsyncClient, accept: str
) -> None:
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": digest_of("{ busy }")}}
    refused = await post(client, {"query": "{ hello }", "extensions": extensions}, accept=accept)
    later = await post(client, {"extensions": extensions}, accept=accept)
    assert (refused.status_code, code(refused)) == (400, "PERSISTED_QUERY_HASH_MISMATCH")
    assert code(later) == "PERSISTED_QUERY_NOT_FOUND"
    assert not house.requests


async def test_a_persisted_mutation_is_not_run_by_get(house: House, client: httpx.AsyncClient) -> None:
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": digest_of("mutation { wave }")}}
    await post(client, {"query": "mutation { wave }", "extensions": extensions})
    house.ran.clear()
    got = await client.get("/graphql", params={"extensions": orjson.dumps(extensions).decode()})
    assert (got.status_code, house.ran) == (405, [])


async def test_a_field_error_leaves_the_rest_of_the_data(client: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        response = await post(client, {"query": "{ hello fails }"})
    assert response.status_code == 200
    assert response.json()["data"] == {"hello": "hello you", "fails": None}
    assert code(response) == "INTERNAL"
    assert "secret" not in response.text + str(logs)


async def test_a_retryable_error_without_data_is_503(client: httpx.AsyncClient) -> None:
    modern = await post(client, {"query": "{ busy }"})
    legacy = await post(client, {"query": "{ busy }"}, accept=LEGACY)
    assert (modern.status_code, modern.headers["retry-after"]) == (503, "1")
    assert legacy.status_code == 200
    assert code(modern) == code(legacy) == "KEY_UNAVAILABLE"
    assert modern.json()["errors"][0]["extensions"]["retryable"] is True


async def test_an_operation_that_cannot_open_is_a_request_error(house: House, client: httpx.AsyncClient) -> None:
    house.raises = Busy()
    response = await post(client, {"query": "{ hello }"})
    assert (response.status_code, code(response)) == (503, "KEY_UNAVAILABLE")
    assert "data" not in response.json()


@pytest.mark.parametrize("accept", [LEGACY, MODERN])
async def test_a_bug_of_ours_is_500_and_tells_nothing(house: House, client: httpx.AsyncClient, accept: str) -> None:
    house.raises = RuntimeError("secret")
    with capture_logs() as logs:
        response = await post(client, {"query": "{ hello }"}, accept=accept)
    assert (response.status_code, code(response)) == (500, "INTERNAL")
    assert logs[0]["request_id"] == response.headers["x-request-id"]
    assert "secret" not in response.text + str(logs)


async def test_a_bug_in_identifying_is_500_and_nothing_ran(house: House, client: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        response = await post(client, {"query": "{ hello }"}, authorization="Bearer broken")
    assert (response.status_code, code(response)) == (500, "INTERNAL")
    assert "secret" not in response.text + str(logs)
    assert not house.ran


async def test_an_answer_that_is_not_json_is_a_bug_of_ours(client: httpx.AsyncClient) -> None:
    with capture_logs():
        response = await post(client, {"query": "{ huge }"})
    assert (response.status_code, code(response)) == (500, "INTERNAL")


async def test_only_listed_origins_may_read_answers(house: House) -> None:
    async with client_of(
        CORSMiddleware(house.app, allow_origins=["https://good.test"], allow_methods=["POST"])
    ) as client:
        good = await post(client, {"query": "{ hello }"}, origin="https://good.test")
        bad = await post(client, {"query": "{ hello }"}, origin="https://bad.test")
    assert good.headers["access-control-allow-origin"] == "https://good.test"
    assert good.headers["vary"] == "Accept, Origin"
    assert "access-control-allow-origin" not in bad.headers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
WORDS = [*"{}()[]:$@!.,#\"'\\ \n\0aé1-", "hello", "name", "query", "fragment", "on", "..."]
QUERIES = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)
BODIES = st.fixed_dictionaries(
    {"query": QUERIES | st.just("query($n: String, $age: Int) { hello(name: $n, age: $age) }") | JSON},
    optional={
        "variables": st.dictionaries(st.sampled_from(["n", "age"]), JSON) | JSON,
        "operationName": JSON,
        "extensions": JSON,
    },
)


@settings(max_examples=5000 if SOAK else 100, deadline=None)
@given(body=st.binary(max_size=200))
async def test_random_bytes_are_never_our_fault(body: bytes) -> None:
    async with client_of(House().app) as client:
        response = await post(client, body)
    assert response.status_code == 400
    assert code(response)


@settings(max_examples=20_000 if SOAK else 200, deadline=None)
@given(body=BODIES)
async def test_random_requests_are_never_our_fault(body: dict[str, object]) -> None:
    async with client_of(House().app) as client:
        response = await post(client, json.dumps(body).encode())
    assert response.status_code < 500
    assert "data" in response.json() or code(response)


@settings(max_examples=5000 if SOAK else 100, deadline=None)
@given(
    accept=st.text(st.sampled_from("*/;,=q01. application/json")), query=st.text(st.sampled_from("query=&%{}hello0f"))
)
async def test_random_headers_and_query_strings_are_never_our_fault(accept: str, query: str) -> None:
    async with client_of(House().app) as client:
        response = await client.get("/graphql?" + query, headers={"accept": accept.strip()})
    assert response.status_code < 500
