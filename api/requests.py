"""Reads one HTTP request into a GraphQLRequest, or refuses it; runs nothing and knows no schema."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import orjson
import uuid_utils
from graphql import GraphQLError
from starlette.datastructures import Headers
from starlette.requests import Request

from api.documents import Documents, digest_of
from api.errors import refusal
from api.limits import Limits
from telemetry.traces import traceparent
from tenants.origins import UNKNOWN, Origin, is_purpose
from tenants.signing_in.sessions import NO_DEVICE, Device

LEGACY = "application/json"
MODERN = "application/graphql-response+json"
_LONGEST_AGENT = 300  # characters; the rest tells nothing to a person
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """A well-formed request; `variables` are as the client sent them, not coerced.

    `device` is what it came from, which is personal: it is sealed or dropped.
    """

    query: str
    operation_name: str | None
    variables: Mapping[str, Any]
    extensions: Mapping[str, Any]
    method: str
    request_id: str
    idempotency_key: str | None
    origin: Origin = UNKNOWN
    device: Device = field(default=NO_DEVICE, repr=False)


class HTTPRefused(Exception):
    """An answer that is HTTP's and not GraphQL's: its status holds in both media types."""

    def __init__(self, status: int, error: GraphQLError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.status, self.error, self.headers = status, error, headers or {}


def refuse(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> NoReturn:
    raise HTTPRefused(status, refusal(code, message), headers)


def _bad_request(message: str) -> NoReturn:
    refuse(400, "BAD_REQUEST", message)


def request_id_of(request: Request) -> str:
    inbound = request.headers.get("x-request-id", "")
    return inbound if re.fullmatch(r"[A-Za-z0-9._-]{8,64}", inbound) else str(uuid_utils.uuid7())


def origin_of(headers: Headers, request_id: str) -> Origin:
    """Purpose and trace of a request. A traceparent that is none is passed over, as W3C Trace Context 3.2 asks.

    Where we trace, the trace goes on from our own span.
    """
    purpose, trace = headers.get("coffer-purpose"), headers.get("traceparent", "")
    if purpose is not None and not is_purpose(purpose):
        _bad_request("Coffer-Purpose is a code of up to 40 characters: a-z, 0-9, '.', '_' and '-'.")
    return Origin(request_id, purpose, traceparent() or (trace if _TRACEPARENT.fullmatch(trace) else None))


def negotiate(request: Request) -> str:
    """Choose the media type of the answer (RFC 9110, section 12.5.1).

    No Accept is the modern type, as the draft says since 2025; `*/*` is the legacy one, since those who send it are
    generic clients that read the status of JSON as HTTP's own (graphql-http audit 47DE).
    """
    ranges = [_media_range(each) for each in ",".join(request.headers.getlist("accept")).split(",") if each.strip()]
    if not ranges:
        return MODERN
    quality, _, chosen = max(_preference(media_type, ranges) for media_type in (LEGACY, MODERN))
    if quality <= 0:
        refuse(406, "NOT_ACCEPTABLE", f"Answers are {MODERN} or {LEGACY}, in utf-8.")
    return chosen


def _media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    values = dict(parameter.partition("=")[::2] for parameter in parameters)
    known = re.fullmatch(r"[01](?:\.\d{0,3})?", values.get("q", "1"))
    usable = known is not None and values.get("charset", "utf-8").strip('"') in ("utf-8", "utf8")
    return name, float(values.get("q", "1")) if usable else 0.0


def _preference(media_type: str, ranges: list[tuple[str, float]]) -> tuple[float, float, str]:
    """Quality of the most specific range, then its place in the list; a shared wildcard prefers the legacy type."""
    for wanted in (media_type, "application/*", "*/*"):
        for place, (name, quality) in enumerate(ranges):
            if name == wanted:
                exact = -place if name == media_type else -len(ranges) - (media_type == MODERN)
                return quality, exact, media_type
    return 0.0, 0.0, media_type


async def read(request: Request, request_id: str, documents: Documents) -> GraphQLRequest:
    if request.method == "GET":
        sent = _query_parameters(request, documents.limits)
    elif request.method == "POST":
        _check_content(request)
        sent = json_of(await _body(request, documents.limits.body_bytes), documents.limits, around=1)
    else:
        refuse(405, "METHOD_NOT_ALLOWED", "GraphQL is spoken by GET and POST.", {"allow": "GET, POST"})
    if not isinstance(sent, dict):
        _bad_request("A request is one JSON object; batches are not taken.")
    extensions = object_of(sent, "extensions")
    return GraphQLRequest(
        query=query_of(sent, extensions, documents),
        operation_name=text_of(sent, "operationName") or None,
        variables=object_of(sent, "variables"),
        extensions=extensions,
        method=request.method,
        request_id=request_id,
        idempotency_key=_idempotency_key(request),
        origin=origin_of(request.headers, request_id),
        device=_device_of(request),
    )


def _device_of(request: Request) -> Device:
    """The address is that of the last hop: behind a proxy it is the proxy's."""
    agent = request.headers.get("user-agent", "")[:_LONGEST_AGENT]
    return Device(user_agent=agent or None, address=request.client.host if request.client else None)


def _query_parameters(request: Request, limits: Limits) -> dict[str, Any]:
    raw: bytes = request.scope["query_string"]
    if len(raw) > limits.url_bytes:
        refuse(414, "URL_TOO_LONG", f"A query string holds at most {limits.url_bytes} bytes; use POST.")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        _bad_request("The query string is not URL-encoded UTF-8.")
    sent: dict[str, Any] = dict(pairs)
    if len(sent) != len(pairs):
        _bad_request("A parameter is given twice.")
    for name in ("variables", "extensions"):
        if sent.get(name):
            sent[name] = json_of(sent[name].encode(), limits)
    return {name: value for name, value in sent.items() if value != ""}


def _check_content(request: Request) -> None:
    kinds = request.headers.getlist("content-type")
    name, *parameters = (part.strip().lower() for part in kinds[0].split(";")) if len(kinds) == 1 else ("",)
    charsets = [value.strip('" ') for key, _, value in (each.partition("=") for each in parameters) if key == "charset"]
    if name != LEGACY or any(charset not in ("utf-8", "utf8") for charset in charsets):
        refuse(415, "UNSUPPORTED_MEDIA_TYPE", f"Send {LEGACY} in utf-8.", {"accept-post": LEGACY})
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        # A compressed body could be any size, once it is known.
        refuse(
            415, "UNSUPPORTED_MEDIA_TYPE", "Send the body without a content-encoding.", {"accept-encoding": "identity"}
        )


async def _body(request: Request, limit: int) -> bytes:
    """Read the body and count it meanwhile, since Content-Length may be absent or lie."""
    body = bytearray()
    declared = request.headers.get("content-length", "")
    too_large = declared.isascii() and declared.isdecimal() and (len(declared) > 15 or int(declared) > limit)
    if not too_large:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                too_large = True
                break
    if too_large:
        refuse(413, "BODY_TOO_LARGE", f"A body holds at most {limit} bytes; split a larger file and send the parts.")
    return bytes(body)


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def json_of(text: bytes, limits: Limits, around: int = 0) -> Any:
    """Parse JSON that nests no deeper than the limit, plus the levels that hold the request together."""
    brackets = _STRING.sub(b"", text).translate(_BRACKETS, _NO_BRACKETS)
    # Before parsing, since a megabyte of brackets keeps the parser and the collector busy for a quarter of a second.
    if len(brackets) > 2 * limits.json_containers:
        _bad_request(f"JSON holds at most {limits.json_containers} lists and objects.")
    for _ in range(limits.json_depth + around):  # each pass takes the innermost level away, at the speed of C
        brackets = brackets.replace(b"[]", b"")
    # orjson refuses bad UTF-8, byte order marks, NaN, lone surrogates and a depth above 1,024 on its own.
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        _bad_request("This is not JSON in UTF-8.")
    if brackets:
        _bad_request(f"JSON nests at most {limits.json_depth} levels deep.")
    return value


def text_of(sent: Mapping[str, Any], name: str) -> str | None:
    value = sent.get(name)
    if value is not None and not isinstance(value, str):
        _bad_request(f"`{name}` is a string.")
    if value is not None and "\0" in value:
        _bad_request(f"`{name}` holds NUL.")
    return value


def object_of(sent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = sent.get(name)
    if value is not None and not isinstance(value, dict):
        _bad_request(f"`{name}` is an object.")
    return value or {}


def query_of(sent: Mapping[str, Any], extensions: Mapping[str, Any], documents: Documents) -> str:
    """Return the query, by its text or as an automatic persisted query."""
    query = text_of(sent, "query")
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return query if query is not None else _bad_request("`query` is missing.")
    digest = persisted.get("sha256Hash") if isinstance(persisted, dict) and persisted.get("version") == 1 else None
    if not isinstance(digest, str):
        _bad_request("`persistedQuery` has version 1 and a sha256Hash.")
    if query is None:
        return documents.recall(digest)
    if digest.lower() != digest_of(query):
        # Else a text could be kept under the name of another.
        refuse(400, "PERSISTED_QUERY_HASH_MISMATCH", "The sha256Hash is not that of the query.")
    return query


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not re.fullmatch(r"[!-~]{1,255}", key):
        _bad_request("Idempotency-Key is 1 to 255 visible ASCII characters.")
    return key
