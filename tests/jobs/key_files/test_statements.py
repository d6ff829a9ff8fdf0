"""However many were erased, a statement is signed by its hash; what nobody signed takes no memory."""

import asyncio
import hashlib
import os
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from crypto.buckets import BUCKETS, OPENING_BYTES
from crypto.values import TAG_BYTES
from jobs.backups.stores import Store
from jobs.key_files import finding
from jobs.key_files.errors import KeyFileRefused, Refusal
from jobs.key_files.statements import FileKey, Signed, Statement, in_order
from tenants.erasures import NO_HEAD, Erased, head_after

TENANT, GENERATION = UUID(int=7), 3
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEYS = {1: KEY.public_key().public_bytes_raw()}
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
BUCKET = bytes(TAG_BYTES)
MANY = 300_000 if os.environ.get("COFFER_SOAK") == "1" else 60_000  # some MB
HUGE = 300 << 20


async def sign(message: bytes) -> tuple[int, bytes]:
    return 1, KEY.sign(message)


def statement(erased: int) -> Statement:
    ledger, head = [], NO_HEAD
    for number in range(1, erased + 1):
        head = head_after(head, number, UUID(int=number), AT)
        ledger.append(Erased(number, UUID(int=number), AT, head))
    return Statement(
        tenant=TENANT,
        generation=GENERATION,
        created=AT,
        previous=None,
        file_key=FileKey(UUID(int=8), "vault:v1:AAAA", bytes(OPENING_BYTES)),
        backups=(),
        data_keys=(),
        ledger=tuple(ledger),
        buckets=in_order([(len(BUCKET), hashlib.sha256(BUCKET).digest())] * BUCKETS),
    )


@pytest.fixture(scope="module")
def long() -> Statement:
    return statement(MANY)


def laid_out(root: Path, content: bytes) -> tuple[Store, int]:
    path = root / finding.name(TENANT, GENERATION)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Store(f"file://{root}"), len(content)


async def laid(root: Path, signed: Signed) -> tuple[Store, int]:
    return laid_out(root, signed.lines + BUCKET * BUCKETS)


async def test_what_is_signed_is_of_one_length_however_long_the_ledger_is(long: Statement) -> None:
    lengths = set()

    async def measured(message: bytes) -> tuple[int, bytes]:
        lengths.add(len(message))
        return await sign(message)

    for each in (statement(0), statement(100), long):
        await each.signed(measured)

    assert len(lengths) == 1
    assert lengths.pop() < 100


async def test_other_work_goes_on_while_a_long_one_is_drawn_up_and_read(tmp_path: Path, long: Statement) -> None:
    ticks, is_over = 0, False

    async def tick() -> None:
        nonlocal ticks
        while not is_over:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    signed = await long.signed(sign)
    drawn_up = ticks
    proven = await finding.prove(*await _named(tmp_path, signed), PUBLIC_KEYS)
    is_over = True
    await ticking

    assert drawn_up > 5
    assert ticks - drawn_up > 5
    assert (proven.statement, proven.sha256, proven.lines) == (long, signed.sha256, signed.lines)
    assert signed.sha256 == hashlib.sha256(signed.lines.split(b"\n")[0]).digest()


async def _named(root: Path, signed: Signed) -> tuple[Store, UUID, int, int]:
    store, size = await laid(root, signed)
    return store, TENANT, GENERATION, size


async def test_it_is_read_the_same_wherever_its_parts_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = await statement(50).signed(sign)
    named = await _named(tmp_path, signed)
    first = len(signed.lines.split(b"\n")[0])
    for end in (
        1,
        47,
        48,
        first - 20,
        first - 1,
        first,
        first + 1,
        first + 40,
        len(signed.lines) - 1,
        len(signed.lines),
    ):
        monkeypatch.setattr(finding, "_FIRST", end)
        monkeypatch.setattr(finding, "_PART", max(end % 101, 7))
        proven = await finding.prove(*named, PUBLIC_KEYS)
        assert (proven.lines, proven.sha256) == (signed.lines, signed.sha256)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", Refusal.TRUNCATED),
        (b"{}\n", Refusal.TRUNCATED),
        (b"{}\n" + b"x" * 600 + b"\n", Refusal.TRUNCATED),
        (b'{}\n{"keyVersion":1}\n', Refusal.UNSIGNED),
    ],
)
async def test_what_is_no_key_file_is_refused_however_long_it_is(tmp_path: Path, content: bytes, why: Refusal) -> None:
    store, _ = laid_out(tmp_path, content)
    os.truncate(tmp_path / finding.name(TENANT, GENERATION), HUGE)
    tracemalloc.start()
    try:
        with pytest.raises(KeyFileRefused) as refused:
            await finding.prove(store, TENANT, GENERATION, HUGE, PUBLIC_KEYS)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert refused.value.why is why
    assert most < 32 << 20


async def test_one_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that shows what was signed first, and something else when it is asked again."""
    signed = await statement(2_000).signed(sign)
    store, size = await laid(tmp_path, signed)
    real, other = Store.get, signed.lines.replace(b'"number":1,', b'"number":2,')

    async def fickle(self: Store, name: str, start: int, length: int) -> bytes | None:
        return other if (start, length) == (0, len(signed.lines)) else await real(self, name, start, length)

    monkeypatch.setattr(Store, "get", fickle)

    with pytest.raises(KeyFileRefused) as refused:
        await finding.prove(store, TENANT, GENERATION, size, PUBLIC_KEYS)

    assert refused.value.why is Refusal.EDITED
    assert len(other) == len(signed.lines) > finding._FIRST
