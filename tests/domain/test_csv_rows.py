"""CSV is read exactly or refused with the row's number, and a refusal never quotes the file."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import csv_rows
from domain.csv_rows import MOST_ROWS
from domain.errors import Refused, UserError

TABLE = [["name", "note"], ["Ada", "one"], ["Béla; Jr, III", "two\nlines"], ["=1+1", "\u202fa\ttab"]]
CANARY = "Canary-4711"


def written(table: list[list[str]], delimiter: str, ending: str = "\r\n") -> str:
    text = io.StringIO()
    dialect = csv.unix_dialect if ending == "\r" else csv.excel  # excel forgets to quote \n where \r ends lines
    csv.writer(text, dialect, delimiter=delimiter, lineterminator=ending).writerows(table)
    return text.getvalue()


def refused(text: str, *headers: str) -> tuple[UserError, ...]:
    with pytest.raises(Refused) as caught:
        csv_rows.read(text, headers)
    assert CANARY not in str(caught.value)
    return caught.value.errors


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=repr)
def test_every_usual_form_gives_the_same_cells(delimiter: str, ending: str, mark: str) -> None:
    header, rows = csv_rows.read(mark + written(TABLE, delimiter, ending), ["name", "note"])
    assert [header, *(row.cells for row in rows)] == TABLE
    assert [row.number for row in rows] == [1, 2, 3]


# Controls are refused, and a lone first cell that is empty makes an empty line.
CELL = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t"), max_size=20)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_what_was_written_is_what_is_read(cells: list[tuple[str, str]], delimiter: str) -> None:
    table = [["a", "b"], *map(list, cells)]
    _, rows = csv_rows.read(written(table, delimiter), ["a", "b"])
    assert [row.cells for row in rows] == table[1:]


def test_the_headers_that_are_looked_for_tell_the_delimiter() -> None:
    header, rows = csv_rows.read("last, first;phone\nLovelace, Ada;1\n", ["last, first"])
    assert (header, rows[0].cells) == (["last, first", "phone"], ["Lovelace, Ada", "1"])


def test_a_header_in_quotes_is_read_under_every_delimiter() -> None:
    assert csv_rows.read('"a";"b"\n1;2\n', ["a", "b"])[0] == ["a", "b"]


def test_empty_lines_count_as_places_and_are_no_rows() -> None:
    _, rows = csv_rows.read("a,b\n\n1,2\n\n\n3,4\n\n", ["a"])
    assert [(row.number, row.cells) for row in rows] == [(2, ["1", "2"]), (5, ["3", "4"])]


def test_every_ragged_row_is_named() -> None:
    errors = refused(f"a,b\n1,2\n{CANARY}\n1,2\n1,2,{CANARY}\n", "a")
    assert [error.code for error in errors] == ["RAGGED_ROW", "RAGGED_ROW"]
    assert [error.message for error in errors] == [
        "Row 2 has 1 cells where the header has 2.",
        "Row 4 has 3 cells where the header has 2.",
    ]


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("", "REQUIRED", "no rows"),
        ("a,b\n", "REQUIRED", "no rows"),
        ("a,b\n\n\n", "REQUIRED", "no rows"),
        (f"a,b\n1,2\n{CANARY},\0\n", "CONTROL_CHARACTER", "Row 2 holds a control character in column 2"),
        (f"a,b\n1,{CANARY}\x1b\n", "CONTROL_CHARACTER", "Row 1"),
        (f"a,b\n1,{CANARY}\x93\n", "CONTROL_CHARACTER", "UTF-8"),
        (f"a,b\n1,{CANARY}\ud800\n", "CONTROL_CHARACTER", "Row 1"),
        (f'a,b\n1,2\n1,"{CANARY}\n', "NOT_CSV", "Row 2 is not CSV"),
        (f'a,b\n1,"{CANARY}" x\n', "NOT_CSV", "Row 1 is not CSV"),
        (f'"{CANARY},b\n1,2\n', "NOT_CSV", "The header is not CSV"),
        ("a\n" + "1\n" * (MOST_ROWS + 1), "TOO_MANY_ROWS", "split it"),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_a_file_that_cannot_be_meant_is_refused(text: str, code: str, named: str) -> None:
    (error,) = refused(text, "a")
    assert (error.code, error.path) == (code, ("csv",))
    assert named in error.message


def test_the_most_rows_are_taken() -> None:
    assert len(csv_rows.read("a\n" + "1\n" * MOST_ROWS, ["a"])[1]) == MOST_ROWS


def test_of_many_bad_rows_the_first_twenty_are_named() -> None:
    assert len(refused("a,b\n" + "1\n" * 500, "a")) == 20
