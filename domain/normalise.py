"""Normalisers that give each value from outside one form to seal, index and compare; imports nothing of ours.

Each takes text from outside and returns the form to keep, or raises `Invalid`. Functions that end in `_key` return the
form for the blind index; they accept raw input and kept values alike.
"""

import datetime
import re
import unicodedata

import email_validator
import phonenumbers

# Part of every blind-index key: raise it when any `_key` or `name_prefixes` answers differently, and backfill.
NORMALISER_VERSION = 1


class Invalid(Exception):
    """The input can't be kept; `reason` goes on from the field's name ("phone is not …"), never with the value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Blank(Invalid):
    """Nothing to see was given."""


# A library's error may quote what it was given, so no Invalid is raised while one is handled: nothing hangs on
# __cause__ or __context__ for a log to print.


def phone(text: str, region: str) -> str:
    """Return E.164; national numbers are read as of `region`, ISO 3166-1 alpha-2, and refused if that is not known."""
    known = region if region in phonenumbers.SUPPORTED_REGIONS else None
    number = _parsed_phone(text, known)
    if number is not None and number.extension:
        raise Invalid("has an extension, which a phone number here can't keep; send the number alone")
    # libphonenumber picks a number out of prose and reads letters as keys: either would keep what nobody sent.
    if number is None or any(map(str.isalpha, text)) or not phonenumbers.is_valid_number(number):
        place = f" for region {known}" if known else ""
        raise Invalid(f"is not a valid phone number{place}; send it in international form, as +49…")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _parsed_phone(text: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    if len(text) > 64:
        return None
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def email(text: str) -> str:
    """Return the address in NFC, at most 254 characters, its domain in lower case and Unicode (RFC 5890 U-labels)."""
    return _address(text).normalized


def email_key(text: str) -> str:
    """Return the local part in case-folded NFKC, at the domain in ASCII (A-labels)."""
    address = _address(text)
    # Folding the Unicode form would give straße.de and strasse.de, which two people may own, one key.
    return f"{_folded_compatible(address.local_part)}@{address.ascii_domain}"


def _address(text: str) -> email_validator.ValidatedEmail:
    address = _parsed_address(text.strip())
    if address is None:
        raise Invalid("is not a valid e-mail address; send one such as name@example.org, of at most 254 characters")
    return address


def _parsed_address(text: str) -> email_validator.ValidatedEmail | None:
    if len(text) > 254 or _UNPRINTABLE.search(text):
        return None
    try:
        # test_environment allows the reserved .test in this call; SPECIAL_USE_DOMAIN_NAMES is the whole process'.
        return email_validator.validate_email(text, check_deliverability=False, test_environment=True)
    except email_validator.EmailNotValidError:
        return None


def _folded_compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def name(text: str) -> str:
    """Return NFC with single spaces, 1 to 200 characters of any script."""
    return _one_line(text)


def line(text: str) -> str:
    """Return an address line, city or postal code: NFC with single spaces, 1 to 200 characters."""
    return _one_line(text)


def note(text: str) -> str:
    """Return NFC of at most 10,000 characters, its lines ended by `\\n`; empty is allowed."""
    # No slack here: ordering 40,000 combining marks takes over a second.
    normal = unicodedata.normalize("NFC", _bounded(text, most=10_000)).replace("\r\n", "\n").replace("\r", "\n")
    if _UNPRINTABLE_IN_NOTES.search(normal):
        raise Invalid("contains control characters; only line ends and tabs are allowed")
    return _bounded(normal, most=10_000)


MOST_IN_LINE = 200
# Surrogates have no UTF-8 form. Bidirectional controls let a name show as another, or reorder the text around it.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
# Running text may hold isolates and embeddings: messengers put them around phone numbers in right-to-left text.
_UNPRINTABLE_IN_NOTES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202d\u202e]")


def _one_line(text: str) -> str:
    normal = _normal(text, MOST_IN_LINE)
    if _UNPRINTABLE.search(normal):
        raise Invalid("contains control characters or characters that change the direction of text")
    spaced = " ".join(normal.split())
    if not any(unicodedata.category(character)[0] in "LNPS" for character in spaced):
        raise Blank("has no visible character; leave the field out where there is no value")
    return _bounded(spaced, MOST_IN_LINE)


def _normal(text: str, most: int) -> str:
    # Ordering a long run of combining marks takes quadratic time, so length is looked at first; NFC joins at most 4.
    return unicodedata.normalize("NFC", _bounded(text, most, slack=4))


def _bounded(text: str, most: int, slack: int = 1) -> str:
    if len(text) > most * slack:
        raise Invalid(f"is longer than {most} characters")
    return text


def birth_date(value: datetime.date, today: datetime.date) -> datetime.date:
    """Return the date itself if a person alive in the tenant's time can have it."""
    if value > today:
        raise Invalid("is in the future")
    if value < datetime.date(1850, 1, 1):
        raise Invalid("is before 1850-01-01")
    return value


def instant(value: datetime.datetime) -> datetime.datetime:
    """Return the moment in UTC; a time without an offset would mean another moment on every server."""
    if value.tzinfo is None:
        raise Invalid("has no offset from UTC; send it as 2024-01-01T00:00:00Z")
    if not 1 < value.year < 9999:
        raise Invalid("is out of range")
    return value.astimezone(datetime.UTC)


def government_id(text: str) -> str:
    """Return the id as its holder writes it: 2 to 64 of ASCII letters, digits, `/`, `-`, `.` and single spaces."""
    plain = unicodedata.normalize("NFKC", _bounded(text, most=64, slack=4)).translate(_DASHES)
    spaced = " ".join(plain.split())
    if not re.fullmatch(r"[A-Za-z0-9/\-. ]{2,64}", spaced) or sum(map(str.isalnum, spaced)) < 2:
        raise Invalid("is not a government id; send 2 to 64 of A-Z, 0-9, space, dot, dash and slash")
    return spaced


def government_id_key(text: str) -> str:
    """Return the id in upper case without spaces, dots and dashes; slashes part numbers in some countries and stay."""
    return re.sub(r"[ .\-]", "", government_id(text)).upper()


_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−", "-"))


def external_id(text: str) -> str:
    """Return the tenant's own id in NFC without surrounding whitespace, case kept: 1 to 128 printable characters."""
    trimmed = _normal(text, most=128).strip()
    if not trimmed or not trimmed.isprintable():
        raise Invalid("is not an external id; send 1 to 128 printable characters")
    return _bounded(trimmed, most=128)


def external_id_key(text: str) -> str:
    """Return the kept form itself: external ids differ by case."""
    return external_id(text)


def country(text: str) -> str:
    """Return ISO 3166-1 alpha-2 in upper case; XK is accepted as it is in use."""
    code = _upper_code(text)
    if code not in _COUNTRIES:
        raise Invalid("is not a country code; send two letters of ISO 3166-1, as DE")
    return code


def region(text: str) -> str:
    """Return a code shaped as ISO 3166-2 (`US-WA`, or bare `WA`) in upper case; whether it exists is not checked."""
    code = _upper_code(text)
    if not re.fullmatch(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", code):
        raise Invalid("is not a region code; send the form of ISO 3166-2, as US-WA")
    return code


# Where people receive post, but libphonenumber knows no numbering plan.
_COUNTRIES = phonenumbers.SUPPORTED_REGIONS | {"AQ", "BV", "GS", "HM", "PN", "TF", "UM"}


def _upper_code(text: str) -> str:
    # Upper case turns letters of other alphabets into Latin ones: `ß` would become the code SS.
    return text.strip().upper() if text.isascii() else ""


def language(text: str) -> str:
    """Return a BCP 47 tag in the case of RFC 5646, 2.1.1 (`zh-Hant-TW`), at most 35 characters; `_` is read as `-`."""
    tag = text.strip().replace("_", "-")
    if not tag.isascii() or len(tag) > 35 or not _LANGUAGE.fullmatch(tag):
        raise Invalid("is not a language tag; send the form of BCP 47, as en-US, of at most 35 characters")
    first, *rest = tag.lower().split("-")
    plain = next((place for place, subtag in enumerate(rest) if len(subtag) == 1), len(rest))
    return "-".join([first, *map(_cased_subtag, rest[:plain]), *rest[plain:]])


_LANGUAGE = re.compile(
    r"[a-z]{2,3}(-[a-z]{3}){0,3}(-[a-z]{4})?(-([a-z]{2}|\d{3}))?(-([a-z0-9]{5,8}|\d[a-z0-9]{3}))*"
    r"(-[0-9a-wyz](-[a-z0-9]{2,8})+)*(-x(-[a-z0-9]{1,8})+)?",
    re.IGNORECASE,
)


def _cased_subtag(subtag: str) -> str:
    if len(subtag) == 2:
        return subtag.upper()
    return subtag.title() if len(subtag) == 4 and subtag.isalpha() else subtag
