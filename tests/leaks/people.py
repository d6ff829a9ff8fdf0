"""People of whom every value is one that nobody would type, each other than all others: what a leak would show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

_FIRST_BIRTH = {"2": date(1903, 1, 1), "3": date(1911, 1, 1), "4": date(1919, 1, 1)}


@dataclass
class Truth:
    """Of each row, by global id: its personal values by coordinate, as GraphQL spells them, and who owns it.

    `cores` are the parts of the values that can be looked for in any bytes, by row and coordinate.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    owners: dict[str, str | None] = field(default_factory=dict)
    cores: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)  # members who are no people

    def know(self, row: str, values: dict[str, Any], cores: dict[str, list[str]], owner: str | None = None) -> None:
        self.values[row] = values
        self.owners[row] = owner
        self.cores |= {(row, coordinate): each for coordinate, each in cores.items()}


def customer(letter: str, n: int) -> dict[str, Any]:
    """The input of a new customer: the n-th of the tenant of that letter (a digit)."""
    at = f"{letter}{n:03}"
    return {
        "givenName": f"Zoë givnka{at}",
        "familyName": f"金絲 famika{at}" if n % 3 == 2 else f"van der Famika{at}ß",
        "displayName": f"Dr. Ünal dispka{at}",
        "emails": [f"lockau{at}@nestau{at}.example.org", f"zweiau{at}@huette{at}.example.com"],
        "phones": [f"+4930{at}5719", f"+4989{at}6424"],
        "birthDate": str(_FIRST_BIRTH[letter] + timedelta(n)),
        "governmentId": f"GOVKA{at}88421",
        "note": f"Notiz 🐤 notika{at}\nund noch eine Zeile mehr{at}",
        "externalId": f"EXTKA-{at}-9917",
        "address": {
            "lines": [f"{n} Käfig-Allee linka{at}", f"Stock stocka{at}"],
            "city": f"Orteka{at}",
            "postalCode": f"PLZKA-{at}",
            "country": "DE",
        },
    }


def values_of(sent: dict[str, Any]) -> dict[str, Any]:
    """What is then to be read, by coordinate."""
    own = {f"Customer.{name}": value for name, value in sent.items() if name not in ("address", *_CLEAR)}
    address = {f"Address.{name}": value for name, value in sent.get("address", {}).items()}
    year = {"Customer.birthYear": int(sent["birthDate"][:4])} if "birthDate" in sent else {}
    return {"Customer.emails": [], "Customer.phones": [], "Address.lines": []} | own | address | year


def mark_of(values: dict[str, Any]) -> str:
    """The digit of the tenant and the number of the customer, which stand in all of its texts."""
    return str(values["Customer.governmentId"]).removeprefix("GOVKA")[:4]


_CLEAR = ("ownerId", "tagIds", "source", "stage", "language", "region")


def cores_of(values: dict[str, Any]) -> dict[str, list[str]]:
    """ASCII, and long enough to stand nowhere by chance; a country and a year are not."""
    return {coordinate: list(_cores(coordinate, value)) for coordinate, value in values.items() if value}


def _cores(coordinate: str, value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if coordinate == "Customer.phones":
            yield each.removeprefix("+49")
        elif coordinate == "Customer.birthDate":
            yield from (each, each.replace("-", ""), ".".join(reversed(each.split("-"))))
        elif coordinate not in ("Customer.birthYear", "Address.country"):
            words = each.replace("@", " ").replace(".example", " ").split()
            yield from (word.rstrip("ß") for word in words if any(map(str.isdigit, word)) and len(word) > 6)


def member(letter: str, n: int) -> dict[str, Any]:
    at = f"{letter}{n:03}"
    return {"Member.name": f"Réné Mitglka{at}", "Member.email": f"postka{at}@hauska{at}.example.org"}


def tag(letter: str, n: int) -> dict[str, Any]:
    return {"Tag.name": f"Etikka{letter}{n:03} ☂"}


def hold(letter: str, n: int) -> dict[str, Any]:
    return {"LegalHold.reason": f"Haftgrundka{letter}{n:03} 🔒"}


def device(letter: str, n: int) -> dict[str, Any]:
    at = f"{letter}{n:03}"
    return {"Device.userAgent": f"Agentka{at}/7", "Device.address": f"2001:db8:ka:{at}::{at}"}


def service(letter: str) -> dict[str, Any]:
    return {"Member.name": f"Dienstka{letter}001"}
