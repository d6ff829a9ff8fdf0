"""A log holds no value: dropped by type at any depth, and never told by an exception or a library."""

import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import asyncpg
import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from crypto.values import OVERHEAD_BYTES, Sealed, Secret
from domain.customers.fields import Profile
from telemetry import logs
from tenants.database import Database
from tenants.errors import Conflict
from tests.house import House

CANARY = "kanari-4711"


class Log:
    def __init__(self) -> None:
        self.out = io.StringIO()
        logs.configure("DEBUG", self.out)

    @property
    def text(self) -> str:
        return self.out.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """The process's log, put back afterwards."""
    root, names = logging.getLogger(), [*logging.root.manager.loggerDict]
    kept = {name: (logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names}
    handlers, level, hook, raises = root.handlers, root.level, warnings.showwarning, logging.raiseExceptions
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sys.excepthook", "sys.unraisablehook", "threading.excepthook"):
            module, _, attribute = name.partition(".")
            patch.setattr(f"{module}.{attribute}", getattr(__import__(module), attribute))
        yield Log()
    structlog.reset_defaults()
    root.handlers, warnings.showwarning, logging.raiseExceptions = handlers, hook, raises
    root.setLevel(level)
    for name, (before, propagates) in kept.items():
        logging.getLogger(name).setLevel(before)
        logging.getLogger(name).propagate = propagates


@dataclass
class Holder:
    held: Any
    hidden: str = field(default=CANARY, repr=False)


class Code(Enum):
    ONE = "ONE"


class Opaque:
    def __repr__(self) -> str:
        return CANARY


def sealed() -> Sealed:
    return Sealed(bytes([0xC1, 1]) + CANARY.encode().ljust(OVERHEAD_BYTES + 30, b"-"))


VALUES = st.sampled_from(
    [
        lambda: Secret(CANARY),
        sealed,
        lambda: Profile.load(orjson.dumps({"given_name": CANARY})),
        lambda: ValueError(CANARY, Secret(CANARY)),
        lambda: CANARY.encode(),
        Opaque,
    ]
).map(lambda make: make())
PLAIN = st.sampled_from([1, "code", None, True, 1.5, Code.ONE])
NESTED = st.recursive(
    VALUES | PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | inner.map(Holder)
        | inner.map(lambda each: ExceptionGroup("group", [ValueError(each)]))
        | VALUES.filter(lambda value: isinstance(value, Sealed)).map(lambda key: {key: 1})
    ),
    max_leaves=12,
)


@given(NESTED)
def test_what_may_hold_a_value_is_dropped_however_deep_it_stands(nested: Any) -> None:
    told = orjson.dumps(logs.without_values(None, "info", {"event": "test", "nested": nested}))
    assert b"kanari" not in told.lower()
    assert CANARY.encode().hex() not in told.decode()


@given(PLAIN)
def test_plain_data_stays(plain: Any) -> None:
    told = logs.without_values(None, "info", {"event": "test", "nested": {"a": [Holder(plain)]}})
    assert told["nested"]["a"][0]["held"] == (plain.value if isinstance(plain, Enum) else plain)


def test_a_secret_is_left_out_and_what_stands_beside_it_is_not(log: Log) -> None:
    structlog.get_logger().info("test", given={"secret": Secret(CANARY), "count": 3}, sealed=sealed())
    assert log.lines[0]["given"] == {"count": 3}
    assert "sealed" not in log.lines[0]


def test_a_ring_of_lists_is_cut(log: Log) -> None:
    ring: list[Any] = []
    ring.append(ring)
    structlog.get_logger().info("test", ring=ring)
    assert log.lines[0]["event"] == "test"


def test_an_exception_is_told_by_class_code_and_places(log: Log) -> None:
    try:
        raise Conflict from KeyError(CANARY)
    except Conflict:
        structlog.get_logger().error("failed", exc_info=True)
    assert log.lines[0]["exceptions"] == ["tenants.errors.Conflict CONFLICT", "builtins.KeyError"]
    assert "test_an_exception_is_told_by_class_code_and_places" in log.lines[0]["frames"][0]
    assert CANARY not in log.text


async def test_a_refused_parameter_of_postgres_is_not_told(log: Log, house: House) -> None:
    database = Database(house.url("coffer_app").replace("postgresql://", "postgresql+asyncpg://"))
    try:
        with pytest.raises(DBAPIError) as refused:
            async with database.connection() as connection:
                await connection.execute(text("SELECT CAST(CAST(:given AS text) AS uuid)"), {"given": CANARY})
    finally:
        await database.close()
    assert CANARY in str(refused.value), "the message itself holds it, so there was something to hide"
    assert isinstance(refused.value.orig.__cause__, asyncpg.PostgresError)  # type: ignore[union-attr]  # it has one
    structlog.get_logger().error("ours", error=refused.value, exc_info=refused.value)
    logging.getLogger("sqlalchemy").error("theirs %s", refused.value, exc_info=refused.value)
    assert len(log.lines) == 2
    assert CANARY not in log.text


def test_a_librarys_message_keeps_its_template_and_its_numbers(log: Log) -> None:
    logging.getLogger("pika.adapters").warning("Lost %s after %d tries: %r", CANARY, 3, ValueError(CANARY))
    assert log.lines[0]["event"] == "Lost … after 3 tries: '…'"
    assert log.lines[0]["logger"] == "pika.adapters"


def test_a_librarys_message_that_was_made_of_values_is_not_told(log: Log) -> None:
    logging.getLogger("redis").warning(f"Lost {CANARY}")
    logging.getLogger("redis").warning(ValueError(CANARY))
    assert [line["event"] for line in log.lines] == ["a message made of values"] * 2
    assert CANARY not in log.text


@pytest.mark.parametrize(
    "name", ["sqlalchemy.engine.Engine", "httpcore.http11", "urllib3.connectionpool", "pika.channel", "asyncio", "x"]
)
def test_libraries_are_silent_below_warning_though_we_log_at_debug(log: Log, name: str) -> None:
    logging.getLogger(name).debug("chatter")
    logging.getLogger(name).info("chatter")
    structlog.get_logger().debug("ours")
    assert [line["event"] for line in log.lines] == ["ours"]


def test_a_warning_is_told_by_its_category(log: Log) -> None:
    warnings.showwarning(UserWarning(CANARY), UserWarning, "somewhere.py", 7)
    assert log.lines[0]["category"] == "UserWarning"
    assert CANARY not in log.text


def test_what_nobody_caught_is_a_line_too(log: Log) -> None:
    import sys

    error = ValueError(CANARY)
    sys.excepthook(ValueError, error, None)
    assert log.lines[0]["exceptions"] == ["builtins.ValueError"]
    assert CANARY not in log.text


def test_what_can_not_be_written_costs_no_request(log: Log) -> None:
    structlog.get_logger().info("test", broken="\ud800")
    assert log.lines[0]["event"] == "unwritable"
