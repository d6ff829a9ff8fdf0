"""From query text to a document that may run: parsed, measured, validated, remembered; no HTTP here."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    ValuesOfCorrectTypeRule,
    parse,
    specified_rules,
    validate,
)

from api.errors import refusal, without_source, without_values
from api.limits import LimitExceeded, Limits, check_shape, measure
from api.selections import selected


@dataclass(frozen=True, slots=True)
class Prepared:
    """An operation that was parsed, measured and validated; `kind` is query, mutation or subscription.

    `selected` holds the coordinates of its fields, as ``Customer.givenName``; `cost` is as `measure` tells it.
    `read` is how many characters were read for it, 0 where the text was known.
    """

    document: DocumentNode
    operation: OperationDefinitionNode
    kind: str
    selected: frozenset[str]
    cost: int
    read: int = 0


class RequestRefused(Exception):
    """Nothing ran; every error has its code in `extensions` and quotes no value of the client's."""

    def __init__(self, *errors: GraphQLError) -> None:
        super().__init__("request refused")
        self.errors = list(errors)


class Documents:
    """Documents of one schema; the last valid ones are remembered by the SHA-256 of their text."""

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: Limits,
        *,
        apart: frozenset[str] = frozenset(),
        remembered: int = 500,
        remembered_characters: int = 1_000_000,
    ) -> None:
        """`apart` has the coordinates of root fields that come without any other in their request."""
        self.schema = schema
        self.limits = limits
        self._apart = apart
        self._recent = _Recent(remembered, remembered_characters)

    def prepare(
        self, query: str, operation_name: str | None, variables: Mapping[str, Any] | None, *, may_introspect: bool
    ) -> Prepared:
        """Make a query ready to run, or raise RequestRefused. Cost hangs on variables, so it is measured each time."""
        is_known = self._recent.get(digest_of(query)) is not None
        try:
            known = self._find(query, may_introspect)
            operation = _pick(known.document, operation_name)
            cost = measure(known.document, operation, self.schema, variables or {}, self.limits)
        except LimitExceeded as exceeded:
            raise RequestRefused(refusal(exceeded.code, exceeded.message)) from None
        selects = known.selected_by(self.schema, operation)
        _refuse_company(selects, self._apart)
        read = 0 if is_known else len(query)
        return Prepared(known.document, operation, operation.operation.value, selects, cost, read)

    def recall(self, digest: str) -> str:
        """Return the text with this SHA-256 (hex), for automatic persisted queries.

        Whatever ran lately is found; it grants nothing, since whoever knows the digest of a query could have sent it.
        """
        known = self._recent.get(digest.lower())
        if known is None:
            # Clients look for these very words before they send the text.
            raise RequestRefused(refusal("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound"))
        return known.query

    def _find(self, query: str, may_introspect: bool) -> "_Known":
        digest = digest_of(query)
        known = self._recent.get(digest)
        if known is None:
            known = self._learn(query, may_introspect)
            self._recent.put(digest, known)
        if known.introspects and not may_introspect:
            raise RequestRefused(_INTROSPECTION_DISABLED)
        return known

    def _learn(self, query: str, may_introspect: bool) -> "_Known":
        document = _parse(query, self.limits)
        check_shape(document, self.schema, self.limits)
        introspects = bool(validate(self.schema, document, [NoSchemaIntrospectionCustomRule], max_errors=1))
        if introspects and not may_introspect:
            # Before the other rules, whose errors would tell of the types that it names.
            raise RequestRefused(_INTROSPECTION_DISABLED)
        errors = validate(self.schema, document, _RULES, max_errors=20, hide_suggestions=not may_introspect)
        if errors:
            raise RequestRefused(*map(partial(_invalid, may_introspect=may_introspect), errors))
        return _Known(query, document, introspects)


def digest_of(query: str) -> str:
    return sha256(query.encode(errors="surrogatepass")).hexdigest()


_SUGGESTION = re.compile(r"[.,]? ?Did you mean .*\?", re.I | re.S)


def without_suggestions(error: GraphQLError) -> GraphQLError:
    """Strip "Did you mean", from which the schema can be rebuilt by those who may not introspect."""
    message = _SUGGESTION.sub(".", error.message)
    return error if message == error.message else _reworded(error, message, error.extensions)


def _reworded(error: GraphQLError, message: str, extensions: dict[str, Any] | None) -> GraphQLError:
    return GraphQLError(
        message, error.nodes, error.source, error.positions, error.path, error.original_error, extensions
    )


_INTROSPECTION_DISABLED = refusal("INTROSPECTION_DISABLED", "Introspection is not open to this caller.")


class _Values(ValuesOfCorrectTypeRule):
    """The one rule whose messages quote literals, some in the words of a custom scalar."""

    def report_error(self, error: GraphQLError) -> None:
        super().report_error(_reworded(error, without_values(error.message), None))


_RULES = [_Values if rule is ValuesOfCorrectTypeRule else rule for rule in specified_rules]


def _invalid(error: GraphQLError, *, may_introspect: bool) -> GraphQLError:
    error = error if may_introspect else without_suggestions(error)
    return _reworded(error, error.message, {"code": "VALIDATION_FAILED"})


def _parse(query: str, limits: Limits) -> DocumentNode:
    if len(query) > limits.characters:
        raise LimitExceeded("QUERY_TOO_LONG", f"A document holds at most {limits.characters} characters.")
    try:
        return parse(query, max_lexical_tokens=limits.tokens, max_comments=limits.comments)
    except GraphQLError as error:
        # The only two messages of the parser that end so, and no source text can stand before them.
        if re.fullmatch(r"Syntax Error: Document contains more than \d+ \w+\. Parsing aborted\.", error.message):
            raise LimitExceeded("QUERY_TOO_LONG", f"A document holds at most {limits.tokens} tokens.") from None
        raise RequestRefused(_reworded(error, without_source(error.message), {"code": "SYNTAX_ERROR"})) from None


def _pick(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    if name is None and len(operations) == 1:
        return operations[0]
    for operation in operations:
        if name is not None and operation.name is not None and operation.name.value == name:
            return operation
    reason = "The document has no operation of that name." if name else "Name the operation to run."
    raise RequestRefused(refusal("OPERATION_NOT_FOUND", reason))


def _refuse_company(selects: frozenset[str], apart: frozenset[str]) -> None:
    """Before anything runs: half of a request would be done, and the other half refused."""
    beside = any(each.startswith("Mutation.") for each in selects - apart)
    if beside and (alone := sorted(selects & apart)):
        name = alone[0].partition(".")[2]
        raise RequestRefused(refusal("BAD_USER_INPUT", f"Send {name} in a request of its own; nothing was done."))


@dataclass(frozen=True, slots=True)
class _Known:
    query: str
    document: DocumentNode
    introspects: bool
    selections: dict[int, frozenset[str]] = field(default_factory=dict)

    def selected_by(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> frozenset[str]:
        # Operations are nodes of the document kept beside them, so their identity is a key that stays.
        found = self.selections.get(id(operation))
        if found is None:
            found = self.selections[id(operation)] = selected(schema, self.document, operation)
        return found


class _Recent:
    """Least recently used first out, bounded by count and by characters, since a tree is some 50 times its text."""

    def __init__(self, count: int, characters: int) -> None:
        self._count, self._characters = count, characters
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._size = 0

    def get(self, digest: str) -> _Known | None:
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known

    def put(self, digest: str, known: _Known) -> None:
        self._known[digest] = known
        self._size += len(known.query)
        while len(self._known) > self._count or self._size > self._characters:
            _, oldest = self._known.popitem(last=False)
            self._size -= len(oldest.query)
