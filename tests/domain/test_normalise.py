"""Normalisers give one form, and refuse with a reason that tells nothing of the value."""

import csv
import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain import normalise
from domain.normalise import Invalid

LEGISLATORS = Path(__file__).parents[2] / "examples" / "legislators.csv"
ANY_TEXT = st.text(st.characters(exclude_categories=()))
NEAR_VALUES = st.text("aZ09 +-._@/äß李\u0301\u202e\t\n\x00ø", max_size=40)
# st.emails() loads every top-level domain there is, slower than a health check allows.
EMAILS = st.from_regex(r"[a-zA-Z.+ß\u0308]{1,9}@[a-zA-Zäß\u0308-]{1,9}\.(com|org|test|DE)", fullmatch=True)
MARKER = "Qx7zSECRETq9"
PHONE_IN_US = partial(normalise.phone, region="US")
KEPT: list[Callable[[str], str]] = [
    PHONE_IN_US,
    normalise.email,
    normalise.name,
    normalise.line,
    normalise.note,
    normalise.government_id,
    normalise.government_id_key,
    normalise.external_id,
    normalise.external_id_key,
    normalise.country,
    normalise.region,
    normalise.language,
]
REFUSING = [*KEPT, normalise.email_key]


def kept_or_none(keep: Callable[[str], str], text: str) -> str | None:
    try:
        return keep(text)
    except Invalid:
        return None


def refusal(keep: Callable[[str], str], text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        keep(text)
    return caught.value


@given(st.sampled_from(REFUSING), ANY_TEXT | NEAR_VALUES | EMAILS)
def test_any_text_is_kept_or_refused(keep: Callable[[str], str], text: str) -> None:
    assert kept_or_none(keep, text) != "" or text == ""


@given(st.sampled_from(KEPT), ANY_TEXT | NEAR_VALUES | EMAILS)
def test_what_is_kept_stays_as_it_is(keep: Callable[[str], str], text: str) -> None:
    kept = kept_or_none(keep, text)
    assert kept is None or keep(kept) == kept


@given(st.sampled_from(REFUSING), st.sampled_from(["\x00", "\u202e", "@", "x" * 20_000]), NEAR_VALUES)
def test_a_refusal_tells_nothing_of_the_value(keep: Callable[[str], str], poison: str, text: str) -> None:
    try:
        keep(f"{text}{MARKER}{poison}{text}")
    except Invalid as error:
        assert MARKER.casefold() not in error.reason.casefold()
        assert error.__cause__ is None
        assert error.__context__ is None


@pytest.mark.parametrize(
    ("text", "region", "kept"),
    [
        ("202-224-3441", "US", "+12022243441"),
        ("(202) 224 3441", "US", "+12022243441"),
        ("0151 12345642", "DE", "+4915112345642"),
        ("+49 151 12345642", "US", "+4915112345642"),
        ("\u202a+49\u00a0151\u201112345642\u202c", "US", "+4915112345642"),
        ("06 698 12345", "IT", "+390669812345"),
        ("+49 151 12345642", "", "+4915112345642"),
    ],
)
def test_a_phone_is_kept_as_e164(text: str, region: str, kept: str) -> None:
    assert normalise.phone(text, region) == kept


@pytest.mark.parametrize("text", ["", "12", "call 202-224-3441", "1-800-FLOWERS", "+999 123 4567", "2" * 65, "911"])
def test_what_is_no_phone_is_refused_by_region(text: str) -> None:
    assert "for region US; send it in international form, as +49…" in refusal(PHONE_IN_US, text).reason


def test_a_national_phone_without_known_region_is_refused_without_naming_it() -> None:
    assert refusal(partial(normalise.phone, region="<script>"), "202-224-3441").reason.startswith(
        "is not a valid phone number;"
    )


@pytest.mark.parametrize("text", ["202-224-3441 ext. 5", "202-224-3441 x5", "+12022243441;ext=5"])
def test_an_extension_is_refused_with_its_reason(text: str) -> None:
    assert "extension" in refusal(PHONE_IN_US, text).reason


def test_the_example_phone_of_every_region_stays_as_it_is() -> None:
    for region in phonenumbers.SUPPORTED_REGIONS:
        example_of_region = phonenumbers.example_number(region)
        assert example_of_region is not None
        kept = phonenumbers.format_number(example_of_region, phonenumbers.PhoneNumberFormat.E164)
        assert normalise.phone(kept, "US") == kept


@pytest.mark.parametrize(
    ("text", "kept", "key"),
    [
        (" A.B@Example.ORG ", "A.B@example.org", "a.b@example.org"),
        ("Jo@x.test", "Jo@x.test", "jo@x.test"),
        ("info@Müller.de", "info@müller.de", "info@xn--mller-kva.de"),
        ("info@xn--mller-kva.de", "info@müller.de", "info@xn--mller-kva.de"),
        ("jo\u0308@example.com", "jö@example.com", "jö@example.com"),
        ("a@straße.de", "a@straße.de", "a@xn--strae-oqa.de"),
    ],
)
def test_an_email_keeps_its_local_part_and_is_found_in_any_case(text: str, kept: str, key: str) -> None:
    assert normalise.email(text) == kept
    assert normalise.email_key(text) == key
    assert normalise.email_key(kept) == key


@pytest.mark.parametrize("text", ["", "jo", "jo@", "jo@localhost", "Jo <jo@example.org>", f"{'x' * 60}@{'y.' * 100}de"])
def test_what_is_no_email_is_refused(text: str) -> None:
    assert "is not a valid e-mail address" in refusal(normalise.email, text).reason


@given(EMAILS)
def test_the_key_of_a_kept_email_is_the_key_of_what_came_in(text: str) -> None:
    kept = kept_or_none(normalise.email, text)
    assume(kept is not None)

    assert normalise.email_key(kept or "") == normalise.email_key(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  John \t\u00a0 Doe\n", "John Doe"),
        ("Jose\u0301", "José"),
        ("क्षितिज", "क्षितिज"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("e\u0301" * 200, "é" * 200),
    ],
)
def test_a_name_of_any_script_is_kept(text: str, kept: str) -> None:
    assert normalise.name(text) == kept
    assert normalise.line(text) == kept


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\u0301", "a\x00b", "a\u202eb", "a\u2066b", "\ud800", "x" * 201])
def test_a_name_that_hides_something_is_refused(text: str) -> None:
    refusal(normalise.name, text)
    refusal(normalise.line, text)


def test_a_note_keeps_line_ends_and_tabs() -> None:
    assert normalise.note("called\r\non\tMonday\r") == "called\non\tMonday\n"
    assert normalise.note("x" * 10_000) == "x" * 10_000
    refusal(normalise.note, "x" * 10_001)
    refusal(normalise.note, "a\x00b")


def test_a_birth_date_lies_between_1850_and_today() -> None:
    today = datetime.date(2026, 10, 20)
    assert normalise.birth_date(today, today) == today
    with pytest.raises(Invalid, match="is in the future"):
        normalise.birth_date(datetime.date(2026, 10, 21), today)
    with pytest.raises(Invalid, match="is before 1850-01-01"):
        normalise.birth_date(datetime.date(1849, 12, 31), today)


def test_a_government_id_is_found_however_it_is_spaced() -> None:
    assert normalise.government_id(" 12\u201334.ab  5 ") == "12-34.ab 5"
    assert normalise.government_id_key("12-34.ab 5") == normalise.government_id_key("1234AB5") == "1234AB5"


@pytest.mark.parametrize("text", ["", "1", "--", "12_34", "1" * 65, "12\x0034"])
def test_what_is_no_government_id_is_refused(text: str) -> None:
    assert "is not a government id" in refusal(normalise.government_id, text).reason


def test_an_external_id_keeps_its_case() -> None:
    assert normalise.external_id(" crm/Ab 12\n") == "crm/Ab 12"
    assert normalise.external_id_key("Ab") != normalise.external_id_key("ab")


@pytest.mark.parametrize("text", ["", " ", "a\tb", "a\u200bb", "\ud800", "x" * 129])
def test_what_is_no_external_id_is_refused(text: str) -> None:
    refusal(normalise.external_id, text)


def test_codes_are_kept_in_their_canonical_case() -> None:
    assert [normalise.country(text) for text in ("de", " US ", "aq", "xk")] == ["DE", "US", "AQ", "XK"]
    assert [normalise.region(text) for text in ("us-wa", "WA", "fr-75c")] == ["US-WA", "WA", "FR-75C"]
    tags = ["EN", "en_us", "zh-hant-tw", "de-ch-1996", "es-419", "en-us-u-ca-gregory", "en-x-us"]
    kept = ["en", "en-US", "zh-Hant-TW", "de-CH-1996", "es-419", "en-US-u-ca-gregory", "en-x-us"]
    assert [normalise.language(tag) for tag in tags] == kept


@pytest.mark.parametrize("text", ["", "ß", "QQ", "DEU", "Germany", "U\u212a"])
def test_what_is_no_country_is_refused(text: str) -> None:
    refusal(normalise.country, text)


@pytest.mark.parametrize("text", ["", "e", "english language", "en-", "en-US-" + "a" * 40, "x" * 9])
def test_what_is_no_language_is_refused(text: str) -> None:
    refusal(normalise.language, text)


def test_real_phones_are_kept() -> None:
    with LEGISLATORS.open(encoding="utf-8", newline="") as file:
        phones = [row["Phone"] for row in csv.DictReader(file) if row["Phone"]]

    assert len(phones) > 500
    assert all(normalise.phone(text, "US").startswith("+1") for text in phones)
