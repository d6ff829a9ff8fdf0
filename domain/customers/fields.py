"""What a customer has: the fields of its sealed documents, each with class, mask, parser and index.

This file and `api/customers.py` are all that a new personal field needs.
"""

from datetime import date
from enum import StrEnum
from typing import Any

from domain import name_search, normalise
from domain.normalise import NORMALISER_VERSION
from tenants.access import SearchRight, Sensitivity
from tenants.documents import BlindIndex, Document, Edge, Mask, Parse, personal


class Stage(StrEnum):
    """How far the tenant's relation with a customer has come."""

    LEAD = "LEAD"
    PROSPECT = "PROSPECT"
    CUSTOMER = "CUSTOMER"
    FORMER = "FORMER"


def _plain(normaliser: Any) -> Parse:
    """A parser of text that needs nothing of the tenant; null stays null."""

    def parse(value: Any, _edge: Edge) -> Any:
        return None if value is None else normaliser(value)

    return parse


def _phone(value: Any, edge: Edge) -> str | None:
    return None if value is None else normalise.phone(value, edge.region)


def _birth_date(value: Any, edge: Edge) -> date | None:
    return None if value is None else normalise.birth_date(value, edge.today)


def _exact(name: str, right: SearchRight, key: Any, *, is_unique: bool = False) -> BlindIndex:
    return BlindIndex(
        name,
        right,
        NORMALISER_VERSION,
        keys=lambda value: (key(value),),
        lookup=key,
        matches=lambda value, query: bool(key(value) == key(query)),
        is_unique=is_unique,
    )


def _prefix(name: str, right: SearchRight) -> BlindIndex:
    return BlindIndex(
        name,
        right,
        NORMALISER_VERSION,
        keys=name_search.name_prefixes,
        lookup=name_search.prefix_lookup,
        matches=name_search.matches_prefix,
    )


def _same(value: str) -> str:
    return value


class Profile(Document):
    given_name: str | None = personal(
        Sensitivity.IDENTITY, Mask.NAME, _plain(normalise.name), index=_prefix("given_name", SearchRight.IDENTITY)
    )
    family_name: str | None = personal(
        Sensitivity.IDENTITY, Mask.NAME, _plain(normalise.name), index=_prefix("family_name", SearchRight.IDENTITY)
    )
    display_name: str | None = personal(Sensitivity.IDENTITY, Mask.NAME, _plain(normalise.name), shown_as="full_name")
    emails: tuple[str, ...] = personal(
        Sensitivity.CONTACT,
        Mask.EMAIL,
        _plain(normalise.email),
        index=_exact("email", SearchRight.CONTACT, normalise.email_key),
        default=(),
    )
    phones: tuple[str, ...] = personal(
        Sensitivity.CONTACT,
        Mask.PHONE,
        _phone,
        index=_exact("phone", SearchRight.CONTACT, _same),
        default=(),
    )
    address_lines: tuple[str, ...] = personal(
        Sensitivity.LOCATION, Mask.ADDRESS_LINE, _plain(normalise.line), default=()
    )
    city: str | None = personal(Sensitivity.LOCATION, Mask.KEEP, _plain(normalise.line))
    postal_code: str | None = personal(Sensitivity.LOCATION, Mask.ADDRESS_LINE, _plain(normalise.line))
    country: str | None = personal(Sensitivity.LOCATION, Mask.KEEP, _plain(normalise.country))
    birth_date: date | None = personal(Sensitivity.BIRTH, Mask.NOTHING, _birth_date)

    @property
    def full_name(self) -> str | None:
        """The display name, or what the given and family names make of one."""
        return self.display_name or " ".join(filter(None, (self.given_name, self.family_name))) or None

    @property
    def birth_year(self) -> int | None:
        return self.birth_date.year if self.birth_date else None


class Guarded(Document):
    government_id: str | None = personal(
        Sensitivity.GOVERNMENT_ID,
        Mask.LAST2,
        _plain(normalise.government_id),
        index=_exact("government_id", SearchRight.GOVERNMENT_ID, normalise.government_id_key),
    )


class Note(Document):
    note: str | None = personal(Sensitivity.FREE_TEXT, Mask.TEXT, _plain(normalise.note))


class ExternalId(Document):
    external_id: str | None = personal(
        Sensitivity.IDENTITY,
        Mask.LAST2,
        _plain(normalise.external_id),
        index=_exact("external_id", SearchRight.EXTERNAL_ID, normalise.external_id_key, is_unique=True),
    )


DOCUMENTS: dict[str, type[Document]] = {
    "profile": Profile,
    "guarded": Guarded,
    "note": Note,
    "external_id": ExternalId,
}
COLUMN_OF = {name: column for column, document in DOCUMENTS.items() for name in document.fields}
FIELDS = {name: document.fields[name] for document in DOCUMENTS.values() for name in document.fields}

# A search by one of these names goes through the indexes of those fields; any other indexed field is named as it is.
SEARCHES: dict[str, tuple[str, ...]] = {
    "email": ("emails",),
    "phone": ("phones",),
    "name_prefix": ("given_name", "family_name"),
}
