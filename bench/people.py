"""Made-up people, the same in every run, so that a loaded folder can be asked for an e-mail without opening a row."""

from datetime import date
from typing import Any

_GIVEN = ("Ada", "Boris", "Chloe", "Daniel", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Katherine", "Lars")
_FAMILY = ("Adeyemi", "Brandt", "Castellanos", "Dubois", "Eriksson", "Fernandez", "Goldberg", "Hashimoto", "Ivanova")
_CITIES = ("Seattle", "Portland", "Boise", "Spokane", "Tacoma")
_STAGES = ("LEAD", "PROSPECT", "CUSTOMER", "FORMER")


def email(number: int) -> str:
    return f"person{number}@example.org"


def person(number: int) -> dict[str, Any]:
    """As `domain.customers.create_many` takes it."""
    return {
        "given_name": _GIVEN[number % len(_GIVEN)],
        "family_name": _FAMILY[number % len(_FAMILY)],
        "emails": [email(number)],
        "phones": [_phone(number)],
        "birth_date": _birth_date(number),
        "address_lines": [f"{number % 900 + 1} Main Street"],
        "city": _CITIES[number % len(_CITIES)],
        "postal_code": f"{98001 + number % 900}",
        "country": "US",
        "stage": _STAGES[number % len(_STAGES)],
    }


def person_input(number: int) -> dict[str, Any]:
    """As GraphQL's `CustomerInput` takes it."""
    made = person(number)
    return {
        "givenName": made["given_name"],
        "familyName": made["family_name"],
        "emails": made["emails"],
        "phones": made["phones"],
        "birthDate": made["birth_date"].isoformat(),
        "address": {"city": made["city"]},
        "stage": made["stage"],
    }


def _phone(number: int) -> str:
    return f"+1206{220 + number // 10_000 % 700}{number % 10_000:04}"


def _birth_date(number: int) -> date:
    return date(1940 + number % 65, number % 12 + 1, number % 28 + 1)
