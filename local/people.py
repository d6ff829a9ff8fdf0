"""The people of the demo: 537 public records, and 200 made up; and the file that they are imported as."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from domain.imports import LISTS, TARGETS, Column
from local.errors import LocalServiceError

LEGISLATORS = Path(__file__).parent.parent / "examples" / "legislators.csv"
TRAVELLERS = 200

_ADDRESS = re.compile(r"(?P<line>.+) Washington DC (?P<code>\d{5}(?:-\d{4})?)")
# 20 and 23 have no common factor, so no pair of names comes twice among the first 460
_GIVEN = (  # noqa: SIM905  # reads better without 40 quotes
    "Aisha Bruno Chloë Dmitri Elif Farid Greta Hugo Ines José "
    "Kaito Leila Mateo Noor Oskar Priya Quentin Rosa Søren Tamar"
).split()
_FAMILY = (  # noqa: SIM905
    "Abernathy Bellweather Castellano Drummond Ekström Fairbrother Grünwald Holloway Ivanova Jankowski Kowalczyk "
    "Lindqvist Montague Nakagawa Okonkwo Pemberton Quigley Rutherford Sandoval Thistlewood Underhill Vasquez Whitlock"
).split()
_STREETS = ("Harbour Lane", "Mill Road", "Orchard Street", "Station Approach", "Willow Walk")
_CITIES = (("London", "SW1A 1AA"), ("Leeds", "LS1 1UR"), ("Cardiff", "CF10 1EP"), ("Glasgow", "G2 1DY"))
_STAGES = ("LEAD", "PROSPECT", "CUSTOMER", "FORMER")
_LANGUAGES = ("en", "fr", "de", "es", "pl")


def legislators() -> list[dict[str, Any]]:
    """The members of the US Congress, as published: public domain."""
    try:
        with LEGISLATORS.open(encoding="utf-8", newline="") as file:
            return [_legislator(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as cause:
        raise LocalServiceError(f"{LEGISLATORS} is missing or damaged; restore it, then start again.") from cause


def travellers() -> list[dict[str, Any]]:
    """Nobody real: the phone numbers are those that Ofcom keeps free for drama, the ids begin as no real ones do."""
    return [_traveller(number) for number in range(TRAVELLERS)]


def as_file(people: Sequence[dict[str, Any]]) -> tuple[list[Column], str]:
    """As `domain.imports.start` takes it: the columns, and CSV with the values of a list in lines of one cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TARGETS)
    writer.writeheader()
    for person in people:
        writer.writerow({name: "\n".join(value) if name in LISTS else value for name, value in person.items()})
    named = [name for name in TARGETS if any(name in person for person in people)]
    return [Column(name, name, "\n" if name in LISTS else None) for name in named], text.getvalue()


def _legislator(row: dict[str, str]) -> dict[str, Any]:
    sent = {
        "external_id": row["Bioguide Id"],
        "given_name": row["First Name"],
        "family_name": row["Last Name"],
        "display_name": row["Official Name"] or None,
        "birth_date": date.fromisoformat(row["Birthday"]),
        "emails": [_email(row["First Name"], row["Last Name"])],
        "phones": [row["Phone"]] if row["Phone"] else [],
        "note": f"{row['Party']}, {row['Chamber']}",
        "region": f"US-{row['State']}",
        "source": "import",
    }
    return sent | _address(row["Office Address"])


def _address(text: str) -> dict[str, Any]:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return {"address_lines": [text]} if text else {}
    line, code = found["line"], found["code"]
    return {"address_lines": [line], "city": "Washington", "postal_code": code, "country": "US"}


def _traveller(number: int) -> dict[str, Any]:
    given, family = _GIVEN[number % len(_GIVEN)], _FAMILY[number % len(_FAMILY)]
    city, code = _CITIES[number % len(_CITIES)]
    return {
        "external_id": f"VOY-{number + 1:04d}",
        "given_name": given,
        "family_name": family,
        "birth_date": date(1950, 1, 1) + timedelta(days=number * 97),
        "emails": [_email(given, family)],
        "phones": [f"020 7946 {number:04d}"],
        "address_lines": [f"{number % 89 + 1} {_STREETS[number % len(_STREETS)]}"],
        "city": city,
        "postal_code": code,
        "country": "GB",
        "government_id": f"QQ{number + 100000:06d}C",
        "note": f"Prefers seat {number % 30 + 1}{'ACDF'[number % 4]}",
        "stage": _STAGES[number % len(_STAGES)],
        "language": _LANGUAGES[number % len(_LANGUAGES)],
        "source": "import",
    }


def _email(given: str, family: str) -> str:
    return f"{_ascii(given)}.{_ascii(family)}@example.org"


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.replace("ø", "o")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]+", "-", plain.lower()).strip("-")
