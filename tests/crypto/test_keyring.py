"""A keyring opens what its own tenant sealed under any version, and indexes and authenticates under keys of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from crypto.envelopes import Cell, Column
from crypto.errors import CannotOpen, KeyUnavailable
from crypto.keyring import Keyring, SealedCell
from crypto.keys import DataKey, KeyState, Purpose
from crypto.values import Sealed

ACME, GLOBEX = UUID(int=1), UUID(int=2)
LABEL = "customers.name"
STATES = {True: KeyState.ACTIVE, False: KeyState.DECRYPT_ONLY}
KEYS = [
    DataKey(purpose, version, STATES[version == 2], secret=purpose.encode() + bytes([version]) * 29)
    for purpose in (Purpose.DEK, Purpose.BIK)
    for version in (1, 2, 3)
]
RING = Keyring(ACME, 1, KEYS)


def under_version(version: int, tenant: UUID = ACME) -> Keyring:
    """The same keys, with another version active."""
    return Keyring(
        tenant, 1, [DataKey(key.purpose, key.version, STATES[key.version == version], key.secret) for key in KEYS]
    )


def cell(number: int, document: bytes, version: int = 2, tenant: UUID = ACME) -> SealedCell:
    """Customer `number`, with a subject secret and a row of its own."""
    secret, subject, row = bytes([number]) * 32, UUID(int=100 + number), UUID(int=200 + number)
    sealed = under_version(version, tenant).seal(document, secret, Cell(tenant, subject, LABEL, row))
    return SealedCell(sealed, secret, subject, row)


def column(cells: Sequence[SealedCell], label: str = LABEL) -> Column:
    sealed, secrets, subjects, rows = zip(*cells, strict=True)
    return Column(label, sealed, secrets, subjects, rows)


def test_sealing_takes_the_active_version() -> None:
    assert [cell(1, b"John", version).sealed.dek_version for version in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("versions", [[2, 2, 2], [1, 2, 3], [3, 1, 3], [1], []])
def test_a_page_of_any_versions_opens_in_order(versions: list[int]) -> None:
    cells = [cell(number, b"%d" % number, version) for number, version in enumerate(versions)]

    assert RING.open_many(LABEL, cells) == [b"%d" % number for number in range(len(versions))]


def test_one_subject_may_have_many_cells_on_a_page() -> None:
    assert RING.open_many(LABEL, [cell(1, b"a"), cell(1, b"b"), cell(2, b"c")]) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("others", [[], [2], [1, 3]])
def test_an_unknown_version_refuses_the_page(others: list[int]) -> None:
    future = bytearray(cell(9, b"John").sealed)
    future[2:6] = (4).to_bytes(4, "big")
    page = [*(cell(number, b"", number) for number in others), cell(9, b"")._replace(sealed=Sealed(bytes(future)))]

    with pytest.raises(CannotOpen):
        RING.open_many(LABEL, page)


def test_a_page_with_one_cell_of_another_place_is_refused() -> None:
    page = [cell(1, b"a"), cell(2, b"b")]

    with pytest.raises(CannotOpen):
        RING.open_many("customers.email", page)
    with pytest.raises(CannotOpen):
        RING.open_many(LABEL, [page[0], page[1]._replace(row=page[0].row)])


def test_two_values_that_changed_places_are_refused() -> None:
    one, two = cell(1, b"a"), cell(2, b"b")

    with pytest.raises(CannotOpen):
        RING.open_many(LABEL, [one._replace(sealed=two.sealed), two._replace(sealed=one.sealed)])


def test_another_tenants_value_is_refused_although_the_keys_are_equal() -> None:
    with pytest.raises(CannotOpen):
        RING.open_many(LABEL, [cell(1, b"John", tenant=GLOBEX)])


@pytest.mark.parametrize("secret", [bytes(32), b"", b"\1" * 16, b"\1" * 64])
@pytest.mark.parametrize("version", [1, 2])
def test_a_wrong_or_misshapen_subject_secret_is_refused(secret: bytes, version: int) -> None:
    bad = cell(1, b"John", version)._replace(subject_secret=secret)

    with pytest.raises(CannotOpen):
        RING.open_many(LABEL, [cell(2, b"Jane"), bad])
    with pytest.raises(CannotOpen):
        RING.open_many(LABEL, [bad, cell(2, b"Jane")])


@pytest.mark.parametrize("secret", [b"", bytes(16), bytes(64)])
def test_nothing_is_sealed_under_a_misshapen_subject_secret(secret: bytes) -> None:
    with pytest.raises(CannotOpen):
        RING.seal(b"John", secret, Cell(ACME, UUID(int=1), LABEL, UUID(int=2)))


def test_nothing_is_sealed_or_authenticated_without_an_active_key() -> None:
    ring = under_version(0)

    with pytest.raises(KeyUnavailable):
        ring.seal(b"John", bytes(32), Cell(ACME, UUID(int=1), LABEL, UUID(int=2)))
    with pytest.raises(KeyUnavailable):
        ring.authenticate("cursor", b"")
    with pytest.raises(KeyUnavailable):
        ring.active_version(Purpose.AUD)


def test_a_ring_without_an_active_key_still_opens_and_indexes() -> None:
    ring = under_version(0)

    assert ring.open_many(LABEL, [cell(1, b"John")]) == [b"John"]
    assert ring.token(LABEL, "exact", 1, "john", 2) == RING.token(LABEL, "exact", 1, "john", 2)


@pytest.mark.parametrize("versions", [[1, 1, 1], [1, 2, 3], [3, 1, 3], [2], [1]])
def test_a_page_of_any_versions_is_sealed_anew_in_order_by_the_active_key(versions: list[int]) -> None:
    cells = [cell(number, b"%d" % number, version) for number, version in enumerate(versions)]

    (anew,) = RING.reseal_many([column(cells)])

    turned = [each._replace(sealed=Sealed(value or b"")) for each, value in zip(cells, anew, strict=True)]
    assert [each.sealed.dek_version for each in turned] == [2] * len(versions)
    assert under_version(2).open_many(LABEL, turned) == [b"%d" % number for number in range(len(versions))]


def test_each_column_is_sealed_anew_under_its_own_label() -> None:
    one, two = cell(1, b"a", 1), cell(2, b"b", 3)
    email = RING.seal(b"c", one.subject_secret, Cell(ACME, one.subject, "customers.email", one.row))

    names, emails = RING.reseal_many([column([one, two]), column([one._replace(sealed=email)], "customers.email")])

    assert RING.open_many(LABEL, [two._replace(sealed=Sealed(names[1] or b""))]) == [b"b"]
    assert RING.open_many("customers.email", [one._replace(sealed=Sealed(emails[0] or b""))]) == [b"c"]


def test_what_a_row_does_not_have_is_not_made_and_needs_no_secret() -> None:
    one = column([cell(1, b"a", 1), cell(2, b"b", 1)])

    (anew,) = RING.reseal_many([one._replace(values=[one.values[0], None], secrets=[one.secrets[0], None])])

    assert anew[0] is not None
    assert anew[1] is None
    assert RING.reseal_many([]) == []


def test_a_value_is_sealed_anew_under_a_nonce_of_its_own() -> None:
    cells = [cell(number, b"John", 1) for number in range(200)]

    anew = [value for column_ in RING.reseal_many([column(cells), column(cells)]) for value in column_]

    nonces = {value[6:18] for value in [*anew, *(each.sealed for each in cells)] if value is not None}
    assert len(nonces) == 600


@pytest.mark.parametrize("place", range(82))
def test_a_value_with_any_other_byte_is_not_sealed_anew(place: int) -> None:
    bent = bytearray(cell(1, b"John", 1).sealed)
    bent[place] ^= 1
    page = column([cell(1, b"John", 1), cell(2, b"Jane", 1)])

    assert len(bent) == 82
    with pytest.raises(CannotOpen):
        RING.reseal_many([page._replace(values=[bytes(bent), page.values[1]])])
    with pytest.raises(CannotOpen):
        RING.reseal_many([page.of(0)._replace(values=[bytes(bent)])])


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"label": "customers.email"},
        {"secrets": [bytes(32)]},
        {"secrets": [b"\1" * 16]},
        {"secrets": [None]},
        {"subjects": [UUID(int=102)]},
        {"rows": [UUID(int=202)]},
        {"subjects": [UUID(int=201)], "rows": [UUID(int=101)]},
        {"values": [b""]},
        {"values": [cell(1, b"John", 1).sealed[:-1]]},
        {"values": [cell(2, b"John", 1).sealed]},
        {"values": [cell(1, b"John", 1, tenant=GLOBEX).sealed]},
    ],
)
def test_a_value_of_another_cell_is_not_sealed_anew(elsewhere: dict[str, Any]) -> None:
    right = column([cell(1, b"John", 1)])

    assert RING.reseal_many([right])
    with pytest.raises(CannotOpen):
        RING.reseal_many([right._replace(**elsewhere)])


def test_nothing_is_sealed_anew_without_an_active_key() -> None:
    with pytest.raises(KeyUnavailable):
        under_version(0).reseal_many([column([cell(1, b"John", 1)])])


@dataclass(frozen=True)
class Word:
    """All that a token depends on."""

    tenant: UUID = ACME
    place: str = LABEL
    index: str = "exact"
    normaliser: int = 1
    value: str = "john"
    version: int = 2

    def token(self) -> bytes:
        ring = under_version(2, self.tenant)
        return ring.token(self.place, self.index, self.normaliser, self.value, self.version)


def test_equal_words_give_equal_tokens_of_16_bytes() -> None:
    assert Word().token() == Word().token()
    assert len(Word().token()) == 16


@pytest.mark.parametrize(
    "other",
    [
        Word(tenant=GLOBEX),
        Word(place="customers.email"),
        Word(index="prefix"),
        Word(normaliser=2),
        Word(value="John"),
        Word(value="john\0"),
        Word(version=1),
        Word(place=LABEL + "exact", index=""),
        Word(place="exact", index=LABEL),
    ],
)
def test_a_token_differs_with_all_that_it_depends_on(other: Word) -> None:
    assert other.token() != Word().token()


def test_a_ring_does_not_mix_up_its_words() -> None:
    words = [
        (place, index, normaliser, value)
        for place in ("a", "b")
        for index in ("x", "y")
        for normaliser in (1, 2)
        for value in ("1", "2")
    ]

    assert len({RING.token(*word, version) for word in words for version in (1, 2, 3)}) == 48


def test_a_token_under_an_unknown_version_is_refused() -> None:
    with pytest.raises(CannotOpen):
        RING.token(LABEL, "exact", 1, "john", 4)


def test_macs_differ_by_tenant_label_message_and_version() -> None:
    rings = [RING, under_version(1), under_version(2, GLOBEX)]
    macs = {ring.authenticate(label, message) for ring in rings for label in "ab" for message in (b"", b"b")}

    assert len(macs) == 12
    assert {len(mac) for mac in macs} == {32}


def test_a_mac_is_made_anew_under_the_key_that_made_it() -> None:
    made = under_version(1).authenticate("cursor", b"message")

    assert RING.authenticate("cursor", b"message", 1) == made
    assert RING.authenticate("cursor", b"message") == RING.authenticate("cursor", b"message", 2) != made
    with pytest.raises(CannotOpen):
        RING.authenticate("cursor", b"message", 4)


def test_writers_index_by_the_active_key_and_the_next_and_macs_are_of_the_active_and_those_before() -> None:
    states = {1: KeyState.DECRYPT_ONLY, 2: KeyState.DECRYPT_ONLY, 3: KeyState.ACTIVE, 4: KeyState.NEXT}
    ring = Keyring(ACME, 1, [DataKey(Purpose.BIK, version, state, bytes(32)) for version, state in states.items()])

    assert ring.index_versions() == (3, 4)
    assert ring.index_key_versions() == (3, 2, 1)


def test_a_ring_prints_no_key() -> None:
    assert repr(RING) == f"Keyring({ACME}, epoch 1)"
