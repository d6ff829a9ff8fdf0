"""Name search indexes what a query will ask, in every script, and matches nothing else."""

import csv
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain import name_search, normalise

LEGISLATORS = Path(__file__).parents[2] / "examples" / "legislators.csv"
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Jean-Luc Łoś", "jeanluclos"),
        ("O’Brien", "obrien"),
        ("Søren Straße", "sorenstrasse"),
        ("Marcel·la", "marcella"),
        ("İREM Işık", "iremisik"),
        ("Άννα Ёлкин", "ανναелкин"),
        ("हिना", "हिना"),
        ("ﾊﾞﾅﾅ ガ", "バナナガ"),
        ("김민수", "김민수"),
        ("مُحَمَّد", "محمد"),
        ("葛\U000e0100城", "葛城"),
        ("Ｊｏｈｎ", "john"),
        ("😀 ...", ""),
    ],
)
def test_a_name_key_has_letters_as_people_type_them(name: str, key: str) -> None:
    assert name_search.name_key(name) == key


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("John", ["joh"]),
        ("Maria Cantwell", ["mar", "mariac", "can", "cantwe"]),
        ("Jean-Luc", ["jea", "jeanlu", "luc"]),
        ("Li", ["li"]),
        ("Li Wang", ["liw", "liwang", "li", "wan"]),
        ("李小明", ["李", "李小"]),
        ("約翰·史密斯", ["約", "約翰", "史", "史密"]),
        ("Marcel·la", ["mar", "marcel"]),
        ("...", []),
    ],
)
def test_a_name_is_indexed_whole_and_by_word(name: str, keys: list[str]) -> None:
    assert name_search.name_prefixes(name) == keys


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("Cantwell", "cantwe"),
        ("cant", "can"),
        ("li", "li"),
        ("李小明", "李小"),
        ("李", "李"),
        ("j cantw", "can"),
        ("?", None),
    ],
)
def test_a_search_uses_the_longest_stored_key(query: str, key: str | None) -> None:
    assert name_search.prefix_lookup(query) == key


@pytest.mark.parametrize("query", ["ben", "Lujan", "LUJÁN", "benr", "ray lu", "lu ray", "Ben Ray Luján", "benraylujan"])
def test_a_name_matches_the_beginnings_of_its_words(query: str) -> None:
    assert name_search.matches_prefix("Ben Ray Luján", query)


@pytest.mark.parametrize("query", ["jan", "be", "l", "ben x", "lujano", "", "?"])
def test_a_name_matches_nothing_else(query: str) -> None:
    assert not name_search.matches_prefix("Ben Ray Luján", query)


def test_a_short_query_matches_a_short_word_only() -> None:
    assert name_search.matches_prefix("Li Wang", "li")
    assert not name_search.matches_prefix("Linda", "li")


@given(ANY_TEXT)
@example("ㇷ゚ᄀ ᅡ")
def test_a_name_key_stays_as_it_is(name: str) -> None:
    key = name_search.name_key(name)

    assert name_search.name_key(key) == key


# Some letters decompose to a space or a dot, and so are two words: ﱞ, ŀ.
LETTERS = st.characters(categories=("L", "M", "Nd")).filter(
    lambda c: not {" ", "·"} & {*unicodedata.normalize("NFKD", c)}
)
WORD = st.text(LETTERS, min_size=1) | st.sampled_from(
    ["Ána", "Li", "李小明", "van", "हिना", "ガ", "O'Neil", "Strauß", "각"]
)


@given(st.lists(WORD, min_size=1, max_size=7), st.sampled_from(" -\u2011"), st.data())
def test_every_prefix_of_a_word_long_enough_finds_the_name(
    words: list[str], separator: str, data: st.DataObject
) -> None:
    name = separator.join(words)
    word = data.draw(st.sampled_from(words).map(name_search.name_key).filter(bool))
    shortest = 1 if name_search.is_cjk(word) else min(3, len(word))
    query = word[: data.draw(st.integers(shortest, len(word)))]

    assert name_search.prefix_lookup(query) in name_search.name_prefixes(name)
    assert name_search.matches_prefix(name, query)


WORDS = st.lists(st.text("abA李ガ\u0301 -", min_size=1, max_size=8), max_size=9).map(" ".join)


@given(WORDS | ANY_TEXT, WORDS | ANY_TEXT)
def test_what_matches_is_found_by_the_index(name: str, query: str) -> None:
    found = name_search.prefix_lookup(query) in name_search.name_prefixes(name)

    assert found or not name_search.matches_prefix(name, query)


@given(st.lists(st.text("abcdefghij", min_size=1, max_size=12), max_size=40).map(" ".join))
def test_a_name_has_at_most_sixteen_keys(name: str) -> None:
    keys = name_search.name_prefixes(name)

    assert len(keys) == len(set(keys)) <= 16


def test_real_names_are_found_by_each_field() -> None:
    with LEGISLATORS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row[column] for row in rows for column in ("First Name", "Last Name", "Official Name") if row[column]]

    assert len(names) > 1500
    for name in names:
        assert name_search.prefix_lookup(normalise.name(name)) in name_search.name_prefixes(name)
        assert name_search.matches_prefix(name, name)
